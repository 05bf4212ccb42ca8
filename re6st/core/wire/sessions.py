"""The sessions of a node with its peers: who is who, handshake, acknowledgement (wire.md 6.2 to 6.5).

`Sessions` is told what arrived and what to send, and returns what is to be done: `Datagram`s to put on the wire and
`Message`s to act on. Every message must be given to `answer` once.

Where the protocol leaves room, this side is kinder than the older software, and stays understood by it:

- a message for a peer without a session waits for it (a few seconds) instead of being lost;
- a new session offered to us stands beside the old one until its first valid packet, so a replayed hello breaks
  nothing;
- two nodes that greet each other at the same time both get an answer at once instead of after 60 s;
- a datagram that we sent ourselves and that comes back is ignored, as one secret serves both directions;
- a peer that answers nothing for a few seconds is greeted again, as it may have started anew, while the session stays;
- whoever cannot make a secret because its clock is late has the other one make it;
- a peer of a release that would end when it hears an older version opens its session with an empty message, and is
  brought to tell its own version later.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from re6st.core.limits.budget import Buckets, HandshakeBudget
from re6st.core.prefix import MAX_LENGTH, Prefix, address_bits, control_address
from re6st.core.wire.datagrams import (
    MAC_LENGTH,
    PORT,
    RELAYED,
    Code,
    Data,
    Hello,
    Hello0,
    Sealed,
    WireError,
    check_data,
    decode,
    encode_data,
    encode_hello,
    encode_hello0,
)
from re6st.core.wire.extensions import Extension
from re6st.core.wire.offers import OfferError
from re6st.core.wire.peer_crypto import Crypto, PeerCertificate
from re6st.core.wire.peer_table import HELLO_FIRST_WAIT, HELLO_WAIT, Peer, PeerSession, PeerTable
from re6st.core.wire.requirement import AnnouncedNames
from re6st.core.wire.seals import Seal, Sealer

FRAGILE_PROTOCOLS = range(8, 10)
"""The older software's first releases for Python 3 (0.642 is one, of protocol 8) end with an error when they have to
answer a version that is older than their own, or not signed. So they are not told ours unasked, which nobody knows to
be the newer one; they tell us theirs when we make the secret."""
ASK_VERSION = 61.0
"""Seconds from a session whose secret such a peer made, in which it told nothing, until it is greeted as by a stranger:
then it has us make the next secret. It answers one greeting a minute (wire.md 6.3)."""
QUESTIONS = frozenset(
    bytes([code | relayed]) for code in (Code.ADDRESS, Code.SOFTWARE, Code.TOPOLOGY) for relayed in (0, RELAYED)
)
"""Messages that change nothing with who gets them. The peer's, with the number that is due, may be the same as one of
ours, byte for byte."""
ASKED_PROTOCOL = 10
"""Ours announces it. Older releases are not sent messages that they do not know."""
SECRET_LENGTH = 20
QUEUE_TIME = 10.0
"""Seconds a message waits for a session."""
MESSAGES = 20.0, 60.0, 1000.0, 2000.0
"""Messages a second, and at once, that are taken from one peer and from all."""
ANSWER_TIME = 60.0
"""Seconds after a greeting of ours in which a secret is taken from a peer; later nobody has asked it for one."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """To be sent from our port 326."""

    address: IPv6Address
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A non-empty payload of a peer, to be answered once."""

    peer: Prefix
    code: int
    relayed: bool
    payload: bytes
    source: tuple[IPv6Address, int]


@dataclass(frozen=True, slots=True)
class AbilitiesTold:
    """A peer has said, in the session that is in use, what it can do: from now on it may be sent more."""

    peer: Prefix


Output = Datagram | Message | AbilitiesTold


