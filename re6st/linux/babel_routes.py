"""The routes in our networks that a babeld gave the kernel.

There may be ten thousands of them, so each question has a socket of its own, and is answered beside the event loop; one
that comes again and again is, where they are few: a thread costs more than the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from typing import TypeVar

from re6st.core.machine.wanted_state import (
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RTPROT_BABEL,
    AddressPlan,
    KernelRoute,
    Network,
)
from re6st.linux.kept_state import family_of
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import Netlink

FEW = 200
"""Routes that are read within the event loop, in a few milliseconds."""

_ANY = IPv6Network("::/0")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Installed:
    """The routes of a babeld that the kernel has."""

    ways: frozenset[tuple[Network, Network]]
    """Where they lead to, for packets from where."""
    sourceless: tuple[KernelRoute, ...]
    """Those that have lost our address as their source, as they are to be."""


class BabelRoutes:
    """Those of the tables of the kernel that are `among` some, or of all. Each method raises NetlinkError."""

    def __init__(self, among: Callable[[int], bool] = lambda _: True) -> None:
        self._among = among

    async def ways(self, plans: Collection[AddressPlan]) -> dict[tuple[Network, Network], int]:
        """Where they lead to, for packets from where, and their priority."""

        def ask(netlink: Netlink) -> dict[tuple[Network, Network], int]:
            found: dict[tuple[Network, Network], int] = {}
            for _, route in self._read(netlink, plans):
                # Where a way was lost, babeld has an unreachable route, of the last priority there is.
                if route.type == RTN_UNICAST:
                    found[_way(route)] = max(found.get(_way(route), 0), route.priority or 0)
            return found

        return await _beside(ask)

    async def installed(self, plans: Collection[AddressPlan], priority: int, expected: int) -> Installed:
        """What of a babeld's routes of this priority the kernel has; about so many are expected."""

        def ask(netlink: Netlink) -> Installed:
            ways, sourceless = set[tuple[Network, Network]](), list[KernelRoute]()
            for plan, route in self._read(netlink, plans):
                if route.priority != priority:
                    continue
                ways.add(_way(route))
                # A route of IPv4 goes away with the address.
                if plan.network.version == 6 and route.preferred is None and route.type == RTN_UNICAST:
                    sourceless.append(replace(route, preferred=plan.address))
            return Installed(frozenset(ways), tuple(sourceless))

        return _here(ask) if expected < FEW else await _beside(ask)

    async def name_source(self, routes: Collection[KernelRoute]) -> None:
        """Give routes that the kernel has our address as source, which it forgets when the address goes away."""

        def ask(netlink: Netlink) -> None:
            for route in routes:
                with suppress(NetlinkError):  # it is another one by now
                    netlink.add_route(route, replace=True, create=False)

        _here(ask) if len(routes) < FEW else await _beside(ask)

    async def sweep(
        self,
        plans: Collection[AddressPlan],
        priority: int | None = None,
        only: Set[tuple[Network, Network]] | None = None,
    ) -> list[KernelRoute]:
        """Remove those that a babeld left which used another priority, or all; returns them.

        `only` those to some destinations, for packets from some sources.
        """

        def unwanted(route: KernelRoute) -> bool:
            return (priority is None or route.priority != priority) and (only is None or _way(route) in only)

        return await self._remove(plans, unwanted)

    async def sweep_lost(self, plans: Collection[AddressPlan]) -> list[KernelRoute]:
        """Remove those by which a babeld that ended made a way unreachable that it had lost; returns them.

        For the network they say nothing any more, and to the kernel they hide the route of the whole region.
        """

        return await self._remove(plans, lambda route: route.type == RTN_UNREACHABLE)

    async def _remove(
        self, plans: Collection[AddressPlan], unwanted: Callable[[KernelRoute], bool]
    ) -> list[KernelRoute]:
        def ask(netlink: Netlink) -> list[KernelRoute]:
            removed = []
            for _, route in self._read(netlink, plans):
                if unwanted(route):
                    with suppress(NetlinkError):
                        netlink.delete_route(route)
                        removed.append(route)
            return removed

        return await _beside(ask)

    def _read(self, netlink: Netlink, plans: Collection[AddressPlan]) -> Iterator[tuple[AddressPlan, KernelRoute]]:
        for plan in plans:
            network = plan.network
            if any(_is_within(network, each.network) for each in plans):
                continue  # our region: the routes there are the network's
            for route in netlink.routes(family_of(network), protocol=RTPROT_BABEL):
                length = route.destination.prefixlen
                inside = length >= network.prefixlen and route.destination.network_address in network
                # A way to the Internet through a gateway is for our sources only (wire.md 9.3).
                if (inside or route.source == network) and self._among(route.table):
                    yield plan, route


def _is_within(part: Network, whole: Network) -> bool:
    """Whether it is a part of the other one, and not all of it."""
    return part.prefixlen > whole.prefixlen and part.network_address in whole


def _way(route: KernelRoute) -> tuple[Network, Network]:
    return route.destination, route.source or _ANY


def _here(ask: Callable[[Netlink], T]) -> T:
    with closing(Netlink()) as netlink:
        return ask(netlink)


async def _beside(ask: Callable[[Netlink], T]) -> T:
    return await asyncio.to_thread(_here, ask)
