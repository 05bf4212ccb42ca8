"""UDP port 326: the socket under core/wire/sessions.py, and the relay for the registry on this machine (wire.md 6 and
7).

A message goes to `handle`, which returns the answer or None. The registry talks to us from ::1: about ourselves, which
is answered at once, or about a peer, which is asked on its behalf (core/wire/relay.py).

The socket is bound on ::, so it hears what anybody sends to any address of this machine. What was not sent to our own
subnet, or came by an interface that does not belong to the network, is dropped before it is looked at.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv6Address, IPv6Network
from typing import Protocol

from cryptography import x509

from re6st import PROTOCOL, cert
from re6st.core import interfaces
from re6st.core.prefix import Prefix, PrefixError, control_address, subnet
from re6st.core.wire.datagrams import DATAGRAM_LIMIT, PORT, RELAYED, Code, WireError
from re6st.core.wire.extensions import Extension
from re6st.core.wire.offers import Aead
from re6st.core.wire.peer_crypto import PeerCertificate
from re6st.core.wire.relay import RELAYED_CODES, Relay
from re6st.core.wire.sessions import AbilitiesTold, Datagram, Message, Output, Sessions
from re6st.keys import pki, sealing
from re6st.linux.datagrams import DatagramSocket, tell_destinations
from re6st.linux.local_programs import PortOwners

Handler = Callable[[Prefix | None, int, bytes, bool], bytes | None]
"""Called with the peer (None: the registry on this machine), the code, the payload, and whether the peer asks for the
registry on its machine; returns the answer.
"""

RETRY_EVERY = 1.0
"""Seconds between two looks at what has not been answered."""
LIVELY = 30.0
"""Seconds after something was said or heard in which there may be more to say by the clock: a message waits for a
session for ten of them, and an offer to seal is made three times in as long."""
ENSURED = 10.0
"""Seconds for which a session is tried after somebody asked for it: two heartbeats of the policy, which asks again."""
LOG_EVERY = 10.0
"""Seconds between two log lines about dropped datagrams."""
_TYPES = {int(code): code.name.lower() for code in Code}
LOOPBACK = IPv6Address("::1")

log = logging.getLogger(__name__)


class PortInUse(Exception):
    """Somebody else has UDP port 326."""


@dataclass(frozen=True, slots=True)
class ReadCertificate:
    """A peer's certificate that was read; `Sessions` keeps it once it is verified."""

    prefix: Prefix
    serial: int
    der: bytes
    fingerprint: bytes
    certificate: x509.Certificate = field(repr=False)

    @property
    def until(self) -> float:
        return pki.end_of(self.certificate).timestamp()


class NodeCrypto:
    """Our keys and the CA, for core/wire/sessions.py. `revoked` gives the serial numbers that are out, `abilities` what
    we announce beyond what every machine can do.
    """

    aead: Aead = sealing.CIPHER

    def __init__(
        self,
        identity: cert.Identity,
        revoked: Callable[[], frozenset[int]],
        abilities: Callable[[], frozenset[Extension]] = frozenset,
    ) -> None:
        self.use(identity)
        self._revoked = revoked
        self._abilities = abilities

    @property
    def abilities(self) -> frozenset[Extension]:
        return self._abilities()

    def use(self, identity: cert.Identity) -> None:
        """Go on with a renewed certificate."""
        self._identity = identity
        self.prefix, self.der, self.fingerprint = identity.prefix, identity.der, identity.fingerprint

    def read(self, der: bytes) -> ReadCertificate:
        try:
            certificate = cert.load_der(der)
            prefix = cert.prefix_of_cert(certificate)
        except cert.CertError as error:
            raise WireError(f"peer's certificate: {error}") from None
        if certificate.issuer != self._identity.trust.ca.subject:
            raise WireError("peer's certificate is not of our CA")
        if not pki.begin_of(certificate) <= datetime.now(UTC) <= pki.end_of(certificate):
            raise WireError(f"certificate {certificate.serial_number} of {prefix} is not valid now")
        if certificate.serial_number in self._revoked():
            raise WireError(f"certificate {certificate.serial_number} of {prefix} is revoked")
        return ReadCertificate(prefix, certificate.serial_number, der, cert.fingerprint(certificate), certificate)

    def admit(self, certificate: PeerCertificate) -> None:
        try:
            self._identity.trust.check_strict(_certificate(certificate), datetime.now(UTC))
        except cert.CertError as error:
            raise WireError(f"peer's certificate: {error}") from None

    def still_good(self, certificate: PeerCertificate) -> bool:
        known = _certificate(certificate)
        return certificate.serial not in self._revoked() and datetime.now(UTC) <= pki.end_of(known)

    def encrypt(self, certificate: PeerCertificate, data: bytes) -> bytes:
        try:
            return cert.encrypt(_certificate(certificate), data)
        except cert.CertError as error:
            raise WireError(str(error)) from None

    def decrypt(self, data: bytes) -> bytes:
        try:
            return cert.decrypt(self._identity.key, data)
        except cert.CertError as error:
            raise WireError(str(error)) from None

    def sign(self, data: bytes) -> bytes:
        return cert.sign(self._identity.key, data)

    # For messages that are sealed (core/wire/seals.py).

    def ephemeral(self) -> sealing.SessionKey:
        return sealing.SessionKey()

    def sign_offer(self, statement: bytes) -> bytes:
        return sealing.sign(self._identity.key, statement)

    def verify_offer(self, der: bytes, signature: bytes, statement: bytes) -> bool:
        try:
            return sealing.verify(cert.key_of_cert(cert.load_der(der)), signature, statement)
        except cert.CertError:
            return False

    def verify(self, certificate: PeerCertificate, signature: bytes, data: bytes) -> bool:
        return cert.verify(_certificate(certificate), signature, data)


