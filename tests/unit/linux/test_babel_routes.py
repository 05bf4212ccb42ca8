"""The routes that a babeld gave the kernel, as they are read."""

from __future__ import annotations

import asyncio
import errno
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from re6st.core.machine.wanted_state import RTN_UNREACHABLE, RTPROT_BABEL, AddressPlan, KernelRoute
from re6st.core.routing.planes import MAIN, TABLES, Plane
from re6st.core.routing.regions import ROUTE_PROTOCOL
from re6st.linux import babel_routes
from re6st.linux.babel_routes import BabelRoutes
from re6st.linux.kernel import Kernel
from re6st.linux.netlink import NetlinkError

ANY = IPv6Network("::/0")
NETWORK, THERE = IPv6Network("2001:db8:42::/48"), IPv6Network("2001:db8:42:1::/64")
PLAN = AddressPlan(NETWORK, IPv6Address("2001:db8:42:b::1"), 64, (NETWORK,))
BESIDE = Plane("re6stnet-plane-spare", 6697, TABLES[0])


class Netlink:
    """A kernel with these routes."""

    routes_there: list[KernelRoute]

    def routes(self, family: int, protocol: int = 0) -> list[KernelRoute]:
        return list(self.routes_there)

    def delete_route(self, route: KernelRoute) -> None:
        self.routes_there.remove(route)

    def close(self) -> None: ...


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[KernelRoute]:
    """The routes that the kernel has."""
    found: list[KernelRoute] = []
    monkeypatch.setattr(Netlink, "routes_there", found, raising=False)
    monkeypatch.setattr(babel_routes, "Netlink", Netlink)
    return found


def by_babel(priority: int, table: int | None) -> KernelRoute:
    """A route of a babeld to one place."""
    own = KernelRoute(THERE, protocol=RTPROT_BABEL, priority=priority)
    return own if table is None else replace(own, table=table)


def test_a_way_that_babel_lost_says_nothing_of_the_priority_of_its_routes(there: list[KernelRoute]) -> None:
    """babeld holds it as an unreachable route of the last priority there is: no babeld could take the next one."""
    lost = IPv6Network("2001:db8:42:2::/64")
    there += [by_babel(1030, None), KernelRoute(lost, type=RTN_UNREACHABLE, priority=0xFFFFFFFF)]
    assert asyncio.run(BabelRoutes().ways([PLAN])) == {(THERE, ANY): 1030}


def test_a_node_that_leaves_removes_what_a_killed_babeld_left_in_its_networks(there: list[KernelRoute]) -> None:
    """Also where the next babeld has not replaced it yet: ways that were lost are on no interface that goes away."""
    nowhere = replace(by_babel(0xFFFFFFFF, None), type=RTN_UNREACHABLE)
    foreign = replace(nowhere, destination=IPv6Network("2001:db8:43:1::/64"))
    there += [nowhere, by_babel(1030, None), foreign, by_babel(1024, BESIDE.table)]

    async def leave() -> None:
        with closing(Kernel()) as own:
            await own.undo([PLAN])

    asyncio.run(leave())
    assert there == [foreign]


def test_what_a_babeld_had_lost_does_not_hide_the_route_of_a_region_from_the_next_one(there: list[KernelRoute]) -> None:
    nowhere = replace(by_babel(0xFFFFFFFF, None), type=RTN_UNREACHABLE)
    region = replace(by_babel(1025, None), destination=IPv6Network("2001:db8:42::/62"))
    there += [nowhere, region, replace(by_babel(0xFFFFFFFF, BESIDE.table), type=RTN_UNREACHABLE)]
    assert asyncio.run(BabelRoutes(MAIN.has).sweep_lost([PLAN])) == [nowhere]
    assert there == [region, replace(by_babel(0xFFFFFFFF, BESIDE.table), type=RTN_UNREACHABLE)]


def test_a_node_leaves_in_order_though_the_routes_change_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sweep(*_: object) -> list[KernelRoute]:
        raise NetlinkError(errno.EINTR, "dump interrupted")

    async def leave() -> None:
        with closing(Kernel()) as own:
            await own.undo([PLAN])

    monkeypatch.setattr(BabelRoutes, "sweep", sweep)
    asyncio.run(leave())


def test_what_a_babeld_of_one_plane_left_is_removed_and_those_of_other_planes_stay(there: list[KernelRoute]) -> None:
    """babeld does not look whether its routes are still there."""
    left, now, beside = by_babel(1024, None), by_babel(1025, None), by_babel(1024, BESIDE.table)
    there += [left, now, beside]
    assert asyncio.run(BabelRoutes(MAIN.has).sweep([PLAN], 1025)) == [left]
    assert there == [now, beside]
    assert asyncio.run(BabelRoutes(BESIDE.has).sweep([PLAN], 1025)) == [beside]


def test_a_route_that_a_plane_lost_is_missed_though_another_plane_has_it(there: list[KernelRoute]) -> None:
    there.append(by_babel(1024, BESIDE.table))
    assert asyncio.run(BabelRoutes(MAIN.has).installed([PLAN], 1024, 1)).ways == frozenset()
    assert asyncio.run(BabelRoutes(BESIDE.has).installed([PLAN], 1024, 1)).ways == {(THERE, ANY)}


def test_a_route_within_our_region_is_one_route_and_has_our_own_address(there: list[KernelRoute]) -> None:
    """Our region is a part of the network, and its address is shared by all its nodes."""
    region = IPv6Network("2001:db8:42::/56")
    shared = AddressPlan(region, region[-1], 128, (region,), ROUTE_PROTOCOL)
    there.append(by_babel(1024, None))
    for plans in ([PLAN, shared], [shared, PLAN]):
        found = asyncio.run(BabelRoutes().installed(plans, 1024, 1))
        assert found.sourceless == (replace(there[0], preferred=PLAN.address),)
    assert asyncio.run(BabelRoutes().sweep([PLAN, shared])) == [by_babel(1024, None)]
