"""Links, addresses, routes and rules by rtnetlink(7): the few requests that kernel.py makes, and TAP interfaces."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address, ip_network

from re6st.core.machine.wanted_state import (
    IFF_UP,
    RTN_UNREACHABLE,
    RTPROT_RE6ST,
    Address,
    KernelLink,
    KernelRoute,
    KernelRule,
    Network,
)
from re6st.linux.netlink import NetlinkError, NetlinkSocket, malformed, pack_attribute, read_attributes, unpack

IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE, IFA_F_NOPREFIXROUTE = 0x02, 0x08, 0x20, 0x40, 0x200
RT_SCOPE_UNIVERSE, _RT_SCOPE_NOWHERE = 0, 255

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _GETNEIGH = 28, 30
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_STATS64 = 1, 3, 4, 18, 1, 23
_IFLA_MASTER = 10
_SENT = struct.Struct("=24xQ")  # struct rtnl_link_stats64: packets in and out, bytes in, bytes out
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_LIFETIME = struct.Struct("=IIII")  # struct ifa_cacheinfo: seconds for which it is preferred, and valid; two times
_FOREVER = 0xFFFFFFFF
_NDA_DST, _NDA_LLADDR, _NTF_USE = 1, 2, 0x01
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 2, 4, 5, 6, 7, 15
_RTA_VIA, _VIA = 18, struct.Struct("=H")
_RTA_EXPIRES = 23
_RTA_MULTIPATH, _RTA_MARK, _ONLINK = 9, 16, 4
_HOP = struct.Struct("=HBBi")  # length, flags, weight - 1, index: linux/rtnetlink.h, struct rtnexthop
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, which of them to change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths of destination and source, tos, table, proto, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type (linux/neighbour.h)
_U32 = struct.Struct("=I")
# linux/fib_rules.h: family, lengths of destination and source, traffic class, table, action, flags
_RULE = struct.Struct("=BBBBBxxBI")
_FRA_DST, _FRA_SRC, _FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_LENGTH = 1, 2, 6, 10, 14
_FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL = 15, 16, 21
_FR_ACT_TO_TBL, _FR_ACT_BLACKHOLE, _FR_ACT_UNREACHABLE = 1, 6, 7

# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000
_IFREQ = struct.Struct("16sH22x")


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of the interface with this index."""

    address: Address
    length: int
    index: int
    scope: int
    flags: int


