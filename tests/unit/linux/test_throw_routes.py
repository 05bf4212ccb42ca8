"""Routes that send packets on to the main table, before and after those of babeld."""

from __future__ import annotations

import asyncio
import errno
from ipaddress import IPv6Network
from typing import cast

from re6st.core.machine.wanted_state import KernelRoute
from re6st.core.routing.babel_settings import PRIORITY
from re6st.linux.detour_routes import RTPROT_DETOUR
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import Netlink
from re6st.linux.throw_routes import AFTER_BABEL, BEFORE_BABEL, RTN_THROW, ThrowRoutes

A, B = IPv6Network("2001:db8:42:1::/64"), IPv6Network("2001:db8:42:2::/64")
UNREACHABLE = 0xFFFFFFFF
"""The priority of babeld's route where it has lost a way."""


class PlayedKernel:
    def __init__(self) -> None:
        self.there: set[tuple[IPv6Network, int]] = set()
        self.refuses = False

    def add_route(self, route: KernelRoute, *, replace: bool = False, create: bool = True) -> None:
        if self.refuses:
            raise NetlinkError(errno.EPERM, "no")
        assert (route.type, route.protocol, route.table) == (RTN_THROW, RTPROT_DETOUR, 224)
        assert isinstance(route.destination, IPv6Network)
        assert route.priority is not None
        self.there.add((route.destination, route.priority))

    def delete_route(self, route: KernelRoute) -> None:
        try:
            self.there.remove((cast(IPv6Network, route.destination), route.priority or 0))
        except KeyError:
            raise NetlinkError(errno.ESRCH, "none") from None


def test_the_kernel_asks_babelds_route_first_unless_that_is_dead_or_lost() -> None:
    assert BEFORE_BABEL < PRIORITY < AFTER_BABEL < UNREACHABLE


def test_each_destination_has_one_and_a_dead_one_two() -> None:
    kernel = PlayedKernel()
    routes = ThrowRoutes(cast(Netlink, kernel), 224)
    asyncio.run(routes.follow({A: False, B: True}))
    assert kernel.there == {(A, AFTER_BABEL), (B, AFTER_BABEL), (B, BEFORE_BABEL)}
    asyncio.run(routes.follow({A: True}))
    assert kernel.there == {(A, AFTER_BABEL), (A, BEFORE_BABEL)}
    kernel.there.discard((A, BEFORE_BABEL))
    asyncio.run(routes.follow({}))
    assert kernel.there == set()


def test_what_the_kernel_refused_is_tried_again() -> None:
    kernel = PlayedKernel()
    routes = ThrowRoutes(cast(Netlink, kernel), 224)
    kernel.refuses = True
    asyncio.run(routes.follow({A: False}))
    kernel.refuses = False
    asyncio.run(routes.follow({A: False}))
    assert kernel.there == {(A, AFTER_BABEL)}
