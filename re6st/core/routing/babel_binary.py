"""The packets of the binary control socket of the patched babeld that the older software runs (wire.md 9.6).

A dump contains interfaces, neighbours, our own announcements (xroutes) and routes. Decoding is the inverse of encoding;
bytes that do not follow the protocol raise `BinaryError`. babeld/binary_socket.py has the sockets themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from re6st.core.routing.babel_lines import INFINITY, NextHop, Table

GREETING = b"\x01"
"""The first byte that a client sends."""
HEADER = struct.Struct("!HI")
EVERYTHING = 11
"""Flags of a request for interfaces, neighbours and installed routes."""
COUNT_LIMIT = 0xFFFF
"""Entries of one kind: their number has two bytes."""
CONTENT_LIMIT = 1 << 23
"""Bytes of a packet: somewhat more than the largest number of routes and neighbours takes."""
REQUEST_LIMIT = 64
NAME_LIMIT = 15
"""Characters of an interface's name (Linux)."""
NORMAL = 256
"""The cost multiplier of a neighbour that nobody has changed."""

_COUNT = struct.Struct("!H")
_INDEX = struct.Struct("!I")
_NEIGHBOUR = struct.Struct("!16sIHHHHHiHH")
_XROUTE = struct.Struct("!16sBH")
_ROUTE = struct.Struct("!16sBHHH8siiI16s16sB")
_MULTIPLIER = struct.Struct("!16sIH")
_INSTALLED = 1


class BinaryError(ValueError):
    """Bytes that do not follow the protocol."""


class PacketKind(IntEnum):
    """The type of a packet; an answer has the type of its request."""

    DUMP = 1
    MULTIPLIER = 2


@dataclass(frozen=True, slots=True)
class BinaryNeighbour:
    """A router at the other end of a link. `rtt` is in microseconds, and limited to what two bytes hold."""

    address: IPv6Address
    interface: int
    reach: int
    rxcost: int
    txcost: int
    rtt: int = 0
    rttcost: int = 0
    multiplier: int = NORMAL


@dataclass(frozen=True, slots=True)
class Announced:
    """A subnet of our own that babeld announces."""

    destination: IPv6Network
    metric: int = 0


@dataclass(frozen=True, slots=True)
class BinaryRoute:
    destination: IPv6Network
    metric: int
    refmetric: int
    interface: int
    neighbour: IPv6Address
    installed: bool = True
    router: bytes = bytes(8)

    @property
    def usable(self) -> bool:
        """Whether the route is installed, and its destination reachable."""
        return self.installed and self.metric < INFINITY


@dataclass(frozen=True, slots=True)
class Dump:
    """The content of babeld's tables. Interfaces are named by their index."""

    interfaces: Mapping[int, str]
    neighbours: tuple[BinaryNeighbour, ...] = ()
    announced: tuple[Announced, ...] = ()
    routes: tuple[BinaryRoute, ...] = ()


@dataclass(frozen=True, slots=True)
class SetMultiplier:
    """A request to make the link to a neighbour more expensive; 0: not to use it."""

    hop: tuple[IPv6Address, int]
    """Address and index of the interface."""
    multiplier: int


# --- packets ---


def encode_packet(kind: PacketKind, content: bytes) -> bytes:
    return HEADER.pack(kind, len(content)) + content


def decode_header(header: bytes, limit: int = CONTENT_LIMIT) -> tuple[PacketKind, int]:
    """The type of a packet and the number of bytes that follow, at most `limit`. Raises BinaryError."""
    number, length = HEADER.unpack(header)
    if length > limit:
        raise BinaryError(f"packet of {length} bytes")
    try:
        return PacketKind(number), length
    except ValueError:
        raise BinaryError(f"packet of unknown type {number}") from None


def decode_multiplier(content: bytes) -> SetMultiplier:
    """Raises BinaryError."""
    if len(content) != _MULTIPLIER.size:
        raise BinaryError("request for a multiplier of a wrong length")
    address, index, multiplier = _MULTIPLIER.unpack(content)
    return SetMultiplier((IPv6Address(address), index), multiplier)


def encode_multiplier(request: SetMultiplier) -> bytes:
    return _MULTIPLIER.pack(request.hop[0].packed, request.hop[1], request.multiplier)


# --- dumps ---


def encode_dump(dump: Dump) -> bytes:
    """Read a dump. Entries beyond the limit are left out."""
    interfaces = list(dump.interfaces.items())[:COUNT_LIMIT]
    parts = [_COUNT.pack(len(interfaces))]
    parts += [_INDEX.pack(index) + name.encode("ascii", "replace") + b"\0" for index, name in interfaces]
    arrays: tuple[Iterable[bytes], ...] = (
        map(_encode_neighbour, dump.neighbours),
        map(_encode_announced, dump.announced),
        map(_encode_route, dump.routes),
    )
    for array in arrays:
        entries = list(array)[:COUNT_LIMIT]
        parts += [_COUNT.pack(len(entries)), *entries]
    return b"".join(parts)