class Sessions:
    """All peers we ever heard of, within a bound. `routed` tells whether the routing table has a prefix. With a
    `sealer`, messages to peers of this software are sealed (seals.py).

    `new_secret` gives 8 bytes of microseconds since 1970 and 12 random ones, so that a later secret is greater
    (wire.md 6.2). `now` is always seconds of one monotonic clock.
    """

    def __init__(
        self,
        network: IPv6Network,
        crypto: Crypto,
        protocol: int,
        version: bytes,
        new_secret: Callable[[], bytes],
        routed: Callable[[Prefix], bool] = lambda prefix: False,
        sealer: Sealer | None = None,
    ) -> None:
        self.network = network
        self.crypto = crypto
        self.protocol = protocol
        self.version = version
        self._new_secret = new_secret
        self._oldest_secret = new_secret()
        self._routed = routed
        self._sealer = sealer
        self._table = PeerTable()
        self._budget = HandshakeBudget()
        self._messages: Buckets[Prefix] = Buckets(*MESSAGES)

    # -- asking --

    def peer(self, prefix: Prefix) -> Peer | None:
        return self._table.peer(prefix)

    def knows(self, prefix: Prefix) -> bool:
        """Whether we have the peer's certificate."""
        return self._table.known(prefix) is not None

    def connected(self, prefix: Prefix, now: float) -> bool:
        peer = self._table.known(prefix)
        return peer is not None and peer.connected(now)

    def acquainted(self) -> list[Prefix]:
        """The peers we have had a session with, the latest first."""
        return [peer.prefix for peer in self._table.latest() if peer.session is not None]

    def announced(self) -> dict[Prefix, AnnouncedNames]:
        """What the peers with a session can do."""
        sessions = ((peer.prefix, peer.session) for peer in self._table.latest())
        return {prefix: each.seal.announced for prefix, each in sessions if each is not None and each.seal is not None}

    def speaks(self, prefix: Prefix, extension: Extension, now: float) -> bool:
        """Whether a peer has announced in the session of now that it can do this, and messages are sealed there."""
        peer = self._table.peer(prefix)
        if peer is None or peer.session is None or peer.session.seal is None or not peer.connected(now):
            return False
        return peer.session.seal.names >= {extension, Extension.SEALED_MESSAGES}

    def answered(self, prefix: Prefix) -> bool:
        """Whether a peer has said something since we last sent it a message."""
        peer = self._table.known(prefix)
        return peer is not None and peer.session is not None and not peer.queue and peer.unanswered_since is None

    def forget(self, revoked: frozenset[int]) -> list[Prefix]:
        """Drop the peers whose certificate is revoked (wire.md 5.3), but not for one that was only shown."""
        return self._table.forget(revoked)

    # -- sending --

    def send(self, prefix: Prefix, payload: bytes, now: float) -> list[Output]:
        """Send a message; without a session it waits for one, for QUEUE_TIME.

        Here and below, a prefix that is too long for an address is nobody's: nothing is sent.
        """
        if not self._has_address(prefix):
            return []
        peer = self._table.wanted(prefix)
        if peer.connected(now):
            return [self._data(peer, payload, (control_address(self.network, prefix), PORT), now)]
        peer.queue.append((now + QUEUE_TIME, payload))
        return self._greet(peer, now)

    def ensure(self, prefix: Prefix, now: float) -> list[Output]:
        """Open a session if there is none."""
        if not self._has_address(prefix):
            return []
        peer = self._table.wanted(prefix)
        return [] if peer.connected(now) else self._greet(peer, now)

    def greeting(self) -> bytes:
        """A hello0 for whoever gets it: one that wants to speak with us greets us in turn."""
        return encode_hello0(Hello0(self.crypto.der))

    def begin_anew(self, prefix: Prefix, now: float) -> list[Output]:
        """Replace the session with a peer."""
        peer = self._table.known(prefix)
        if peer is None:
            return []
        peer.session = peer.offered = None
        return self._greet(peer, now)

    def answer(self, message: Message, answer: bytes | None, now: float) -> list[Output]:
        """Answer a message: `answer` goes back behind its code; None or empty only acknowledges (wire.md 6.4)."""
        peer = self._table.known(message.peer)
        if peer is None or peer.session is None:
            return []
        payload = bytes((message.code | (RELAYED if message.relayed else 0),)) + answer if answer else b""
        return [self._data(peer, payload, message.source, now)]

    def retry(self, now: float) -> list[Output]:
        """Greet again the peers for whom a message still waits. To be called every second or so."""
        outputs: list[Output] = []
        for peer in self._table.all():
            while peer.queue and peer.queue[0][0] <= now:
                peer.queue.popleft()
            if peer.queue and not peer.connected(now):
                outputs += self._greet(peer, now)
            outputs += self._ask(peer, (control_address(self.network, peer.prefix), PORT), now)
            outputs += self._ask_version(peer, now)
        return outputs

    def doubt(self, prefix: Prefix) -> None:
        """A peer was away: one that fetches what it was told a second later may have started anew, and not know it."""
        if (peer := self._table.known(prefix)) is not None and peer.protocol in FRAGILE_PROTOCOLS:
            peer.version = b""

    # -- receiving --

    def receive(self, source: tuple[IPv6Address, int], datagram: bytes, now: float) -> list[Output]:
        """Take a datagram in. Raises WireError, with the reason, for one that is dropped."""
        bits = address_bits(self.network, source[0])
        if bits is None:
            raise WireError("source address is outside the network")
        packet = decode(datagram)
        if isinstance(packet, Data):
            return self._receive_data(self._table.at(bits), packet, source, now)
        if isinstance(packet, Sealed):
            return self._receive_sealed(self._table.at(bits), packet, source, now)
        if isinstance(packet, Hello):
            return self._receive_hello(self._table.at(bits), packet, source, now)
        return self._receive_hello0(bits, packet, datagram, source, now)

    def _receive_hello0(
        self, bits: Prefix, packet: Hello0, datagram: bytes, source: tuple[IPv6Address, int], now: float
    ) -> list[Output]:
        try:
            certificate = self._admit(bits, packet.certificate, now)
        except WireError:
            if packet.fingerprint is None:
                raise
            old = decode(datagram, numbered=False)
            if not isinstance(old, Hello0):
                raise
            certificate = self._admit(bits, old.certificate, now)
            packet = old
        peer = self._table.met(certificate)
        if packet.fingerprint is None or not hmac.compare_digest(packet.fingerprint, self.crypto.fingerprint):
            return self._reply_hello0(peer, source, now, peer.certificate)
        peer.protocol = packet.protocol or 0
        if peer.offered is None or now >= peer.offer_until:
            if not self._budget.offer(peer.prefix, peer.awaited(now), now):
                raise WireError("too many handshakes")
            secret = self._new_secret()
            ciphertext = self.crypto.encrypt(certificate, secret)
            number = None if packet.protocol is None else self.protocol
            peer.offer = encode_hello(Hello(ciphertext, self.crypto.sign(ciphertext), number))
            peer.offered, peer.offered_at = self._session(secret, peer, asks=False, now=now), now
            peer.offer_until = now + peer.offer_wait
            peer.offer_wait = HELLO_WAIT  # who never uses one repeats an old greeting
        return [Datagram(*source, peer.offer)]

    def _receive_hello(
        self, peer: Peer | None, packet: Hello, source: tuple[IPv6Address, int], now: float
    ) -> list[Output]:
        if peer is None or peer.certificate is None:
            raise WireError("hello from a peer whose certificate we do not have")
        if now - peer.asked > ANSWER_TIME:
            raise WireError("hello that we have not asked for")
        if not self.crypto.still_good(peer.certificate):
            raise WireError("hello from a peer whose certificate has expired or is revoked")
        if not self._budget.signature(peer.prefix, now):
            raise WireError("too many handshakes")
        if not self.crypto.verify(peer.certificate, packet.signature, packet.ciphertext):
            raise WireError("hello with a wrong signature")
        if not self._budget.offer(peer.prefix, peer.awaited(now), now):
            raise WireError("too many handshakes")
        secret = self.crypto.decrypt(packet.ciphertext)
        known = [s.secret for s in (peer.session, peer.offered) if s] or [self._oldest_secret]
        if len(secret) != SECRET_LENGTH or secret <= max(known):
            if secret in known or peer.connected(now) or now < peer.offered_at + HELLO_FIRST_WAIT:
                raise WireError("hello is not newer than the session")
            # The peer's clock is late. Greeted as by a stranger, it asks us to make the secret.
            return self._reply_hello0(peer, source, now, None)
        peer.protocol = packet.protocol or 0
        peer.session, peer.offered, peer.telling = self._session(secret, peer, asks=True, now=now), None, b""
        first = b"\0" + self.version
        if peer.protocol in FRAGILE_PROTOCOLS:
            # It may have started anew, and not have kept what it was told.
            first, peer.version, peer.ask_version_at = b"", b"", now + ASK_VERSION
        outputs = [self._data(peer, first, source, now), *self._ask(peer, source, now)]
        return self._opened(peer, source, now, outputs)

    def _receive_data(
        self, peer: Peer | None, packet: Data, source: tuple[IPv6Address, int], now: float
    ) -> list[Output]:
        if peer is None:
            raise WireError("data from a stranger")
        outputs: list[Output] = []
        if peer.session and check_data(packet, peer.session.secret):
            if packet.number <= peer.session.rx:
                raise WireError("data packet repeated or late")
            if peer.session.seal is not None and peer.session.seal.confirmed:
                raise WireError("data packet that is not sealed, in a session whose messages are")
            if peer.session.sent.get(packet.number) != packet.mac:
                peer.session.heard(packet.number)
                outputs += self._heard(peer, packet.payload, source, now)
            elif packet.number > peer.session.rx + 1 or packet.payload not in QUESTIONS:
                raise WireError("our own datagram came back")
        elif peer.offered and packet.number > peer.offered.rx and check_data(packet, peer.offered.secret):
            peer.session, peer.offered, peer.telling = peer.offered, None, b""
            peer.session.heard(packet.number)
            outputs = self._opened(peer, source, now, [])
        else:
            raise WireError("data packet with a wrong HMAC")
        if packet.payload:
            return self._message(peer, packet.payload, outputs, source, now)
        return outputs

    def _receive_sealed(
        self, peer: Peer | None, packet: Sealed, source: tuple[IPv6Address, int], now: float
    ) -> list[Output]:
        if peer is None or peer.session is None or peer.session.seal is None:
            raise WireError("sealed message of no session")
        payload = peer.session.seal.open(packet)
        if payload is None:
            raise WireError("sealed message that is not of this session, repeated or late")
        peer.session.sent.clear()
        outputs = self._heard(peer, payload, source, now)
        return self._message(peer, payload, outputs, source, now) if payload else outputs

    # -- within --

    def _has_address(self, prefix: Prefix) -> bool:
        """Whether a prefix is not too long for the network: what waited for one that is would fail at each look."""
        return self.network.prefixlen + prefix.length <= MAX_LENGTH

    def _heard(self, peer: Peer, payload: bytes, source: tuple[IPv6Address, int], now: float) -> list[Output]:
        """The peer has said something: it has what we told it, and may be told more."""
        peer.unanswered_since = None
        if peer.telling and not payload:
            peer.version, peer.telling = max(peer.version, peer.telling), b""
        return self._waiting(peer, source, now)

    def _message(
        self, peer: Peer, payload: bytes, outputs: list[Output], source: tuple[IPv6Address, int], now: float
    ) -> list[Output]:
        """What comes of a message, behind what came of its arrival."""
        if not self._messages.take(peer.prefix, now):
            if outputs:
                return outputs
            raise WireError("too many messages")
        code = payload[0]
        if code == Code.OFFER and peer.session is not None and peer.session.seal is not None:
            knew = peer.session.seal.announced.names is not None
            answer = self._data(peer, self._answer_offer(peer.session.seal, payload[1:]), source, now)
            learned = not knew and peer.session.seal.announced.names is not None
            return [*outputs, answer, *([AbilitiesTold(peer.prefix)] if learned else ())]
        return [*outputs, Message(peer.prefix, code & ~RELAYED, bool(code & RELAYED), payload[1:], source)]

    def _answer_offer(self, seal: Seal, body: bytes) -> bytes:
        """The answer to an offer; who asked only acknowledges, as others do, and as we do what is none."""
        try:
            seal.take(body)
        except OfferError:
            return b""
        return b"" if seal.asks else bytes((Code.OFFER,)) + seal.offer()

    def _ask(self, peer: Peer, to: tuple[IPv6Address, int], now: float) -> list[Output]:
        """Offer to seal, where it is time to."""
        seal = peer.session.seal if peer.session is not None else None
        if seal is None or peer.protocol < ASKED_PROTOCOL or not seal.due(now):
            return []
        return [self._data(peer, bytes((Code.OFFER,)) + seal.offer(), to, now)]

    def _ask_version(self, peer: Peer, now: float) -> list[Output]:
        """Greet a peer that does not tell its version unless we make the secret, so that we do."""
        owes = peer.protocol in FRAGILE_PROTOCOLS and peer.session is not None and not peer.version
        if not owes or now < peer.ask_version_at or not self._routed(peer.prefix):
            return []
        peer.ask_version_at = now + ASK_VERSION
        return [Datagram(control_address(self.network, peer.prefix), PORT, self._hello0(peer, None, now))]

    def _session(self, secret: bytes, peer: Peer, *, asks: bool, now: float) -> PeerSession:
        if self._sealer is None or peer.certificate is None:
            return PeerSession(secret, peer.certificate)
        seal = Seal(self._sealer, self.crypto.der, peer.certificate.der, asks=asks, now=now)
        return PeerSession(secret, peer.certificate, seal)

    def _opened(self, peer: Peer, source: tuple[IPv6Address, int], now: float, outputs: list[Output]) -> list[Output]:
        peer.unanswered_since = None
        peer.hello_wait, peer.hello_after = HELLO_FIRST_WAIT, 0.0
        peer.offer_wait = HELLO_FIRST_WAIT
        return [*outputs, *self._waiting(peer, source, now)]

    def _waiting(self, peer: Peer, to: tuple[IPv6Address, int], now: float) -> list[Output]:
        """What waited for a session."""
        if not peer.queue or not peer.connected(now):
            return []
        waiting = [payload for until, payload in peer.queue if until > now]
        peer.queue.clear()
        return [self._data(peer, payload, to, now) for payload in waiting]

    def _data(self, peer: Peer, payload: bytes, to: tuple[IPv6Address, int], now: float) -> Datagram:
        session = peer.session
        if session is None:
            raise RuntimeError(f"no session with {peer.prefix}")
        if payload and peer.unanswered_since is None:
            peer.unanswered_since = now
        if payload[:1] == b"\0":
            peer.telling = payload[1:]
        if session.seal is not None and session.seal.active:
            return Datagram(*to, session.seal.seal(payload))
        session.tx += 1
        data = encode_data(session.tx, payload, session.secret)
        if payload and session.tx > session.rx:
            session.sent[session.tx] = data[-MAC_LENGTH:]
        return Datagram(*to, data)

    def _greet(self, peer: Peer, now: float) -> list[Output]:
        """A hello0, at most one per wait, which doubles up to HELLO_WAIT."""
        if now < peer.hello_after or peer.prefix == self.crypto.prefix:
            return []
        peer.greeted = now
        peer.hello_after = now + peer.hello_wait
        peer.hello_wait = min(2 * peer.hello_wait, HELLO_WAIT)
        return [Datagram(control_address(self.network, peer.prefix), PORT, self._hello0(peer, peer.certificate, now))]

    def _reply_hello0(
        self, peer: Peer, to: tuple[IPv6Address, int], now: float, known: PeerCertificate | None
    ) -> list[Output]:
        """Answer a hello0 that does not show our fingerprint, or a hello that is late.

        Bounded on its own: two nodes that greet each other at the same time must both answer, and a wrong fingerprint
        must not start an endless exchange.
        """
        if now < peer.reply_after:
            return []
        peer.reply_after = now + HELLO_FIRST_WAIT
        return [Datagram(*to, self._hello0(peer, known, now))]

    def _hello0(self, peer: Peer, known: PeerCertificate | None, now: float) -> bytes:
        if known is None:
            return encode_hello0(Hello0(self.crypto.der))
        peer.asked = now
        return encode_hello0(Hello0(self.crypto.der, known.fingerprint, self.protocol))

    def _admit(self, bits: Prefix, der: bytes, now: float) -> PeerCertificate:
        known = self._table.at(bits)
        if known and known.certificate and known.certificate.der == der:
            if not self.crypto.still_good(known.certificate):
                raise WireError("certificate has expired or is revoked")
            return known.certificate
        certificate = self.crypto.read(der)
        prefix = certificate.prefix
        if not prefix.contains(bits):
            raise WireError(f"certificate of {prefix} came from an address of somebody else")
        peer = self.peer(prefix)
        awaited = peer is not None and peer.awaited(now)
        if not self._budget.certificate(prefix if awaited else bits, self._routed(prefix), awaited, now):
            raise WireError("too many handshakes")
        self.crypto.admit(certificate)
        return certificate
