"""How many packets went over the links of tunnels: by interface, and of those behind a server by neighbour.

Interfaces count by themselves (RTM_GETSTATS). What neighbours alone send each other, as babel and neighbour discovery
do, and who sent what on an interface that many share, is counted in sets of our nftables table: see
core/machine/packet_rules.py. All is read by netlink, without a program.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from re6st.core.machine.packet_rules import COUNTED_LIMIT, HEARD, LOCAL_SENT, SENT, SENT4, TABLE
from re6st.linux.netlink import NetlinkError, NetlinkSocket, malformed, pack_attribute, read_attributes, unpack

# linux/if_link.h: struct if_stats_msg; IFLA_STATS_LINK_64 is a struct rtnl_link_stats64
_GETSTATS, _STATS_LINK_64 = 94, 1
_STATS = struct.Struct("=BxxxII")  # family, index, which of them
_PACKETS = struct.Struct("=QQ")
# linux/netfilter/nf_tables.h
_NETLINK_NETFILTER, _NFPROTO_INET, _GETSETELEM = 12, 1, 10 << 8 | 13
_HEAD = struct.Struct("!BBH")
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT_KEY, _ELEMENT_EXPR, _ELEMENT_EXPRESSIONS, _DATA_VALUE = 1, 7, 11, 1
_EXPR_DATA, _COUNTER_PACKETS = 2, 2
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

    def close(self) -> None:
        self._links.close()
        self._netfilter.close()

    def by_interface(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Packets that interfaces have received and sent; those that are not there are left out."""
        wanted: dict[int, str] = {}
        for name in names:
            with suppress(OSError):
                wanted[socket.if_nametoindex(name)] = name
        found: dict[str, tuple[int, int]] = {}
        for body in self._links.dump(_GETSTATS, _STATS.pack(0, 0, 1 << (_STATS_LINK_64 - 1))):
            _, index, _ = unpack(_STATS, body)
            if index in wanted:
                counts = dict(read_attributes(body[_STATS.size :])).get(_STATS_LINK_64, b"")
                received, sent = unpack(_PACKETS, counts)
                found[wanted[index]] = received, sent
        return found

    def local_sent(self) -> dict[str, int]:
        """By interface: packets from this machine to a neighbour, or all of them, and no farther."""
        return {_name(key): packets for key, packets in self._counted(LOCAL_SENT)}

    def shared(self) -> Shared:
        """What went over the interfaces of our servers."""
        heard, sent, sent4 = (list(self._counted(name)) for name in (HEARD, SENT, SENT4))
        found = Shared(full=max(map(len, (heard, sent, sent4))) >= COUNTED_LIMIT)
        for key, packets in heard:
            found.received[_name(key), key[_NAME_LENGTH : _NAME_LENGTH + 6].hex(":")] = packets
        for key, packets in sent:
            found.sent[_name(key), IPv6Address(key[_NAME_LENGTH : _NAME_LENGTH + 16].ljust(16, b"\0"))] = packets
        for key, packets in sent4:
            found.sent[_name(key), IPv4Address(key[_NAME_LENGTH : _NAME_LENGTH + 4].ljust(4, b"\0"))] = packets
        return found

    def _counted(self, name: str) -> Iterable[tuple[bytes, int]]:
        """The elements of a set and the packets of each; none where there is no such set."""
        body = _HEAD.pack(_NFPROTO_INET, 0, 0)
        body += pack_attribute(_LIST_TABLE, TABLE.encode() + b"\0") + pack_attribute(_LIST_SET, name.encode() + b"\0")
        try:
            messages = self._netfilter.dump(_GETSETELEM, body)
        except NetlinkError:
            return
        for message in messages:
            elements = dict(read_attributes(message[_HEAD.size :])).get(_LIST_ELEMENTS, b"")
            for _, element in read_attributes(elements):
                yield _read_element(element)


def _read_element(element: bytes) -> tuple[bytes, int]:
    """Its key, and the packets of its counter. Raises NetlinkError."""
    attributes = dict(read_attributes(element))
    key = dict(read_attributes(attributes.get(_ELEMENT_KEY, b""))).get(_DATA_VALUE)
    if key is None or len(key) < _NAME_LENGTH:
        raise malformed()
    expression = attributes.get(_ELEMENT_EXPR, b"")
    for _, each in read_attributes(attributes.get(_ELEMENT_EXPRESSIONS, b"")):
        expression = each
    counter = dict(read_attributes(dict(read_attributes(expression)).get(_EXPR_DATA, b"")))
    return key, int.from_bytes(counter.get(_COUNTER_PACKETS, b""), "big")


def _name(key: bytes) -> str:
    return key[:_NAME_LENGTH].rstrip(b"\0").decode("utf-8", "replace")
