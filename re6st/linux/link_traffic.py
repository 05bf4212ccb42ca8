"""How many packets went over the links of tunnels: by interface, and of those behind a server by neighbour.

Interfaces count by themselves (RTM_GETSTATS). What neighbours alone send each other, as babel and neighbour discovery
do, and who sent what on an interface that many share, is counted in sets of our nftables table: see
core/machine/packet_rules.py. All is read by netlink, without a program.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from re6st.core.machine.packet_rules import COUNTED_LIMIT, HEARD, LOCAL_SENT, SENT, SENT4, TABLE
from re6st.linux.netlink import (
    NetlinkError,
    NetlinkSocket,
    find_attribute,
    malformed,
    pack_attribute,
    read_attribute,
    read_attributes,
    unpack,
)

# linux/if_link.h: struct if_stats_msg; IFLA_STATS_LINK_64 is a struct rtnl_link_stats64
_GETSTATS, _STATS_LINK_64 = 94, 1
_STATS = struct.Struct("=BxxxII")  # family, index, which of them
_PACKETS = struct.Struct("=QQ")
# linux/netfilter/nf_tables.h
_NETLINK_NETFILTER, _NFPROTO_INET, _GETSETELEM = 12, 1, 10 << 8 | 13
_HEAD = struct.Struct("!BBH")
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT_KEY, _ELEMENT_EXPR, _ELEMENT_EXPRESSIONS, _DATA_VALUE = 1, 7, 11, 1
_LIST_ELEMENT, _EXPR_DATA, _COUNTER_PACKETS = 1, 2, 2
_ONE_COUNTER = _ELEMENT_EXPR, _EXPR_DATA, _COUNTER_PACKETS
_OF_SEVERAL = _ELEMENT_EXPRESSIONS, _LIST_ELEMENT, _EXPR_DATA, _COUNTER_PACKETS
_NAME_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Shared:
    """Packets on interfaces that many share, by neighbour."""

    received: dict[tuple[str, str], int] = field(default_factory=dict)
    """By interface and hardware address."""
    sent: dict[tuple[str, IPv6Address | IPv4Address], int] = field(default_factory=dict)
    """By interface and next hop; what goes to the neighbour itself is left out."""
    full: bool = False
    """There are more than can be counted: who is not named may have sent something too."""


class LinkTraffic:
    """Reads the counters of this network namespace. Its methods raise OSError."""

    def __init__(self) -> None:
        self._links = NetlinkSocket(socket.NETLINK_ROUTE)
        self._netfilter = NetlinkSocket(_NETLINK_NETFILTER)
        self._indexes: dict[str, int] = {}
        """Numbers of the interfaces that were there at the last look, by name."""

    def close(self) -> None:
        self._links.close()
        self._netfilter.close()

    def by_interface(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Packets that interfaces have received and sent; those that are not there are left out."""
        wanted = {index: name for name in names if (index := self._index(name)) is not None}
        found: dict[str, tuple[int, int]] = {}
        for body in self._links.dump(_GETSTATS, _STATS.pack(0, 0, 1 << (_STATS_LINK_64 - 1))):
            _, index, _ = unpack(_STATS, body)
            if index in wanted:
                received, sent = unpack(_PACKETS, read_attribute(body[_STATS.size :], _STATS_LINK_64) or b"")
                found[wanted[index]] = received, sent
        for name in [name for name in self._indexes if name not in found]:
            del self._indexes[name]  # it is not there any more, unless it comes again under another number
        return found

    def _index(self, name: str) -> int | None:
        if name not in self._indexes:
            try:
                self._indexes[name] = socket.if_nametoindex(name)
            except OSError:
                return None
        return self._indexes[name]

    def local_sent(self) -> dict[str, int]:
        """By interface: packets from this machine to a neighbour, or all of them, and no farther."""
        return {_name(key): packets for key, packets in self._counted(LOCAL_SENT)}

    def shared(self) -> Shared:
        """What went over the interfaces of our servers."""
        heard, sent, sent4 = (list(self._counted(name)) for name in (HEARD, SENT, SENT4))
        return Shared(
            {_neighbour(key): packets for key, packets in heard},
            {_next_hop(key): packets for key, packets in sent} | {_next_hop4(key): packets for key, packets in sent4},
            full=max(map(len, (heard, sent, sent4))) >= COUNTED_LIMIT,
        )

    def _counted(self, name: str) -> Iterable[tuple[bytes, int]]:
        """The elements of a set and the packets of each; none where there is no such set."""
        body = _HEAD.pack(_NFPROTO_INET, 0, 0)
        body += pack_attribute(_LIST_TABLE, TABLE.encode() + b"\0") + pack_attribute(_LIST_SET, name.encode() + b"\0")
        try:
            messages = self._netfilter.dump(_GETSETELEM, body)
        except NetlinkError:
            return
        layouts: dict[int, tuple[slice, slice]] = {}
        for message in messages:
            for _, element in read_attributes(read_attribute(message[_HEAD.size :], _LIST_ELEMENTS) or b""):
                # The kernel writes all elements of a set alike, so we look once for what there is in one of a length.
                if len(element) not in layouts:
                    layouts[len(element)] = _find_key_and_packets(element)
                key, packets = layouts[len(element)]
                yield element[key], int.from_bytes(element[packets], "big")


def _find_key_and_packets(element: bytes) -> tuple[slice, slice]:
    """Where the key of an element is, and the packets of its counter. Raises NetlinkError."""
    key = find_attribute(element, _ELEMENT_KEY, _DATA_VALUE)
    if key is None or key.stop - key.start < _NAME_LENGTH:
        raise malformed()
    packets = find_attribute(element, *_ONE_COUNTER) or find_attribute(element, *_OF_SEVERAL)
    return key, packets or slice(0, 0)


# The same neighbours are read again and again, so what they are called is kept.


@lru_cache(COUNTED_LIMIT)
def _name(key: bytes) -> str:
    return key[:_NAME_LENGTH].rstrip(b"\0").decode("utf-8", "replace")


@lru_cache(COUNTED_LIMIT)
def _neighbour(key: bytes) -> tuple[str, str]:
    return _name(key[:_NAME_LENGTH]), key[_NAME_LENGTH : _NAME_LENGTH + 6].hex(":")


@lru_cache(COUNTED_LIMIT)
def _next_hop(key: bytes) -> tuple[str, IPv6Address | IPv4Address]:
    return _name(key[:_NAME_LENGTH]), IPv6Address(key[_NAME_LENGTH : _NAME_LENGTH + 16].ljust(16, b"\0"))


@lru_cache(COUNTED_LIMIT)
def _next_hop4(key: bytes) -> tuple[str, IPv6Address | IPv4Address]:
    return _name(key[:_NAME_LENGTH]), IPv4Address(key[_NAME_LENGTH : _NAME_LENGTH + 4].ljust(4, b"\0"))