def decode_dump(content: bytes) -> Dump:
    """Raises BinaryError."""
    reader = _DumpReader(content)
    interfaces = {reader.unpack(_INDEX)[0]: reader.name() for _ in range(reader.count())}
    neighbours = tuple(map(_decode_neighbour, reader.entries(_NEIGHBOUR)))
    announced = tuple(map(_decode_announced, reader.entries(_XROUTE)))
    routes = tuple(map(_decode_route, reader.entries(_ROUTE)))
    if reader.left:
        raise BinaryError(f"{reader.left} bytes behind the dump")
    return Dump(interfaces, neighbours, announced, routes)


def dump_of(
    table: Table,
    index: Callable[[str], int | None],
    announced: Iterable[IPv6Network],
    multiplier: Callable[[NextHop], int] = lambda hop: NORMAL,
) -> Dump:
    """Convert what the text socket told to a dump of the binary one: installed IPv6 routes only.

    `index` returns the index of an interface, or None if it does not exist (any more). Neighbours and routes on such an
    interface are left out.
    """
    found = {name: index(name) for name in table.interfaces}
    indices = {name: number for name, number in found.items() if number is not None}
    neighbours = tuple(
        BinaryNeighbour(
            each.address,
            indices[each.interface],
            each.reach & 0xFFFF,
            each.rxcost,
            each.txcost,
            min(int(1000 * (each.rtt or 0)), 0xFFFF),
            multiplier=multiplier(each.key),
        )
        for each in table.neighbours.values()
        if each.interface in indices
    )
    routes = tuple(
        BinaryRoute(each.destination, each.metric, each.refmetric, indices[each.via.interface], each.via.address)
        for each in table.routes.values()
        if each.installed and each.via.interface in indices and not each.source.prefixlen
    )
    return Dump(
        {number: name for name, number in indices.items()}, neighbours, tuple(map(Announced, announced)), routes
    )


class _DumpReader:
    """Reads a dump from its start."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._content) - self._at

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        if self.left < layout.size:
            raise BinaryError("dump cut short")
        values = layout.unpack_from(self._content, self._at)
        self._at += layout.size
        return values

    def count(self) -> int:
        return self.unpack(_COUNT)[0]

    def name(self) -> str:
        end = self._content.find(b"\0", self._at, self._at + NAME_LIMIT + 1)
        if end < 0:
            raise BinaryError("name of an interface without an end")
        name, self._at = self._content[self._at : end], end + 1
        return name.decode("ascii", "replace")

    def entries(self, layout: struct.Struct) -> Iterator[tuple[Any, ...]]:
        for _ in range(self.count()):
            yield self.unpack(layout)


def _encode_neighbour(each: BinaryNeighbour) -> bytes:
    # The channel is unknown, the interface is up.
    return _NEIGHBOUR.pack(
        *(each.address.packed, each.interface, each.reach, each.rxcost, each.txcost),
        *(each.rtt, each.rttcost, -1, 1, each.multiplier),
    )


def _encode_announced(each: Announced) -> bytes:
    return _XROUTE.pack(each.destination.network_address.packed, each.destination.prefixlen, each.metric)


def _encode_route(each: BinaryRoute) -> bytes:
    return _ROUTE.pack(
        *(each.destination.network_address.packed, each.destination.prefixlen),
        *(each.metric, each.metric, each.refmetric, each.router, 0, 0, each.interface),
        *(each.neighbour.packed, each.neighbour.packed, _INSTALLED if each.installed else 0),
    )


def _decode_neighbour(values: tuple[Any, ...]) -> BinaryNeighbour:
    address, interface, reach, rxcost, txcost, rtt, rttcost, _, _, multiplier = values
    return BinaryNeighbour(IPv6Address(address), interface, reach, rxcost, txcost, rtt, rttcost, multiplier)


def _decode_announced(values: tuple[Any, ...]) -> Announced:
    address, length, metric = values
    return Announced(_network(address, length), metric)


def _decode_route(values: tuple[Any, ...]) -> BinaryRoute:
    address, length, metric, _, refmetric, router, _, _, interface, neighbour, _, flags = values
    installed = bool(flags & _INSTALLED)
    return BinaryRoute(
        _network(address, length), metric, refmetric, interface, IPv6Address(neighbour), installed, router
    )


def _network(address: bytes, length: int) -> IPv6Network:
    try:
        return IPv6Network((address, length))
    except ValueError as error:
        raise BinaryError(str(error)) from None
