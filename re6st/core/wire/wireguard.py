"""The messages by which two nodes agree on a WireGuard link, as bytes: the body of message 121 (docs/protocol.md).

What they mean, and when they are sent, is in core/transport/wireguard_agreement.py. They go to peers that announced
`wireguard` in the session of now, and to nobody else. What is absurd in itself is no message: `decode` raises
WireError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address
from typing import assert_never

from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import WireError
from re6st.core.wire.extensions import Extension
from re6st.core.wire.requirement import PATIENCE
from re6st.core.wire.sessions import Sessions

KEY_LENGTH = 32
PORTS = range(1024, 65536)
"""Where the other end of a link may listen: below are the services of others."""
MTUS = range(1280, 9001)
"""IPv6 needs the least (RFC 8200 section 5); no path of ours has more than Ethernet's jumbo frames."""
NUMBER_LIMIT = 1 << 63

_LINK_LOCAL = int(IPv6Address("fe80::"))
_HEAD = struct.Struct("!BQ")  # kind, number of the link
_TERMS = struct.Struct(f"!{KEY_LENGTH}sHHQ")  # key, port, MTU, last half of the address
_NUMBER = struct.Struct("!Q")
_KEYS = struct.Struct(f"!{KEY_LENGTH}s{KEY_LENGTH}s")
_REFUSAL = struct.Struct("!BQ")  # reason, number
_REASON = struct.Struct("!B")
_MET = struct.Struct("!B")


class Reason(IntEnum):
    """Why there is no link, or no more. Those of later versions are read as OTHER."""

    OTHER = 0
    STALE = 1
    FULL = 2
    BAD_VALUES = 3
    UNWANTED = 4
    UNAVAILABLE = 5
    NO_ANSWER = 6
    NO_HANDSHAKE = 7
    SILENT = 8
    CLOSED = 9
    REPLACED = 10
    UNKNOWN = 11
    YIELDED = 12
    OLD_KEYS = 13

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    Reason.OTHER: "for a reason that this version does not know",
    Reason.STALE: "the peer has a later one",
    Reason.FULL: "the peer has no room",
    Reason.BAD_VALUES: "what the peer proposed cannot be used",
    Reason.UNWANTED: "the peer does not want one",
    Reason.UNAVAILABLE: "the interface could not be made, or is gone",
    Reason.NO_ANSWER: "the peer did not answer",
    Reason.NO_HANDSHAKE: "no handshake: does a firewall drop UDP to its WireGuard ports?",
    Reason.SILENT: "nothing has come in",
    Reason.CLOSED: "it was closed",
    Reason.REPLACED: "the peer began anew",
    Reason.UNKNOWN: "the peer knows nothing of it",
    Reason.YIELDED: "the peer opens one at the same time",
    Reason.OLD_KEYS: "its keys were not changed for two days: has the client's certificate expired?",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """One end of a link: its public key, its UDP port, the MTU it can have, and its address on the link."""

    key: bytes
    port: int
    mtu: int
    address: IPv6Address


@dataclass(frozen=True, slots=True)
class Propose:
    """Let us have a link. `replaces` is the number of the one whose keys are to be changed; 0: a new one."""

    number: int
    replaces: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class Accept:
    """My end of the link is there, or is made when you confirm it, if it replaces another one."""

    number: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class Refuse:
    """No. `latest` is the number that a proposal has to be above, where the reason is STALE."""

    number: int
    reason: Reason
    latest: int = 0