class Netlink(NetlinkSocket):
    """A socket of the network namespace that it is made in. Its methods raise NetlinkError."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)
        with suppress(OSError):
            # The kernel (from 4.20) then gives only the routes that are asked for.
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    # -- links --

    def links(self) -> list[KernelLink]:
        found = []
        for body in self.dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0)):
            _, _, index, flags, _ = unpack(_LINK, body)
            attributes = dict(read_attributes(body[_LINK.size :]))
            info = dict(read_attributes(attributes.get(_IFLA_LINKINFO, b"")))
            name, hardware = _text(attributes, _IFLA_IFNAME), attributes.get(_IFLA_ADDRESS, b"")
            mtu, master = _number(attributes, _IFLA_MTU) or 0, _number(attributes, _IFLA_MASTER) or 0
            found.append(KernelLink(index, name, flags, _text(info, _IFLA_INFO_KIND), hardware, mtu, master))
        return found

    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None:
        """Bring an interface up, or take it down; `mtu` is in bytes."""
        attributes = b"" if mtu is None else pack_attribute(_IFLA_MTU, _U32.pack(mtu))
        self.request(_NEWLINK, _LINK.pack(0, 0, index, IFF_UP if up else 0, IFF_UP) + attributes)

    def set_mtu(self, index: int, mtu: int) -> None:
        """Give an interface an MTU in bytes."""
        self.request(_NEWLINK, _LINK.pack(0, 0, index, 0, 0) + pack_attribute(_IFLA_MTU, _U32.pack(mtu)))

    def bytes_sent(self, index: int) -> int | None:
        """Bytes that an interface has sent; None where the kernel does not say."""
        with suppress(NetlinkError):
            for _, body in self.request(_GETLINK, _LINK.pack(0, 0, index, 0, 0)):
                counters = dict(read_attributes(body[_LINK.size :])).get(_IFLA_STATS64, b"")
                if len(counters) >= _SENT.size:
                    return int(_SENT.unpack_from(counters)[0])
        return None

    def make_link(self, name: str, kind: str) -> None:
        """Make an interface of a kind, as "wireguard", which is down."""
        info = pack_attribute(_IFLA_LINKINFO, pack_attribute(_IFLA_INFO_KIND, kind.encode("ascii")))
        attributes = pack_attribute(_IFLA_IFNAME, name.encode("ascii") + b"\0") + info
        self.request(_NEWLINK, _LINK.pack(0, 0, 0, 0, 0) + attributes, _CREATE | _EXCLUSIVE)

    def rename_link(self, index: int, name: str) -> None:
        """Give an interface, which is down, another name."""
        attributes = pack_attribute(_IFLA_IFNAME, name.encode("ascii") + b"\0")
        self.request(_NEWLINK, _LINK.pack(0, 0, index, 0, 0) + attributes)

    def delete_link(self, index: int) -> None:
        self.request(_DELLINK, _LINK.pack(0, 0, index, 0, 0))

    # -- addresses --

    def addresses(self, family: int = socket.AF_UNSPEC) -> list[InterfaceAddress]:
        found = []
        for body in self.dump(_GETADDR, _ADDRESS.pack(family, 0, 0, 0, 0)):
            _, length, flags, scope, index = unpack(_ADDRESS, body)
            attributes = dict(read_attributes(body[_ADDRESS.size :]))
            # On a point-to-point link IFA_ADDRESS is the other end's.
            packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if packed is not None and len(packed) in (4, 16):
                flags = _number(attributes, _IFA_FLAGS) or flags
                found.append(InterfaceAddress(ip_address(packed), length, index, scope, flags))
        return found

    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None:
        """Give an interface an address, or these properties of one that it has."""
        self.request(_NEWADDR, _address(ip, length, index, flags), _CREATE | _REPLACE)

    def delete_address(self, ip: Address, length: int, index: int) -> None:
        self.request(_DELADDR, _address(ip, length, index, 0))

    # -- neighbours --

    def neighbours(self) -> dict[tuple[int, IPv6Address], str]:
        """The hardware addresses that IPv6 neighbours have, by the interface's index and their address."""
        found = {}
        for body in self.dump(_GETNEIGH, _NEIGHBOUR.pack(socket.AF_INET6, 0, 0, 0, 0)):
            family, index, *_ = unpack(_NEIGHBOUR, body)
            attributes = dict(read_attributes(body[_NEIGHBOUR.size :]))
            packed, hardware = attributes.get(_NDA_DST, b""), attributes.get(_NDA_LLADDR, b"")
            if family == socket.AF_INET6 and len(packed) == 16 and len(hardware) == 6:
                found[index, IPv6Address(packed)] = hardware.hex(":")
        return found

    def find_neighbour(self, ip: IPv6Address, index: int) -> None:
        """Have the kernel ask on that link who has the address."""
        head = _NEIGHBOUR.pack(socket.AF_INET6, index, 0, _NTF_USE, 0)
        self.request(_NEWNEIGH, head + pack_attribute(_NDA_DST, ip.packed), _CREATE | _REPLACE)

    # -- routes --

    def routes(self, family: int, protocol: int = 0, type: int = 0) -> Iterator[KernelRoute]:
        """The routes of all tables, or those of a protocol or a type: one by one, as there may be very many."""
        for body in self.dump(_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, protocol, 0, type, 0)):
            route = _read_route(body)
            if route and protocol in (0, route.protocol) and type in (0, route.type):
                yield route

    def default_routes(self) -> list[KernelRoute]:
        """Those of all tables, one for each of their gateways."""
        found: list[KernelRoute] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            # Of what may be very many routes no other one is read, nor kept.
            for body in self.dump(_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), _is_default):
                if (route := _read_route(body)) is not None:
                    found += _hops(route, body)
        return found

    def route_to(self, ip: Address, mark: int = 0) -> KernelRoute | None:
        """The route that a packet to this address takes, if it has this mark."""
        family, length = _family(ip), ip.max_prefixlen
        request = _ROUTE.pack(family, length, 0, 0, 0, 0, 0, 0, 0) + pack_attribute(_RTA_DST, ip.packed)
        if mark:
            request += pack_attribute(_RTA_MARK, _U32.pack(mark))
        for kind, body in self.request(_GETROUTE, request):
            if kind == _NEWROUTE:
                return _read_route(body)
        return None

    def add_route(self, route: KernelRoute, *, replace: bool = False, create: bool = True) -> None:
        """Raises NetlinkError: EEXIST for one that there is, if not to be replaced, ENOENT for none, if not created."""
        flags = (_REPLACE if replace else _EXCLUSIVE) | (_CREATE if create else 0)
        self.request(_NEWROUTE, _route(route, RT_SCOPE_UNIVERSE), flags)

    def delete_route(self, route: KernelRoute) -> None:
        self.request(_DELROUTE, _route(route, _RT_SCOPE_NOWHERE))

    # -- rules --

    def rules(self) -> list[KernelRule]:
        """Those that are ours; none of a family of which the kernel has no rules (CONFIG_IP_MULTIPLE_TABLES)."""
        found: list[KernelRule | None] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                found += map(_read_rule, self.dump(_GETRULE, _RULE.pack(family, 0, 0, 0, 0, 0, 0)))
            except NetlinkError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                    raise
        return [rule for rule in found if rule is not None]

    def add_rule(self, rule: KernelRule) -> None:
        """Raises NetlinkError: EEXIST for one that there is."""
        self.request(_NEWRULE, _rule(rule), _CREATE | _EXCLUSIVE)

    def delete_rule(self, rule: KernelRule) -> None:
        self.request(_DELRULE, _rule(rule))


