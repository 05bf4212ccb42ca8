"""Links, addresses and routes of this machine (rtnetlink, /proc/sys/net).

What a node adds is declared here and undone at exit: `Kernel` remembers what it made, and `clear` removes what an
earlier run left behind (wire.md 1.3). Only names and prefixes of our network are touched.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Network, ip_address

from re6st.core import interfaces
from re6st.core.machine.wanted_state import AddressPlan
from re6st.linux import babel_routes, rtnetlink
from re6st.linux.babel_routes import Installed
from re6st.linux.hardware import Hardware
from re6st.linux.kept_state import RTPROT_RE6ST, SYSCTL, KeptState, Placed, family_of, host_route
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import (
    IFA_F_DADFAILED,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_TENTATIVE,
    IFF_RUNNING,
    IFF_UP,
    RT_SCOPE_UNIVERSE,
    RTN_UNREACHABLE,
    Netlink,
    Route,
)

LASTING = frozenset((errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP))
"""Refusals that will not end by themselves: no right, no module."""
NOTICE, NOTICE_STEP = 1.0, 0.01
"""Seconds that babeld has to see that an interface is down, and between two looks whether it has."""

log = logging.getLogger(__name__)

Address = rtnetlink.Address
Network = rtnetlink.Network


class KernelError(OSError):
    """The kernel refused; the text says what, and what to do. If it is `lasting`, only a person can mend it."""

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        super().__init__(text)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Kept:
    """What an earlier run left that is gone on with."""

    hosts: Collection[str] = ()
    """They are reached by a gateway of ours."""
    main_interface: str = "lo"
    """Where our address is not removed, since it comes there again."""


class Kernel:
    """The kernel of the network namespace we run in."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self.hardware = Hardware(self._netlink)
        self.state = KeptState(self._netlink)
        self._links: list[str] = []
        self._link_address: IPv4Interface | None = None

    def close(self) -> None:
        self._netlink.close()

    # -- links --

    async def make_tap(self, name: str) -> None:
        """Make a persistent TAP interface, down; one of that name is taken over. Raises KernelError.

        Duplicate address detection is off on it: nobody else can have its random link-local address, and waiting for
        the detection would cost a second of every new tunnel.
        """
        if self._index(name) is None:
            self.state.up.pop(name, None)  # that one was deleted
            with _doing(f"make the interface {name}"):
                rtnetlink.make_tap(name)
        if name not in self._links:
            self._links.append(name)
        if self._link_address is not None:
            self._put_link_address(self._link_address, name)
        for setting, value in (("disable_ipv6", 0), ("accept_dad", 0), ("dad_transmits", 0), ("accept_ra", 0)):
            self._sysctl(f"ipv6/conf/{name}/{setting}", value)

    async def set_up(self, name: str, mtu: int | None = None) -> None:
        """Bring an interface up, with this MTU in bytes. Raises KernelError."""
        index = self._need(name)
        with _doing(f"bring {name} up"):
            self._netlink.set_link(index, up=True, mtu=mtu)
        if name in self._links:
            self.state.up[name] = index

    async def set_down(self, name: str) -> None:
        """Take an interface down, if it is there: babeld forgets its neighbours and routes at once."""
        index = self._index(name)
        self.state.up.pop(name, None)
        if index is not None:
            with suppress(NetlinkError):
                self._netlink.set_link(index, up=False)

    async def interrupt(self, name: str, is_used: Callable[[], bool]) -> None:
        """Take an interface down until babeld, which `is_used` asks, has seen it; then bring it up as it was.

        When an interface goes down, babeld 1.12.1 may want to ask one of the neighbours behind it for another way. With
        authentication it needs a link-local address for that, and where there is none it tries again at once until the
        neighbour is forgotten: so for seconds, or minutes, it writes a million lines a second into its log.
        Where it begins with that before it has read that the interface is up again, it reads nothing any more (see
        Babel.watch).

        One that is down, since its tunnel never came up, stays so. The kernel gives a link-local address to an
        interface with a carrier only, and babeld says of each that is up without one, again and again, that it has
        none.
        """
        index = self._index(name)
        if index is None:
            return
        had = []
        with suppress(NetlinkError):
            if any(link.index == index and not link.flags & IFF_UP for link in self._netlink.links()):
                self.state.up.pop(name, None)
                return
            known = self._netlink.addresses(socket.AF_INET6)
            had = [each for each in known if each.index == index and each.address.is_link_local]
        await self.set_down(name)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTICE):
                    while is_used():  # noqa: ASYNC110
                        await asyncio.sleep(NOTICE_STEP)
        finally:
            # It goes away meanwhile where the node ends.
            with suppress(NetlinkError):
                self._netlink.set_link(index, up=True)
                self.state.up[name] = index
                for each in had:
                    self._netlink.put_address(each.address, each.length, index, IFA_F_NODAD)

    async def address_links(self, own: IPv4Interface | None) -> None:
        """Have our IPv4 address, and no other one, on all links, also on those that come. What is refused is logged.

        It is for babeld, which then speaks of IPv4 as older ones understand it: without an address it gives an IPv6
        next hop (RFC 9229). One that runs forgets all routes of an interface whose address changes, those of IPv6 too:
        so this is for one that is not started yet, or is gone on with and finds what the last daemon put there.

        The address has the length of our subnet, which SlapOS reads there, but brings no route: nothing of it is behind
        these links.
        """
        self._link_address, ip = own, None if own is None else own.ip
        links = {index: name for name in self._links if (index := self._index(name)) is not None}
        try:
            there = [each for each in self._netlink.addresses(socket.AF_INET) if each.index in links]
            for other in (each for each in there if each.address != ip):
                self._netlink.delete_address(other.address, other.length, other.index)
            for index in links.keys() - {each.index for each in there if each.address == ip}:
                if own is not None:
                    self._put_link_address(own, links[index])
        except (NetlinkError, KernelError) as error:
            log.error("cannot set the IPv4 addresses of links: %s", error)

    async def delete_link(self, name: str) -> None:
        index = self._index(name)
        self.state.up.pop(name, None)
        if index is not None:
            with suppress(NetlinkError):
                self._netlink.delete_link(index)
        if name in self._links:
            self._links.remove(name)

    # -- addresses and routes --

    def _put_link_address(self, own: IPv4Interface, interface: str) -> None:
        self._put_address(own.ip, own.network.prefixlen, interface, IFA_F_NOPREFIXROUTE)

    def _put_address(self, ip: Address, length: int, interface: str, flags: int = 0) -> None:
        # It is ours alone; no route can have it as source before it is found to be.
        flags |= IFA_F_NODAD if ip.version == 6 else 0
        index = self._need(interface)
        with _doing(f"put {ip}/{length} on {interface}"):
            self._netlink.put_address(ip, length, index, flags)

    async def enter(self, plan: AddressPlan, interface: str) -> None:
        """Have our address on an interface, and the routes that keep traffic inside (wire.md 1.3).

        What cannot be there yet, as on an interface that comes later, is logged, and there once it can be (see
        noded/caretaker.py). Raises KernelError where we have not the right.
        """
        self.state.unreachable += [each for each in plan.unreachable if each not in self.state.unreachable]
        self.state.addresses.append(Placed(plan.address, plan.length, interface))
        for fault in self.state.put_back():
            if fault.forbidden:
                raise KernelError(f"{fault}. {_advice(errno.EPERM)}", lasting=True)
            if fault.trouble:
                log.warning("%s. Waiting for that", fault)

    async def leave(self, plan: AddressPlan, interface: str) -> None:
        """Undo `enter`. Once the address is on no link, the kernel drops babel's routes that have it as source."""
        state = self.state
        state.unreachable = [network for network in state.unreachable if network not in plan.unreachable]
        placed = Placed(plan.address, plan.length, interface)
        state.addresses = [each for each in state.addresses if each != placed]
        for network in plan.unreachable:
            await self._delete_unreachable(network)
        await self._delete_address(placed)

    async def add_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        """Reach a host by a gateway. Raises KernelError, also where the user has a route to it."""
        self.state.routes.append((ip, gateway))
        try:
            with _doing(f"reach {ip} by the gateway {gateway}"):
                self._netlink.add_route(host_route(ip, gateway))
        except KernelError:
            self.state.routes.remove((ip, gateway))
            raise

    async def delete_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        """Undo `add_route`; the kernel may have done it, as it does when an interface goes down."""
        if (ip, gateway) not in self.state.routes:
            return
        self.state.routes.remove((ip, gateway))
        with suppress(NetlinkError):
            self._netlink.delete_route(host_route(ip, gateway))

    async def links_up(self) -> set[str]:
        """The names of the interfaces that are up. Raises NetlinkError when they changed meanwhile: ask again."""
        return {link.name for link in self._netlink.links() if link.flags & IFF_UP}

    async def uplinks(self) -> dict[Address, bool]:
        """The global addresses of this machine, on links that are up; and whether the link of each has a carrier.

        One is left out that the kernel does not use yet, or at all: duplicate address detection (RFC 4862 5.4).
        Raises NetlinkError when they changed meanwhile: ask again.
        """
        links = {link.index: link.flags for link in self._netlink.links()}
        found: dict[Address, bool] = {}
        for entry in self._netlink.addresses():
            flags = links.get(entry.index, 0)
            usable = not entry.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)
            if flags & IFF_UP and usable and entry.scope == RT_SCOPE_UNIVERSE:
                found[entry.address] = found.get(entry.address, False) or bool(flags & IFF_RUNNING)
        return found

    async def source_specific(self) -> bool:
        """Whether this kernel has IPv6 routes by source (IPV6_SUBTREES; wire.md 9.3): one is made and removed."""
        nowhere = IPv6Network("::/128")
        route = Route(nowhere, nowhere, type=RTN_UNREACHABLE)
        try:
            self._netlink.add_route(route, replace=True)
            self._netlink.delete_route(route)
        except NetlinkError as error:
            if error.errno == errno.EINVAL:
                log.warning(
                    "this kernel has no routes by source (IPV6_SUBTREES): this node cannot use other nodes' gateways"
                )
                return False
        return True

    async def leads_outside(self, host: str) -> bool:
        """Whether packets for an address take a way of this machine's own, not one inside re6st.

        A default route that is for our sources only (wire.md 9.3) is not looked at as long as no source is named; but a
        program that names none would get it. A name is not looked up.
        """
        try:
            ip = ip_address(host)
        except ValueError:
            return True
        with suppress(OSError):  # there is no way
            route = self._netlink.route_to(ip)
            if route is not None and route.interface is not None:
                return not interfaces.is_ours(socket.if_indextoname(route.interface))
        return False

    async def undo(self) -> None:
        """Remove what was added, the last first; what is gone already is no error."""
        for host, gateway in list(self.state.routes):
            await self.delete_route(host, gateway)
        unreachable, addresses = self.state.unreachable, self.state.addresses
        self.state.unreachable, self.state.addresses = [], []
        for network in reversed(unreachable):
            await self._delete_unreachable(network)
        for placed in reversed(addresses):
            await self._delete_address(placed)
        for name in list(self._links):
            await self.delete_link(name)

    async def clear(self, plans: Iterable[AddressPlan], kept: Kept | None = None) -> list[str]:
        """Remove what an earlier run left: TAPs, babel's and unreachable routes in our networks, our address in each.

        What else has an address there, the user gave it. If anything is to be `kept`, so are the TAPs, and the routes
        in our networks, as the traffic needs them. Says what it removed.
        """
        removed = []
        carry = set() if kept is None else {self._index(kept.main_interface)}
        for link in self._netlink.links():
            if not interfaces.is_ours(link.name) or link.kind != "tun":
                continue
            if kept is None:
                with suppress(NetlinkError):
                    self._netlink.delete_link(link.index)
                    removed.append(f"interface {link.name}")
                continue
            # A babeld that runs on would not notice that one went, if another came at once.
            self._links.append(link.name)
            carry.add(link.index)
        for route in self._netlink.routes(socket.AF_INET, protocol=RTPROT_RE6ST):
            if kept and str(route.destination.network_address) in kept.hosts:
                self._keep(route)
            elif self._delete(route):
                removed.append(f"route {route.destination}")
        for plan in plans:
            family = family_of(plan.network)
            by_babel = self._netlink.routes(family, protocol=babel_routes.RTPROT_BABEL)
            unreachable = self._netlink.routes(family, type=RTN_UNREACHABLE)
            for route in dict.fromkeys((*by_babel, *unreachable)) if not kept else ():
                if babel_routes.is_ours(route, plan) and self._delete(route):
                    removed.append(f"route {route.destination}")
            for entry in self._netlink.addresses(family):
                if entry.address == plan.address and entry.index not in carry:
                    with suppress(NetlinkError):
                        self._netlink.delete_address(entry.address, entry.length, entry.index)
                        removed.append(f"address {plan.address}")
        return removed

    async def babel_routes(
        self, plans: Iterable[AddressPlan], table: int | None = None
    ) -> dict[tuple[Network, Network], int]:
        """Where routes in our networks that a babeld made lead to, for packets from where, and their priority.

        Those of one `table` only, if it is given; so do `installed` and `sweep`.
        """
        return await asyncio.to_thread(babel_routes.ways, tuple(plans), table)

    async def installed(self, plans: Iterable[AddressPlan], priority: int, table: int | None = None) -> Installed:
        """What of a babeld's routes of this priority the kernel has, in our networks."""
        return await asyncio.to_thread(babel_routes.installed, tuple(plans), priority, table)

    async def name_source(self, routes: Collection[Route]) -> None:
        """Give routes that the kernel has our address as source, which it forgets when the address goes away."""
        for route in routes:
            with suppress(NetlinkError):  # it is another one by now
                self._netlink.add_route(route, replace=True, create=False)

    def gateways(self) -> dict[IPv4Address, IPv4Address]:
        """The hosts that are reached by a gateway, and by which."""
        return dict(self.state.routes)

    def _keep(self, route: Route) -> None:
        host, gateway = route.destination.network_address, route.gateway
        if isinstance(host, IPv4Address) and isinstance(gateway, IPv4Address):
            self.state.routes.append((host, gateway))

    async def sweep(
        self,
        plans: Iterable[AddressPlan],
        priority: int,
        only: Set[tuple[Network, Network]] | None = None,
        table: int | None = None,
    ) -> int:
        """Remove the routes in our networks that a babeld left which used another priority; returns how many.

        `only` those to some destinations, for packets from some sources. There may be ten thousands of them, so this
        is done beside the event loop, by a socket of its own.
        """
        return await asyncio.to_thread(babel_routes.sweep, tuple(plans), priority, only, table)

    # -- within --

    async def _delete_unreachable(self, network: Network) -> None:
        with suppress(NetlinkError):
            self._netlink.delete_route(Route(network, type=RTN_UNREACHABLE))

    async def _delete_address(self, placed: Placed) -> None:
        index = self._index(placed.interface)
        if index is not None:
            with suppress(NetlinkError):
                self._netlink.delete_address(placed.ip, placed.length, index)

    def _delete(self, route: Route) -> bool:
        with suppress(NetlinkError):
            self._netlink.delete_route(route)
            return True
        return False

    def _index(self, name: str) -> int | None:
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    def _need(self, name: str) -> int:
        index = self._index(name)
        if index is None:
            raise KernelError(f"there is no interface {name}")
        return index

    def _sysctl(self, name: str, value: int) -> None:
        path = SYSCTL / name
        try:
            if path.read_text().strip() != str(value):
                path.write_text(f"{value}\n")
        except OSError as error:
            fixed = error.errno == errno.EROFS  # for all links alike, which is told at the start (router_settings.py)
            log.log(logging.DEBUG if fixed else logging.WARNING, "%s: %s", path, error.strerror)


@contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"cannot {what}: {error.strerror}. {_advice(error.errno)}"
        raise KernelError(text, lasting=error.errno in LASTING) from None


def _advice(code: int | None) -> str:
    if code in (1, 13):
        return "Run as root or with CAP_NET_ADMIN (see re6stnet.service)."
    if code in (2, 19, 95):
        return "Is the kernel module tun loaded (modprobe tun), and IPv6 enabled?"
    return "See the kernel's log."