@dataclass(frozen=True, slots=True)
class Confirm:
    """I have this link, with these keys: mine, and yours. Have you?"""

    number: int
    mine: bytes
    yours: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Yes, I have."""

    number: int
    mine: bytes
    yours: bytes


@dataclass(frozen=True, slots=True)
class End:
    """I have no more of this link, and you should not either."""

    number: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class NoLink:
    """I know of no such link. It is never answered."""

    number: int


@dataclass(frozen=True, slots=True)
class Met:
    """Routes of yours come to me by this link, in both directions. Do mine to you?

    `moved`: nothing that I send you goes by another tunnel with you.
    """

    number: int
    moved: bool


Message = Propose | Accept | Refuse | Confirm | Done | End | NoLink | Met


def encode(message: Message) -> bytes:
    match message:
        case Propose(number, replaces, terms):
            return _HEAD.pack(1, number) + _NUMBER.pack(replaces) + _encode_terms(terms)
        case Accept(number, terms):
            return _HEAD.pack(2, number) + _encode_terms(terms)
        case Refuse(number, reason, latest):
            return _HEAD.pack(3, number) + _REFUSAL.pack(reason, latest)
        case Confirm(number, mine, yours):
            return _HEAD.pack(4, number) + _KEYS.pack(mine, yours)
        case Done(number, mine, yours):
            return _HEAD.pack(5, number) + _KEYS.pack(mine, yours)
        case End(number, reason):
            return _HEAD.pack(6, number) + _REASON.pack(reason)
        case NoLink(number):
            return _HEAD.pack(7, number)
        case Met(number, moved):
            return _HEAD.pack(8, number) + _MET.pack(moved)
    assert_never(message)


def decode(data: bytes) -> Message:
    """Raises WireError."""
    try:
        kind, number = _HEAD.unpack_from(data)
        message = _read(kind, _number(number), data[_HEAD.size :])
    except struct.error:
        raise WireError(f"message about a WireGuard link of {len(data)} bytes") from None
    if message is None:
        raise WireError(f"message about a WireGuard link of unknown kind {kind}")
    return message


def _read(kind: int, number: int, body: bytes) -> Message | None:
    match kind:
        case 1:
            (replaces,) = _NUMBER.unpack_from(body)
            if replaces >= number:
                raise WireError("WireGuard link that replaces a later one")
            return Propose(number, replaces, _read_terms(body[_NUMBER.size :]))
        case 2:
            return Accept(number, _read_terms(body))
        case 3:
            reason, latest = _REFUSAL.unpack(body)
            return Refuse(number, _reason(reason), _number(latest) if latest else 0)
        case 4:
            return Confirm(number, *_KEYS.unpack(body))
        case 5:
            return Done(number, *_KEYS.unpack(body))
        case 6:
            return End(number, _reason(*_REASON.unpack(body)))
        case 7 if not body:
            return NoLink(number)
        case 7:
            raise struct.error
        case 8:
            (moved,) = _MET.unpack(body)
            if moved > 1:
                raise WireError("message about a WireGuard link that is neither yes nor no")
            return Met(number, bool(moved))
    return None


def _encode_terms(terms: Terms) -> bytes:
    return _TERMS.pack(terms.key, terms.port, terms.mtu, int(terms.address) - _LINK_LOCAL)


def _read_terms(body: bytes) -> Terms:
    key, port, mtu, half = _TERMS.unpack(body)
    if not any(key):
        raise WireError("WireGuard key of zeros")
    if port not in PORTS:
        raise WireError(f"WireGuard port {port}")
    if mtu not in MTUS:
        raise WireError(f"WireGuard link with an MTU of {mtu}")
    if not half:
        raise WireError("fe80:: as address of a WireGuard link")
    return Terms(key, port, mtu, link_local(half))


def link_local(half: int) -> IPv6Address:
    """The address of fe80::/64 with these last 64 bits."""
    return IPv6Address(_LINK_LOCAL | half)


def _number(number: int) -> int:
    if not 0 < number < NUMBER_LIMIT:
        raise WireError(f"WireGuard link of number {number}")
    return number


def _reason(value: int) -> Reason:
    return Reason(value) if value in Reason.__members__.values() else Reason.OTHER


def is_spoken_with(sessions: Sessions, peer: Prefix, now: float) -> bool:
    """Whether a peer has announced in the session of now that it can have WireGuard links: nobody else is sent, or
    believed, a message of them."""
    return sessions.speaks(peer, Extension.WIREGUARD, now)


def has_none(sessions: Sessions, peer: Prefix, now: float) -> bool:
    """Whether a peer can have no links, by what it announced in the session of now, or since it answers there and
    announces nothing, as older software does: it was started anew without, and the links that it had are nobody's."""
    known = sessions.peer(peer)
    if known is None or known.session is None or known.session.seal is None:
        return False
    announced = known.session.seal.announced
    if announced.names is None:
        return now - announced.since >= PATIENCE and known.connected(now)
    return Extension.WIREGUARD not in announced.names