def make_tap(name: str) -> None:
    """Make a persistent TAP interface, down; one of that name is taken over. Raises OSError."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, _IFREQ.pack(name.encode("ascii"), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    finally:
        os.close(tun)


def _text(attributes: dict[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").partition(b"\0")[0].decode("utf-8", "replace")


def _number(attributes: dict[int, bytes], kind: int) -> int | None:
    value = attributes.get(kind, b"")
    return _U32.unpack(value)[0] if len(value) == _U32.size else None


def _family(ip: Address | Network) -> int:
    return socket.AF_INET6 if ip.version == 6 else socket.AF_INET


def _address(ip: Address, length: int, index: int, flags: int) -> bytes:
    attributes = pack_attribute(_IFA_LOCAL, ip.packed) + pack_attribute(_IFA_ADDRESS, ip.packed)
    attributes += pack_attribute(_IFA_FLAGS, _U32.pack(flags))  # the header has room for eight
    if flags & IFA_F_DEPRECATED:
        # By the flag the kernel only tells of it; this is how it is told.
        attributes += pack_attribute(_IFA_CACHEINFO, _LIFETIME.pack(0, _FOREVER, 0, 0))
    return _ADDRESS.pack(_family(ip), length, flags & 0xFF, RT_SCOPE_UNIVERSE, index) + attributes


def _route(route: KernelRoute, scope: int) -> bytes:
    destination, source = route.destination, route.source
    # The table of the header has a byte; the attribute is what counts.
    table = route.table if route.table < 256 else 0
    lengths = destination.prefixlen, source.prefixlen if source else 0
    flags = _ONLINK if route.onlink else 0
    made = _ROUTE.pack(_family(destination), *lengths, 0, table, route.protocol, scope, route.type, flags)
    made += pack_attribute(_RTA_DST, destination.network_address.packed)
    made += pack_attribute(_RTA_TABLE, _U32.pack(route.table))
    if source is not None:
        made += pack_attribute(_RTA_SRC, source.network_address.packed)
    if route.gateway is not None and route.gateway.version != destination.version:
        # A neighbour that has only an address of IPv6 (RFC 9229).
        made += pack_attribute(_RTA_VIA, _VIA.pack(_family(route.gateway)) + route.gateway.packed)
    elif route.gateway is not None:
        made += pack_attribute(_RTA_GATEWAY, route.gateway.packed)
    if route.preferred is not None:
        made += pack_attribute(_RTA_PREFSRC, route.preferred.packed)
    numbers = (_RTA_OIF, route.interface), (_RTA_PRIORITY, route.priority), (_RTA_EXPIRES, route.lasts)
    for kind, number in numbers:
        if number is not None:
            made += pack_attribute(kind, _U32.pack(number))
    return made


def _rule(rule: KernelRule) -> bytes:
    nowhere = _FR_ACT_BLACKHOLE if rule.silent else _FR_ACT_UNREACHABLE
    action = nowhere if rule.table is None else _FR_ACT_TO_TBL
    family, table, source = _family(rule.destination), rule.table or 0, rule.source
    lengths = rule.destination.prefixlen, source.prefixlen if source else 0
    made = _RULE.pack(family, *lengths, rule.traffic_class, table if table < 256 else 0, action, 0)
    made += pack_attribute(_FRA_PRIORITY, _U32.pack(rule.priority))
    made += pack_attribute(_FRA_PROTOCOL, bytes([RTPROT_RE6ST]))
    if rule.destination.prefixlen:
        made += pack_attribute(_FRA_DST, rule.destination.network_address.packed)
    if source is not None:
        made += pack_attribute(_FRA_SRC, source.network_address.packed)
    if rule.table is not None:
        made += pack_attribute(_FRA_TABLE, _U32.pack(rule.table))
    if rule.mark:
        made += pack_attribute(_FRA_FWMARK, _U32.pack(rule.mark))
        made += pack_attribute(_FRA_FWMASK, _U32.pack(rule.mask or rule.mark))
    if rule.specific:
        made += pack_attribute(_FRA_SUPPRESS_LENGTH, _U32.pack(0))
    return made


def _read_rule(body: bytes) -> KernelRule | None:
    """None for one of others. Raises NetlinkError."""
    family, length, source_length, traffic_class, table, action, _ = unpack(_RULE, body)
    attributes = dict(read_attributes(body[_RULE.size :]))
    if family not in (socket.AF_INET, socket.AF_INET6) or attributes.get(_FRA_PROTOCOL) != bytes([RTPROT_RE6ST]):
        return None
    zero = bytes(16 if family == socket.AF_INET6 else 4)
    mark, mask = _number(attributes, _FRA_FWMARK) or 0, _number(attributes, _FRA_FWMASK) or 0
    try:
        source = ip_network((attributes.get(_FRA_SRC, zero), source_length)) if source_length else None
        return KernelRule(
            _number(attributes, _FRA_PRIORITY) or 0,
            ip_network((attributes.get(_FRA_DST, zero), length)),
            traffic_class,
            (_number(attributes, _FRA_TABLE) or table) if action == _FR_ACT_TO_TBL else None,
            mark,
            0 if mask == mark else mask,
            source,
            _number(attributes, _FRA_SUPPRESS_LENGTH) == 0,
            action == _FR_ACT_BLACKHOLE,
        )
    except ValueError:
        raise malformed() from None


def _is_default(body: bytes) -> bool:
    return not unpack(_ROUTE, body)[1]


def _hops(route: KernelRoute, body: bytes) -> Iterator[KernelRoute]:
    """A route for each of the gateways of one that has several. Raises NetlinkError."""
    hops = dict(read_attributes(body[_ROUTE.size :])).get(_RTA_MULTIPATH)
    if hops is None:
        yield route
        return
    while hops:
        length, _, _, index = unpack(_HOP, hops)
        if not _HOP.size <= length <= len(hops):
            raise malformed()
        try:
            gateway = _gateway(dict(read_attributes(hops[_HOP.size : length])))
            yield replace(route, interface=index, gateway=gateway)
        except ValueError:
            raise malformed() from None
        hops = hops[length:]


def _gateway(attributes: dict[int, bytes]) -> Address | None:
    """That of a route, which may be one of IPv6 for a route of IPv4. Raises ValueError."""
    via = attributes.get(_RTA_VIA, b"")[_VIA.size :]
    gateway = attributes.get(_RTA_GATEWAY) or via
    return ip_address(gateway) if gateway else None


def _read_route(body: bytes) -> KernelRoute | None:
    """None for a route that is neither of IPv4 nor of IPv6. Raises NetlinkError."""
    family, length, source_length, _, table, protocol, _, kind, flags = unpack(_ROUTE, body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    attributes = dict(read_attributes(body[_ROUTE.size :]))
    zero = bytes(16 if family == socket.AF_INET6 else 4)
    try:
        destination = ip_network((attributes.get(_RTA_DST, zero), length), strict=False)
        source = ip_network((attributes.get(_RTA_SRC, zero), source_length)) if source_length else None
        preferred = attributes.get(_RTA_PREFSRC)
        return KernelRoute(
            destination,
            source,
            _gateway(attributes),
            # That the kernel names one for what leads nowhere is its own business.
            None if kind == RTN_UNREACHABLE else _number(attributes, _RTA_OIF),
            protocol,
            kind,
            _number(attributes, _RTA_PRIORITY),
            _number(attributes, _RTA_TABLE) or table,
            ip_address(preferred) if preferred else None,
            onlink=bool(flags & _ONLINK),
        )
    except ValueError:
        raise malformed() from None
