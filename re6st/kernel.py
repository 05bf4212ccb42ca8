"""Links, addresses and routes of this machine (pyroute2, /proc/sys/net, the netifaces API).

What a node adds is declared here and undone at exit: `Kernel` remembers what it made, and `clear` removes what an
earlier run left behind (wire.md 1.3). Only names and prefixes of our network are touched.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import netifaces
from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

RTPROT_BABEL = 42
RTPROT_RE6ST = 146
"""Marks our routes to peers; a number that nobody registered (/etc/iproute2/rt_protos)."""
RTN_UNREACHABLE = 7
RT_SCOPE_UNIVERSE = 0
IFF_UP, IFF_RUNNING = 0x1, 0x40
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x02, 0x08, 0x40
OUR_LINK = re.compile(r"re6stnet([0-9]*|-(udp|tcp)6?)")
"""Names of tunnel interfaces (wire.md 8.4)."""

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


class KernelError(Exception):
    """The kernel refused; the text says what, and what to do."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What the kernel is told of the network in one family: our address in it, and where nothing leaks to."""

    network: Network
    address: Address
    length: int
    """Of the prefix that our address brings a route for."""
    unreachable: tuple[Network, ...]


class Kernel:
    """The kernel of the network namespace we run in."""

    def __init__(self) -> None:
        self._netlink = AsyncIPRoute()
        self._links: list[str] = []
        self._addresses: list[tuple[Address, int, str]] = []
        self._unreachable: list[Network] = []
        self._routes: list[tuple[IPv4Address, IPv4Address]] = []

    def close(self) -> None:
        self._netlink.close()

    # -- links --

    async def make_tap(self, name: str, ipv4: IPv4Address | None = None) -> None:
        """Make a persistent TAP interface, down; one of that name is taken over. Raises KernelError.

        `ipv4` is for babeld, which then speaks of IPv4 as older ones understand it (wire.md 1.4): without an address it
        gives an IPv6 next hop (RFC 9229).

        Duplicate address detection is off on it: nobody else can have its random link-local address, and waiting for
        the detection would cost a second of every new tunnel.
        """
        if await self._index(name) is None:
            await self._do(
                f"make the interface {name}",
                self._netlink.link("add", ifname=name, kind="tuntap", mode="tap"),
            )
        if name not in self._links:
            self._links.append(name)
        if ipv4 is not None:
            await self._put_address(ipv4, 32, name)
        for setting, value in (("accept_dad", 0), ("dad_transmits", 0), ("accept_ra", 0)):
            self._sysctl(f"ipv6/conf/{name}/{setting}", value)

    async def set_up(self, name: str, mtu: int | None = None) -> None:
        """Bring an interface up, with this MTU in bytes. Raises KernelError."""
        arguments: dict[str, Any] = {"state": "up"} | ({"mtu": mtu} if mtu else {})
        await self._do(f"bring {name} up", self._netlink.link("set", index=await self._need(name), **arguments))

    async def set_down(self, name: str) -> None:
        """Take an interface down, if it is there: babeld forgets its neighbours and routes at once."""
        index = await self._index(name)
        if index is not None:
            with suppress(NetlinkError):
                await self._netlink.link("set", index=index, state="down")

    async def delete_link(self, name: str) -> None:
        index = await self._index(name)
        if index is not None:
            with suppress(NetlinkError):
                await self._netlink.link("del", index=index)
        if name in self._links:
            self._links.remove(name)

    # -- addresses and routes --

    async def add_address(self, ip: Address, length: int, interface: str) -> None:
        """Put an address on an interface, which is brought up. Raises KernelError."""
        await self.set_up(interface)
        self._addresses.append((ip, length, interface))
        await self._put_address(ip, length, interface)

    async def _put_address(self, ip: Address, length: int, interface: str) -> None:
        # Our certificate says that it is ours alone; no route can have it as source before it is found to be.
        flags = {"flags": IFA_F_NODAD} if ip.version == 6 else {}
        await self._do(
            f"put {ip}/{length} on {interface}",
            self._netlink.addr(
                "replace", index=await self._need(interface), address=str(ip), prefixlen=length, **flags
            ),
        )

    async def enter(self, presence: Presence, interface: str) -> None:
        """Put our address on an interface, and the routes that keep traffic inside. Raises KernelError."""
        for network in presence.unreachable:
            await self.add_unreachable(network)
        await self.add_address(presence.address, presence.length, interface)

    async def add_unreachable(self, network: Network) -> None:
        """Keep traffic to unknown parts of the network off the default route (wire.md 1.3). Raises KernelError."""
        self._unreachable.append(network)
        await self._do(
            f"add the route unreachable {network}",
            self._netlink.route("replace", dst=str(network), type="unreachable", family=_family(network)),
        )

    async def add_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        """Reach a host by a gateway. Raises KernelError, also where the user has a route to it."""
        self._routes.append((ip, gateway))
        try:
            await self._do(
                f"reach {ip} by the gateway {gateway}",
                self._netlink.route("add", dst=f"{ip}/32", gateway=str(gateway), proto=RTPROT_RE6ST),
            )
        except KernelError:
            self._routes.remove((ip, gateway))
            raise

    async def delete_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        """Undo `add_route`; the kernel may have done it, as it does when an interface goes down."""
        if (ip, gateway) not in self._routes:
            return
        self._routes.remove((ip, gateway))
        with suppress(NetlinkError):
            await self._netlink.route("del", dst=f"{ip}/32", gateway=str(gateway), proto=RTPROT_RE6ST)

    async def links_up(self) -> set[str]:
        """The names of the interfaces that are up. Raises NetlinkError when they changed meanwhile: ask again."""
        links = await self._dump(self._netlink.link("dump"))
        return {link.get("ifname", "") for link in links if link["flags"] & IFF_UP}

    async def uplinks(self) -> dict[Address, bool]:
        """The global addresses of this machine, on links that are up; and whether the link of each has a carrier.

        One is left out that the kernel does not use yet, or at all: duplicate address detection (RFC 4862 5.4).
        Raises NetlinkError when they changed meanwhile: ask again.
        """
        links = {link["index"]: link["flags"] for link in await self._dump(self._netlink.link("dump"))}
        found: dict[Address, bool] = {}
        for entry in await self._dump(self._netlink.addr("dump")):
            flags = links.get(entry["index"], 0)
            usable = not (entry.get("flags") or 0) & (IFA_F_TENTATIVE | IFA_F_DADFAILED)
            if flags & IFF_UP and usable and entry["scope"] == RT_SCOPE_UNIVERSE:
                # On a point-to-point link `address` is the other end's.
                ip = ip_address(entry.get("local") or entry.get("address"))
                found[ip] = found.get(ip, False) or bool(flags & IFF_RUNNING)
        return found

    async def source_specific(self) -> bool:
        """Whether this kernel has IPv6 routes by source (IPV6_SUBTREES; wire.md 9.3): one is made and removed."""
        route = {"dst": "::/128", "src": "::/128", "type": "unreachable", "family": socket.AF_INET6}
        try:
            await self._netlink.route("replace", **route)
            await self._netlink.route("del", **route)
        except NetlinkError as error:
            if error.code == errno.EINVAL:
                log.warning("this kernel has no routes by source (IPV6_SUBTREES): no way out through other gateways")
                return False
        return True

    async def leads_outside(self, host: str) -> bool:
        """Whether packets for an IPv6 address take a way of this machine's own, not one inside re6st.

        A default route that is for our sources only (wire.md 9.3) is not looked at as long as no source is named; but a
        program that names none would get it. IPv4 never goes out through re6st, and a name is not looked up.
        """
        try:
            IPv6Address(host)
        except ValueError:
            return True
        try:
            routes = list(await self._netlink.route("get", dst=host, family=socket.AF_INET6))
        except NetlinkError:  # there is no way
            return False
        index = routes[0].get("oif") if routes else None
        with suppress(OSError):
            return index is not None and not OUR_LINK.fullmatch(socket.if_indextoname(index))
        return False

    async def undo(self) -> None:
        """Remove what was added, the last first; what is gone already is no error."""
        for host, gateway in list(self._routes):
            await self.delete_route(host, gateway)
        for network in reversed(self._unreachable):
            with suppress(NetlinkError):
                await self._netlink.route("del", dst=str(network), type="unreachable", family=_family(network))
        for ip, length, interface in reversed(self._addresses):
            with suppress(NetlinkError):
                index = await self._index(interface)
                if index is not None:
                    await self._netlink.addr("del", index=index, address=str(ip), prefixlen=length)
        for name in list(self._links):
            await self.delete_link(name)
        self._unreachable.clear()
        self._addresses.clear()

    async def clear(self, presences: Iterable[Presence]) -> list[str]:
        """Remove what an earlier run left: TAPs, babel's and unreachable routes in our networks, our address in each.

        What else has an address there, the user gave it. Says what it removed.
        """
        removed = []
        for link in await self._dump(self._netlink.link("dump")):
            name = link.get("ifname", "")
            if OUR_LINK.fullmatch(name) and link.get(("linkinfo", "kind")) == "tun":
                with suppress(NetlinkError):
                    await self._netlink.link("del", index=link["index"])
                    removed.append(f"interface {name}")
        for route in await self._dump(self._netlink.route("dump", family=socket.AF_INET)):
            if route["proto"] == RTPROT_RE6ST:
                with suppress(NetlinkError):
                    await self._netlink.route("del", dst=f"{route.get('dst')}/32", proto=RTPROT_RE6ST)
                    removed.append(f"route {route.get('dst')}/32")
        for presence in presences:
            family = _family(presence.network)
            for route in await self._dump(self._netlink.route("dump", family=family)):
                if await self._clear_route(route, presence):
                    removed.append(f"route {route.get('dst') or 'default'}/{route['dst_len']}")
            for entry in await self._dump(self._netlink.addr("dump", family=family)):
                if ip_address(entry.get("local") or entry.get("address")) == presence.address:
                    where = {"index": entry["index"], "prefixlen": entry["prefixlen"]}
                    with suppress(NetlinkError):
                        await self._netlink.addr("del", address=str(presence.address), **where)
                        removed.append(f"address {presence.address}")
        return removed

    async def sweep(self, presences: Iterable[Presence], priority: int) -> int:
        """Remove the routes in our networks that a babeld left which used another priority; returns how many."""
        count = 0
        for presence in presences:
            for route in await self._dump(self._netlink.route("dump", family=_family(presence.network))):
                stale = route["proto"] == RTPROT_BABEL and route.get("priority") != priority
                count += stale and await self._clear_route(route, presence)
        return count

    async def _clear_route(self, route: Any, presence: Presence) -> bool:
        network = presence.network
        text, length, source = route.get("dst"), route["dst_len"], route.get("src")
        inside = text is not None and length >= network.prefixlen and ip_address(text) in network
        # A way to the Internet through a gateway is for our sources only (wire.md 9.3).
        outward = source is not None and f"{source}/{route['src_len']}" == str(network)
        blocking = route["type"] == RTN_UNREACHABLE
        ours = blocking and inside and ip_network(f"{text}/{length}") in presence.unreachable
        if not ours and (route["proto"] != RTPROT_BABEL or not (inside or outward)):
            return False
        arguments: dict[str, Any] = {"family": _family(network), "proto": route["proto"]}
        arguments |= {"dst": f"{text or '::'}/{length}"} | ({"src": str(network)} if outward else {})
        arguments |= {"type": "unreachable"} if blocking else {"oif": route.get("oif")}
        arguments |= {"table": route.get("table") or route["table"], "priority": route.get("priority")}
        with suppress(NetlinkError):
            await self._netlink.route("del", **arguments)
            return True
        return False

    # -- within --

    async def _do(self, what: str, call: Any) -> None:
        try:
            await call
        except NetlinkError as error:
            raise KernelError(f"cannot {what}: {error.args[-1]}. {_advice(error.code)}") from None
        except OSError as error:
            raise KernelError(f"cannot {what}: {error.strerror}. {_advice(error.errno)}") from None

    async def _dump(self, call: Any) -> list[Any]:
        return [message async for message in await call]

    async def _index(self, name: str) -> int | None:
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    async def _need(self, name: str) -> int:
        index = await self._index(name)
        if index is None:
            raise KernelError(f"there is no interface {name}")
        return index

    def _sysctl(self, name: str, value: int) -> None:
        try:
            Path("/proc/sys/net", name).write_text(f"{value}\n")
        except OSError as error:
            log.warning("/proc/sys/net/%s: %s", name, error.strerror)