def _certificate(certificate: PeerCertificate) -> x509.Certificate:
    if not isinstance(certificate, ReadCertificate):
        raise TypeError("not a certificate that we can read")
    return certificate.certificate


def new_secret() -> bytes:
    """A session secret: microseconds since 1970, then chance (wire.md 6.2)."""
    return int(time.time() * 1e6).to_bytes(8) + os.urandom(12)


def control_socket() -> socket.socket:
    """UDP port 326. Raises PortInUse: there is one for each network namespace, so one re6stnet too (wire.md 12).

    Bound on `::`, since the control address cannot be bound (wire.md 1.2).
    """
    own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tell_destinations(own)
        own.setblocking(False)
        own.bind(("::", PORT))
    except OSError as error:
        own.close()
        raise PortInUse(
            f"udp/{PORT}: {error.strerror}. Is another re6stnet running in this network namespace?"
        ) from None
    return own


class DatagramTransport(Protocol):
    """What `Peers` needs of its socket."""

    def sendto(self, data: bytes, to: tuple[str, int]) -> None: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...


class Standing(Protocol):
    """What the node knows of its peers."""

    def is_routed(self, peer: Prefix) -> bool:
        """Whether there is a route to one."""

    def lacks_extension(self, peer: Prefix) -> bool:
        """Whether it lacks what the network requires: nothing that it says is taken."""


def sessions_with(crypto: NodeCrypto, network: IPv6Network, version: bytes, standing: Standing) -> Sessions:
    """The sessions of a node that has network parameters of this version."""
    return Sessions(network, crypto, PROTOCOL, version, new_secret, standing.is_routed, sealer=crypto)


