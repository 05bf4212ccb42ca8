"""Message 124, about WireGuard links beside the first one with a peer, as bytes (docs/protocol.md).

Each further link of two nodes has a lane, from 1 to 3. What is said of it are the messages of wireguard.py, behind the
number of the lane: so each lane has an agreement of its own, as if there were no other link. Lane 0 says where the
lines of the sender are (`LineAddresses`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from re6st.core.machine.hosts import is_usable
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import WireError
from re6st.core.wire.extensions import Extension
from re6st.core.wire.sessions import Sessions
from re6st.core.wire.wireguard import NUMBER_LIMIT, is_spoken_with

Address = IPv4Address | IPv6Address

LANES = range(1, 4)
ADDRESSES = 0
"""The lane of `LineAddresses`."""
LINES_LIMIT = len(LANES) + 1
"""Lines, and links, of which one end tells the other one: as many as there can be links with a peer."""

_COUNT = struct.Struct("!B")
_ADDRESS = struct.Struct("!16s")
_DIALLED = struct.Struct("!Q16s")  # number of the link, address
_MAPPED = 0xFFFF << 32
"""How IPv4 addresses begin as those of IPv6 (RFC 4291 section 2.5.5.2)."""


@dataclass(frozen=True, slots=True)
class LineAddresses:
    """Where each of the sender's lines can be reached, if it has several; and by the number of each link that the
    sender dials, at which address of the receiver it does so.
    """

    lines: tuple[Address, ...] = ()
    dialled: tuple[tuple[int, Address], ...] = ()


@dataclass(frozen=True, slots=True)
class OnLane:
    """A message about the link on a lane: see wireguard.py."""

    lane: int
    body: bytes


def encode(message: LineAddresses | OnLane) -> bytes:
    if isinstance(message, OnLane):
        return bytes((message.lane,)) + message.body
    parts = [bytes((ADDRESSES,)), _COUNT.pack(len(message.lines))]
    parts += [_ADDRESS.pack(_packed(ip)) for ip in message.lines]
    parts += [_COUNT.pack(len(message.dialled))]
    parts += [_DIALLED.pack(number, _packed(ip)) for number, ip in message.dialled]
    return b"".join(parts)


def decode(data: bytes) -> LineAddresses | OnLane:
    """Raises WireError. The body on a lane is not looked at."""
    if not data:
        raise WireError("an empty message about further links")
    lane, body = data[0], data[1:]
    if lane in LANES:
        return OnLane(lane, body)
    if lane != ADDRESSES:
        raise WireError(f"message about a WireGuard link on lane {lane}")
    try:
        lines, body = _take(body, _ADDRESS)
        dialled, body = _take(body, _DIALLED)
    except (struct.error, IndexError):
        raise WireError("places that are cut off") from None
    if body:
        raise WireError("places with something behind them")
    found = LineAddresses(tuple(_read(ip) for (ip,) in lines), tuple((number, _read(ip)) for number, ip in dialled))
    if not all(0 < number < NUMBER_LIMIT for number, _ in found.dialled):
        raise WireError("a place of a link without a number")
    return found


def may_have_further(sessions: Sessions, peer: Prefix, now: float) -> bool:
    """Whether a peer has announced in the session of now that it can have further links: nobody else is sent, or
    believed, a message about them."""
    if not is_spoken_with(sessions, peer, now):
        return False
    known = sessions.peer(peer)
    seal = None if known is None or known.session is None else known.session.seal
    return seal is not None and Extension.FURTHER_LINKS in seal.names


def _take(body: bytes, kind: struct.Struct) -> tuple[list[tuple[Any, ...]], bytes]:
    """As many of a kind as the first byte says, and what follows."""
    count = body[0]
    if count > LINES_LIMIT:
        raise WireError(f"{count} places")
    end = 1 + count * kind.size
    if len(body) < end:
        raise struct.error
    return list(kind.iter_unpack(body[1:end])), body[end:]


def _packed(ip: Address) -> bytes:
    return (ip if isinstance(ip, IPv6Address) else IPv6Address(_MAPPED | int(ip))).packed


def _read(packed: bytes) -> Address:
    ip = IPv6Address(packed)
    found = ip.ipv4_mapped or ip
    if not is_usable(found):
        raise WireError(f"a place at {found}, where nobody else can be")
    return found
