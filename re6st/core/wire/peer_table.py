"""The peers that a node has met, or wants to speak with, each with its sessions (wire.md 6.2), within a bound.

A peer whose certificate was verified stays until others have taken its place. A stranger, whose name may be invented,
has a place among strangers only.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from re6st.core.prefix import Prefix
from re6st.core.wire.peer_crypto import PeerCertificate
from re6st.core.wire.seals import Seal

MESSAGE_TIMEOUT = 5.0
"""Seconds after which a peer that answers nothing counts as not connected (wire.md 6.2 has 60, for itself)."""
HELLO_WAIT = 10.0
"""The longest between two greetings while there is something to say."""
HELLO_FIRST_WAIT = 1.0
QUEUE_LIMIT = 8
PEER_LIMIT = 10_000
SENT_LIMIT = 64
"""Datagrams of ours that might come back to us as the peer's; with more of them a new session is due."""
STRANGER_LIMIT = 1000
"""Peers that we have greeted without knowing their certificate."""


@dataclass(slots=True)
class PeerSession:
    """A secret that we share with a peer, and what was sent and heard with it."""

    secret: bytes
    certificate: PeerCertificate | None = None
    """The peer's, by which it was made: that of the peer may be a later one, which anybody can show who has seen it."""
    seal: Seal | None = None
    rx: int = 2
    tx: int = 2
    sent: dict[int, bytes] = field(default_factory=dict)
    """HMACs of what we sent under numbers that we would still accept from the peer.

    Acknowledgements are left out: the peer's may be the same, byte for byte.
    """

    def heard(self, number: int) -> None:
        """The peer is at this number: what has a lower one is refused anyway."""
        self.rx = number
        for old in [n for n in self.sent if n <= number]:
            del self.sent[old]


@dataclass(slots=True)
class Peer:
    """State of one peer (wire.md 6.2). Times are seconds of the monotonic clock given to `Sessions`."""

    prefix: Prefix
    certificate: PeerCertificate | None = None
    protocol: int = 0
    session: PeerSession | None = None
    offered: PeerSession | None = None
    offer: bytes = b""
    """The hello that offers it: given again to whoever asks again before `offer_until`."""
    offer_until: float = 0.0
    offer_wait: float = HELLO_FIRST_WAIT
    offered_at: float = float("-inf")
    unanswered_since: float | None = None
    hello_after: float = 0.0
    hello_wait: float = HELLO_FIRST_WAIT
    greeted: float = float("-inf")
    """When we last greeted it because we have something to say."""
    asked: float = float("-inf")
    """When we last sent a hello0 that it may answer by a secret."""
    reply_after: float = 0.0
    version: bytes = b""
    """Highest network version known to be at the peer."""
    ask_version_at: float = 0.0
    """When it is brought to tell its version, where that is not known."""
    telling: bytes = b""
    """The version that we sent in this session last, until it is acknowledged."""
    queue: deque[tuple[float, bytes]] = field(default_factory=lambda: deque(maxlen=QUEUE_LIMIT))

    def connected(self, now: float) -> bool:
        if self.session is None or len(self.session.sent) >= SENT_LIMIT:
            return False
        if self.session.seal is not None and self.session.seal.old(now):
            return False
        return self.unanswered_since is None or self.unanswered_since + MESSAGE_TIMEOUT > now

    @property
    def proved(self) -> PeerCertificate | None:
        """The certificate whose key the peer has, as the session of now shows."""
        return None if self.session is None else self.session.certificate

    @property
    def serials(self) -> frozenset[int]:
        """Of the certificates that it showed, and of those by which its sessions were made."""
        sessions = (each.certificate for each in (self.session, self.offered) if each is not None)
        return frozenset(each.serial for each in (self.certificate, *sessions) if each is not None)

    def awaited(self, now: float) -> bool:
        """Whether we greeted it, and it has not answered yet."""
        return now - self.greeted <= 2 * HELLO_WAIT and not self.connected(now)


class PeerTable:
    """All peers we ever heard of, within PEER_LIMIT and STRANGER_LIMIT."""

    def __init__(self) -> None:
        self._known: OrderedDict[Prefix, Peer] = OrderedDict()
        """Those whose certificate we have, the latest last."""
        self._strangers: OrderedDict[Prefix, Peer] = OrderedDict()
        """Those whose certificate we do not have: their names may be invented."""

    def peer(self, prefix: Prefix) -> Peer | None:
        return self._known.get(prefix) or self._strangers.get(prefix)

    def known(self, prefix: Prefix) -> Peer | None:
        """A peer whose certificate we have."""
        return self._known.get(prefix)

    def latest(self) -> list[Peer]:
        """Those whose certificate we have, the latest first."""
        return [*reversed(self._known.values())]

    def all(self) -> list[Peer]:
        return [*self._known.values(), *self._strangers.values()]

    def at(self, bits: Prefix) -> Peer | None:
        """The one whose subnet has this address, if we have its certificate."""
        for length in range(bits.length, 0, -1):
            peer = self._known.get(Prefix(bits.value >> bits.length - length, length))
            if peer is not None and peer.certificate is not None:
                return peer
        return None

    def wanted(self, prefix: Prefix) -> Peer:
        """A peer that we want to speak with, whether there is one of that name or not."""
        if (peer := self._known.get(prefix)) is not None:
            self._known.move_to_end(prefix)
            return peer
        peer = self._strangers.pop(prefix, Peer(prefix))
        if len(self._strangers) >= STRANGER_LIMIT:
            self._strangers.popitem(last=False)
        self._strangers[prefix] = peer
        return peer

    def met(self, certificate: PeerCertificate) -> Peer:
        """The peer of a certificate that was verified."""
        prefix = certificate.prefix
        if prefix not in self._known:
            if len(self._known) >= PEER_LIMIT:
                without = (peer.prefix for peer in self._known.values() if peer.session is None)
                del self._known[next(without, next(iter(self._known)))]
            self._known[prefix] = self._strangers.pop(prefix, Peer(prefix))
        peer = self._known[prefix]
        self._known.move_to_end(prefix)
        if peer.certificate is not certificate:
            peer.certificate, peer.offer_until, peer.offer_wait = certificate, 0.0, HELLO_FIRST_WAIT
        return peer

    def forget(self, revoked: frozenset[int]) -> list[Prefix]:
        """Drop the peers whose certificate is revoked, that is the one by which their session was made.

        Where another one is revoked, which was only shown, the session stays: anybody can show one that was seen on
        the wire.
        """
        touched = [peer for peer in self._known.values() if peer.serials & revoked]
        gone = [peer.prefix for peer in touched if peer.proved is None or peer.proved.serial in revoked]
        for peer in touched:
            peer.certificate, peer.offered, peer.offer_until = peer.proved, None, 0.0
        for prefix in gone:
            del self._known[prefix]
        return gone