def local_addresses() -> list[IPv4Address | IPv6Address]:
    """The global addresses of this machine, of all interfaces."""
    found: list[IPv4Address | IPv6Address] = []
    for interface in netifaces.interfaces():
        addresses = netifaces.ifaddresses(interface)
        for family in (netifaces.AF_INET, netifaces.AF_INET6):
            for entry in addresses.get(family, ()):
                with suppress(ValueError, KeyError):
                    ip = ip_address(entry["addr"].partition("%")[0])
                    if not ip.is_loopback and not ip.is_link_local and ip not in found:
                        found.append(ip)
    return found


def source_address(remote: str) -> Address | None:
    """Our address from which the kernel sends to `remote`; None where it is no address, or there is no way there."""
    try:
        ip = ip_address(remote)
        with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.connect((remote, 9))  # sends nothing (RFC 863's port)
            return ip_address(own.getsockname()[0].partition("%")[0])
    except (OSError, ValueError):
        return None


def _family(network: Network) -> int:
    return socket.AF_INET6 if network.version == 6 else socket.AF_INET


def _advice(code: int | None) -> str:
    if code in (1, 13):
        return "Run as root or with CAP_NET_ADMIN (see re6stnet.service)."
    if code in (2, 19, 95):
        return "Is the kernel module tun loaded (modprobe tun), and IPv6 enabled?"
    return "See the kernel's log."