class Peers:
    """The sessions with our peers, on their socket; `links` are the interfaces with peers that are no tunnels.

    `wake` is called when the next deadline may be sooner than it was.
    """

    def __init__(
        self,
        sessions: Sessions,
        own: Prefix,
        standing: Standing,
        handle: Handler,
        links: frozenset[str] = frozenset(),
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        self.sessions = sessions
        self.messages: Counter[tuple[str, str]] = Counter()
        """How many were `sent` and `received`, by their type; an answer counts too."""
        self.dropped = 0
        """Datagrams that were not accepted."""
        self.told_abilities: Callable[[Prefix], object] = lambda _: None
        """Hears of each new session with a peer of this software, once that has said in it what it can do."""
        self.anycast: Callable[[], IPv6Address | None] = lambda: None
        """The address that we share with all nodes of our region."""
        self._own = own
        self._subnet = subnet(sessions.network, own)
        self._standing = standing
        self._handle = handle
        self._links = links
        self._wake = wake
        self._lively = self._ticked = float("-inf")
        """Until when there may be something to say again, and when we last looked."""
        self._ensured: dict[Prefix, float] = {}
        """With whom a session is wanted, and until when."""
        self._transport: DatagramTransport | None = None
        self._relayed = Relay()
        self._owners = PortOwners()
        self._dropped = 0
        self._logged = -LOG_EVERY

    def open(self, control: socket.socket) -> None:
        """Speak over the control socket, which is closed with us. To be called in the running event loop."""
        self.use(DatagramSocket(control, self.arrived))

    def use(self, transport: DatagramTransport) -> None:
        """Send by this."""
        self._transport = transport

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        """Send a message; without a session it waits a few seconds for one."""
        self._count("sent", code)
        now = _now()
        self._carry_out(self.sessions.send(peer, bytes((code,)) + payload, now))
        self._stir(now)

    def ensure(self, peer: Prefix) -> None:
        """Open a session if there is none; it is tried until it is there, or nobody has asked for it for a while."""
        now = _now()
        self._carry_out(self.sessions.ensure(peer, now))
        if not self.sessions.connected(peer, now):
            self._ensured[peer] = now + ENSURED
            self._stir(now)

    def greet(self, ip: IPv6Address) -> None:
        """Show whoever has this address who we are, once."""
        self._send(self.sessions.greeting(), (str(ip), PORT))

    def begin_anew(self, peer: Prefix) -> None:
        """Replace the session with a peer."""
        now = _now()
        self._carry_out(self.sessions.begin_anew(peer, now))
        self._stir(now)

    def connected(self, peer: Prefix) -> bool:
        return self.sessions.connected(peer, _now())

    def next_deadline(self, now: float) -> float:
        """When `tick` is to be called: every second as long as something may wait for an answer."""
        return self._ticked + RETRY_EVERY if now < self._lively else float("inf")

    def tick(self) -> None:
        """Say again what has not been answered, and give up what waits for too long."""
        self._ticked = now = _now()
        for peer, until in list(self._ensured.items()):
            if now >= until or self.sessions.connected(peer, now):
                del self._ensured[peer]
            else:
                self._carry_out(self.sessions.ensure(peer, now))
        self._carry_out(self.sessions.retry(now))
        self._relayed.expire(now)

    def _stir(self, now: float) -> None:
        """Something was said, or heard: for a while there may be more to say by the clock."""
        slept, self._lively = now >= self._lively, now + LIVELY
        if slept:
            self._wake()

    def arrived(self, data: bytes, source: tuple[str, int], destination: IPv6Address, interface: str) -> None:
        """Take a datagram that came to one of this machine's addresses, by one of its interfaces."""
        is_ours = destination in self._subnet or destination in (LOOPBACK, self.anycast())
        if not is_ours or not (interface == "lo" or interfaces.is_ours(interface) or interface in self._links):
            self._drop(source[0], WireError(f"it was sent to {destination} by {interface or 'an unknown interface'}"))
        else:
            self.receive(data, source)

    def receive(self, data: bytes, source: tuple[str, int]) -> None:
        """Take a datagram in."""
        try:
            if len(data) > DATAGRAM_LIMIT:
                raise WireError(f"datagram of {len(data)} bytes")
            ip = IPv6Address(source[0].partition("%")[0])
            if ip.is_loopback:
                self._relay(data, source)
            else:
                now = _now()
                self._carry_out(self.sessions.receive((ip, source[1]), data, now))
                self._stir(now)
        except (WireError, AddressValueError) as error:
            self._drop(source[0], error)

    # -- within --

    def _relay(self, data: bytes, requester: tuple[str, int]) -> None:
        """A question of the registry on this machine: prefix bits, a zero byte, a code (wire.md 7)."""
        bits, zero, code = data.partition(b"\0")
        if not zero or len(code) != 1 or code[0] & RELAYED:
            raise WireError("not a question of a registry")
        try:
            peer = Prefix.from_bits(bits.decode("ascii"))
            control_address(self.sessions.network, peer)  # it has one
        except (PrefixError, UnicodeDecodeError) as error:
            raise WireError(str(error)) from None
        now = _now()
        user = self._owners.of(requester[1], now)
        if peer == self._own:
            if code[0] not in (Code.VERSION, *RELAYED_CODES) or not self._relayed.ask_us(user, now):
                raise WireError(f"code {code[0]} is not a question of a registry, or there are too many questions")
            if answer := self._handle(None, code[0], b"", False):
                self._send((data + answer), requester)
        elif not (self._standing.is_routed(peer) or self.sessions.knows(peer)):
            raise WireError(f"a question for {peer}, to whom there is no route")
        elif self._relayed.ask(peer, code[0], requester, user, now):
            self.send(peer, code[0] | RELAYED)
        else:
            raise WireError(
                f"code {code[0]} for {peer} is not a question of a registry, or there are too many questions"
            )

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Datagram(address, port, data):
                    self._send(data, (str(address), port))
                case AbilitiesTold(peer):
                    self.told_abilities(peer)
                case Message() as message:
                    self._carry_out(self.sessions.answer(message, self._act(message), _now()))

    def _act(self, message: Message) -> bytes | None:
        self._count("received", message.code)
        if self._standing.lacks_extension(message.peer):
            return None
        if message.relayed and message.payload:
            if (requester := self._relayed.answered(message.peer, message.code)) is not None:
                head = message.peer.bits.encode("ascii") + b"\0" + bytes((message.code,))
                self._send(head + message.payload, requester)
            return None
        answer = self._handle(message.peer, message.code, message.payload, message.relayed)
        if answer is not None:
            self._count("sent", message.code)
        return answer

    def _count(self, direction: str, code: int) -> None:
        self.messages[direction, _TYPES.get(code & ~RELAYED, "other")] += 1

    def _send(self, data: bytes, to: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, to)

    def _drop(self, source: str, error: Exception) -> None:
        """Say once in a while what is dropped: a flood must not fill the log."""
        self._dropped += 1
        self.dropped += 1
        if _now() - self._logged >= LOG_EVERY:
            log.warning("port %s: dropped %s datagram(s), the last from %s: %s", PORT, self._dropped, source, error)
            self._dropped, self._logged = 0, _now()


def _now() -> float:
    return time.monotonic()
