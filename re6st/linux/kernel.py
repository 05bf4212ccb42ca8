"""Links, addresses and routes of this machine (rtnetlink, /proc/sys/net).

What a node adds is declared in one wanted state (kept_state.py) and undone at exit; `clear` removes what an earlier run
left behind (wire.md 1.3). Only names and prefixes of our network are touched.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Network, ip_address

from re6st.core import interfaces
from re6st.core.machine import share_numbers, wanted_state
from re6st.core.machine.uplinks import Seen
from re6st.core.machine.wanted_state import (
    RTN_UNREACHABLE,
    AddressPlan,
    Fault,
    Kept,
    KernelRoute,
    KernelRule,
    Placed,
    Setting,
    TapState,
    Wanted,
    host_route,
    left,
    tap_settings,
)
from re6st.core.routing import babel_settings
from re6st.core.routing.claims import link_local
from re6st.core.routing.planes import ECN_BITS, TABLES, THROUGHPUT_TABLE, Plane
from re6st.linux import detour_routes, multicast_groups, rtnetlink, share_routes, throw_routes
from re6st.linux.babel_routes import BabelRoutes
from re6st.linux.hardware import Hardware
from re6st.linux.kept_state import KeptState
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import (
    IFA_F_DADFAILED,
    IFA_F_NODAD,
    IFA_F_TENTATIVE,
    RT_SCOPE_UNIVERSE,
    InterfaceAddress,
    Netlink,
)

ECN = (1 << ECN_BITS) - 1
"""The bits of a traffic class that are no part of the class (RFC 3168)."""
LASTING = frozenset((errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP))
"""Refusals that will not end by themselves: no right, no module."""

log = logging.getLogger(__name__)

Address = wanted_state.Address
Network = wanted_state.Network


class KernelError(OSError):
    """The kernel refused; the text says what, and what to do. If it is `lasting`, only a person can mend it."""

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        super().__init__(text)
        self.lasting = lasting


class Kernel:
    """The kernel of the network namespace we run in."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self.hardware = Hardware(self._netlink)
        self.state = KeptState(self._netlink)
        self.detours = detour_routes.DetourRoutes(self._netlink)
        self.shares = share_routes.ShareRoutes(self._netlink, share_numbers.table)
        self.handed = share_routes.ShareRoutes(self._netlink, share_numbers.handed_table)
        self.throws = throw_routes.ThrowRoutes(self._netlink, THROUGHPUT_TABLE)

    def close(self) -> None:
        self._netlink.close()

    @property
    def netlink(self) -> Netlink:
        """For what makes interfaces of other kinds."""
        return self._netlink

    # -- links --

    async def make_tap(self, name: str) -> None:
        """Make a persistent TAP interface, down; one of that name is taken over. Raises KernelError."""
        up = self.state.wanted.taps.get(name)
        if self._index(name) is None:
            up = None  # that one was deleted
            with _doing(f"make the interface {name}"):
                rtnetlink.make_tap(name)
        self.state.wanted = self.state.wanted.with_tap(name, up)
        self._put_on_tap(name)
        for fault in self.state.set(tap_settings(name)):
            log.warning("%s", fault)

    def take_link(self, name: str) -> None:
        """Take a WireGuard interface, which is down, for one of ours. Raises KernelError."""
        self.state.wanted = self.state.wanted.with_tap(name)
        self._put_on_tap(name)

    def keep_link_up(self, name: str, address: IPv6Address) -> None:
        """Such an interface is up, with this address, and shall be."""
        if (index := self._index(name)) is None:
            return
        was = self.state.wanted.taps.get(name)
        mtu = was.mtu if was is not None and was.index == index else None
        self.state.wanted = self.state.wanted.with_tap(name, TapState(index, mtu, address))

    def leave_link(self, name: str) -> None:
        """Such an interface is about to go, and is nobody's business any more."""
        self.state.wanted = self.state.wanted.without_tap(name)

    async def delete_link(self, name: str) -> None:
        """Delete such an interface; with it a wireguard-go ends."""
        self.state.want(self.state.wanted.without_tap(name))

    async def set_up(self, name: str, mtu: int | None = None) -> None:
        """Bring an interface up, with this MTU in bytes. Raises KernelError."""
        index = self._need(name)
        with _doing(f"bring {name} up"):
            self._netlink.set_link(index, up=True, mtu=mtu)
        if name in self.state.wanted.taps:
            self.state.wanted = self.state.wanted.with_tap(name, TapState(index, mtu))
            self._put_link_local(index)

    def _put_link_local(self, index: int) -> None:
        """Give the interface of a tunnel at once the link-local address that the kernel is about to give it.

        The kernel waits until it has noticed the carrier, up to a second after a program attached, and so does babeld.
        Where the administrator wants other addresses than those made from hardware addresses, that has to be.
        """
        with suppress(NetlinkError):
            link = next((link for link in self._netlink.links() if link.index == index), None)
            if link is not None and len(link.hardware) == 6 and self.state.value(_made_from(link.name)) == "0":
                self._netlink.put_address(link_local(link.hardware), 64, index, IFA_F_NODAD)

    def set_mtu(self, index: int, mtu: int) -> None:
        """Give an interface an MTU in bytes; a tunnel's is to have it from now on. Raises NetlinkError."""
        self._netlink.set_mtu(index, mtu)
        for name, up in self.state.wanted.taps.items():
            if up is not None and up.index == index:
                self.state.wanted = self.state.wanted.with_tap(name, replace(up, mtu=mtu))
                break

    def bytes_sent(self, index: int) -> int | None:
        """Bytes that an interface has sent; None where the kernel does not say."""
        return self._netlink.bytes_sent(index)

    async def bounce(self, name: str, until_unused: Callable[[], Awaitable[None]]) -> None:
        """Take an interface down; once babeld has seen it, which `until_unused` waits for, bring it up as it was.

        When an interface goes down, babeld 1.12.1 may want to ask one of the neighbours behind it for another way. With
        authentication it needs a link-local address for that, and where there is none it tries again at once until the
        neighbour is forgotten (see babeld/endless_tries.py). It begins with that some ten milliseconds to seconds after
        the interface went down.

        One that is down, since its tunnel never came up, stays so. The kernel gives a link-local address to an
        interface with a carrier only, and babeld says of each that is up without one, again and again, that it has
        none.
        """
        index = self._index(name)
        if index is None:
            return
        was = self.state.wanted.taps.get(name)
        self.state.wanted = self.state.wanted.with_tap(name)
        had = []
        with suppress(NetlinkError):
            if any(link.index == index and not link.up for link in self._netlink.links()):
                return
            known = self._netlink.addresses(socket.AF_INET6)
            had = [each for each in known if each.index == index and each.address.is_link_local]
        with suppress(NetlinkError):
            self._netlink.set_link(index, up=False)
        try:
            await until_unused()
        finally:
            # It goes away meanwhile where the node ends.
            with suppress(NetlinkError):
                self._netlink.set_link(index, up=True)
                up = TapState(index) if was is None else replace(was, index=index)
                self.state.wanted = self.state.wanted.with_tap(name, up)
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
        self.state.wanted = wanted = replace(self.state.wanted, on_taps=own)
        try:
            there = [each for each in self.state.read(Wanted()).addresses if each.ip.version == 4]
            strangers = (each for each in there if own is None or each.ip != own.ip)
            self.state.remove(each for each in strangers if each.interface in wanted.taps)
            ours = {each.interface for each in there if own is not None and each.ip == own.ip}
            for name in wanted.taps:
                if name not in ours and self._index(name) is not None:
                    self._put_on_tap(name)
        except (NetlinkError, KernelError) as error:
            log.error("cannot set the IPv4 addresses of links: %s", error)

    def _put_on_tap(self, name: str) -> None:
        for placed in self.state.wanted.on_tap(name):
            with _doing(f"put {placed.ip}/{placed.length} on {name}"):
                self.state.put(placed, self._need(name))

    # -- addresses and routes --

    async def have(self, plans: Iterable[AddressPlan], interface: str) -> None:
        """Have our addresses on an interface, and the routes that keep traffic inside (wire.md 1.3); no others.

        Once an address is on no link, the kernel drops babel's routes that have it as source. What cannot be there yet,
        as on an interface that comes later, is logged, and there once it can be (see noded/caretaker.py). Raises
        KernelError where we have not the right.
        """
        self.state.want(self.state.wanted.with_plans(plans, interface))
        for fault in self.state.put_back():
            if fault.forbidden:
                raise KernelError(f"{fault}. {_advice(errno.EPERM)}", lasting=True)
            if fault.trouble:
                log.warning("%s. Waiting for that", fault)

    async def add_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        """Reach a host by a gateway. Raises KernelError, also where the user has a route to it."""
        route = host_route(ip, gateway)
        with _doing(f"reach {ip} by the gateway {gateway}"):
            self.state.put(route)
        self.state.wanted = replace(self.state.wanted, routes=(*self.state.wanted.routes, route))

    async def delete_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        """Undo `add_route`; the kernel may have done it, as it does when an interface goes down."""
        wanted, route = self.state.wanted, host_route(ip, gateway)
        others = (each for each in wanted.routes if (each.destination, each.gateway) != (route.destination, gateway))
        self.state.want(replace(wanted, routes=tuple(others)))

    async def lead(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        """Have these rules, and no others of ours; what keeps one away is returned. Raises NetlinkError."""
        self.state.want(replace(self.state.wanted, rules=rules))
        return self._put_rules(rules)

    async def lead_out(self, things: tuple[KernelRoute | KernelRule, ...]) -> list[Fault]:
        """Have these routes and rules of uplinks, and no others; what the kernel refuses is returned."""
        before = self.state.wanted.uplinks
        self.state.want(replace(self.state.wanted, uplinks=things))
        there = {*before}
        with suppress(NetlinkError):  # they change just now
            # Rules that were wanted before may have been refused.
            there = {*self._netlink.rules(), *(each for each in before if isinstance(each, KernelRoute))}
        return self._put(things, there)

    async def lead_shares(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        """Have these rules for what goes over one line by choice, and no others; what keeps one away is returned."""
        self.state.want(replace(self.state.wanted, shares=rules))
        return self._put_rules(rules)

    async def lead_handed(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        """Have these rules for what goes by one line of a neighbour, and no others; see `lead_shares`."""
        self.state.want(replace(self.state.wanted, handed=rules))
        return self._put_rules(rules)

    async def lead_mptcp(self, things: tuple[Placed | KernelRule, ...]) -> list[Fault]:
        """Have these addresses and rules of MPTCP, and no others; what keeps one away is returned.

        Raises NetlinkError when much changes meanwhile: the caretaker puts there what is missing then.
        """
        if not things and not self.state.wanted.mptcp:
            return []
        self.state.want(replace(self.state.wanted, mptcp=things))
        return [fault for fault in self.state.put_back() if fault.trouble and fault.thing in things]

    def _put_rules(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        return self._put(rules, self._netlink.rules() if rules else ())

    def _put(
        self, things: Iterable[KernelRoute | KernelRule], there: Container[KernelRoute | KernelRule]
    ) -> list[Fault]:
        """Have those of these that are not there; what keeps one away is returned."""
        found = (self.state.try_to_put(each) for each in things if each not in there)
        return [fault for fault in found if fault is not None and fault.trouble]

    def uplinks_left(self) -> list[KernelRoute]:
        """The routes of uplinks that an earlier daemon left, as long as no others are wanted."""
        return [each for each in self.state.wanted.uplinks if isinstance(each, KernelRoute)]

    async def leads_by_class(self) -> bool:
        """Whether rules look at the class of a packet alone (Linux 5.18): older ones compare the bits of ECN too.

        Raises NetlinkError where there are no rules, or we have not the right.
        """
        rule = KernelRule(0xFFFF, IPv6Network("::/128"), ECN, mark=ECN)
        try:
            self._netlink.add_rule(rule)
        except NetlinkError as error:
            if error.errno == errno.EINVAL:
                return True
            raise
        self._netlink.delete_rule(rule)
        return False

    async def links_up(self) -> set[str]:
        """The names of the interfaces that are up. Raises NetlinkError when they changed meanwhile: ask again."""
        return {link.name for link in self._netlink.links() if link.up}

    async def uplinks(self) -> dict[Address, bool]:
        """The global addresses of this machine, on links that are up; and whether the link of each has a carrier.

        One is left out that the kernel does not use yet, or at all: duplicate address detection (RFC 4862 5.4).
        Raises NetlinkError when they changed meanwhile: ask again.
        """
        up = {link.index: link.running for link in self._netlink.links() if link.up}
        found: dict[Address, bool] = {}
        for entry in self._netlink.addresses():
            if entry.index in up and _is_usable(entry):
                found[entry.address] = found.get(entry.address, False) or up[entry.index]
        return found

    async def source_specific(self) -> bool:
        """Whether this kernel has IPv6 routes by source (IPV6_SUBTREES; wire.md 9.3): one is made and removed."""
        nowhere = IPv6Network("::/128")
        route = KernelRoute(nowhere, nowhere, type=RTN_UNREACHABLE)
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

    async def see_uplinks(self) -> Seen:
        """What uplinks are made of. Raises NetlinkError when it changed meanwhile, and OSError where no socket can be
        had: ask again.
        """
        links = {link.index: link for link in self._netlink.links()}
        found = [each for each in self._netlink.addresses() if each.index in links and _is_usable(each)]
        placed = [Placed(each.address, each.length, links[each.index].name) for each in found]
        # A router of the Internet has a million routes, and the kernel tells all of them. So that is read meanwhile, by
        # a socket of its own; which is made here, since a socket belongs to the network namespace of the thread.
        return Seen(links, placed, await asyncio.to_thread(_default_routes, Netlink()))

    async def leads_outside(self, host: str, mark: int = 0) -> bool:
        """Whether packets for an address take a way of this machine's own, not one inside re6st, if they have a mark.

        A default route that is for our sources only (wire.md 9.3) is not looked at as long as no source is named; but a
        program that names none would get it. A name is not looked up.
        """
        try:
            ip = ip_address(host)
        except ValueError:
            return True
        with suppress(OSError):  # there is no way
            route = self._netlink.route_to(ip, mark)
            if route is not None and route.interface is not None:
                return not interfaces.is_ours(socket.if_indextoname(route.interface))
        return False

    async def undo(self, plans: Collection[AddressPlan] = ()) -> None:
        """Remove what was added, the last first; what is gone already is no error.

        Also the routes in our networks that a babeld left which was killed, as the next one may not have replaced them.
        """
        self.state.want(Wanted())
        try:
            await BabelRoutes().sweep(plans)
        except NetlinkError as error:
            log.warning("cannot remove babel's routes: %s", error)

    async def clear(self, plans: Iterable[AddressPlan], kept: Kept | None = None) -> list[str]:
        """Remove what an earlier run left: TAPs, babel's and unreachable routes in our networks, our address in each.

        What else has an address there, the user gave it. If anything is to be `kept`, so are the TAPs, and the routes
        in our networks, as the traffic needs them. Says what it removed.
        """
        plans = tuple(plans)
        actual = self.state.read(Wanted().with_plans(plans, ""), to_peers=True)
        before, now = left(actual, plans, kept)
        self.state.wanted = before
        gone = self.state.want(now)
        removed = [thing.what for thing in gone if thing not in before.uplinks and thing not in before.mptcp]
        if of_uplinks := sum(thing in before.uplinks for thing in gone):
            removed.append(f"{of_uplinks} routes and rules of uplinks")
        if of_mptcp := sum(thing in before.mptcp for thing in gone):
            removed.append(f"{of_mptcp} addresses and rules of MPTCP")
        if count := detour_routes.clear(self._netlink):
            removed.append(f"{count} routes around dead links, over one line, or out of the second plane's table")
        # Of planes beside the main one nothing is gone on with.
        of_ended = BabelRoutes() if kept is None else BabelRoutes(lambda table: table in TABLES)
        by_babel = await of_ended.sweep(plans)
        return removed + [route.what for route in by_babel]

    def babel_routes(self, plane: Plane) -> BabelRoutes:
        """The routes that the babelds of a plane gave the kernel."""
        return BabelRoutes(plane.has)

    def has_babel(self, interface: str) -> bool:
        """Whether a babeld uses an interface, which may be down. Raises OSError where there is none."""
        return multicast_groups.joined(interface, babel_settings.GROUP)

    def gateways(self) -> dict[IPv4Address, IPv4Address]:
        """The hosts that are reached by a gateway, and by which."""
        found = ((route.destination.network_address, route.gateway) for route in self.state.wanted.routes)
        return {ip: by for ip, by in found if isinstance(ip, IPv4Address) and isinstance(by, IPv4Address)}

    # -- within --

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


def _default_routes(netlink: Netlink) -> list[KernelRoute]:
    """By a socket that is of no use afterwards."""
    with closing(netlink):
        return netlink.default_routes()


def _is_usable(entry: InterfaceAddress) -> bool:
    """Whether it is a global address that the kernel uses: duplicate address detection may keep it from that."""
    return entry.scope == RT_SCOPE_UNIVERSE and not entry.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)


def _made_from(name: str) -> Setting:
    """From what the link-local address of an interface is made: 0 is its hardware address."""
    return Setting(f"ipv6/conf/{name}/addr_gen_mode", "", "0", needed=False)


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
