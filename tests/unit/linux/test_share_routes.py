"""The kernel's routes over each line follow what was found, and nothing else changes."""

from __future__ import annotations

import asyncio
import errno
import socket
from ipaddress import IPv6Address, IPv6Network
from typing import cast

import pytest

from re6st.core.machine.share_numbers import table
from re6st.core.machine.wanted_state import KernelRoute
from re6st.core.routing.babel_lines import NextHop
from re6st.linux.detour_routes import RTPROT_DETOUR
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import Netlink
from re6st.linux.share_routes import ShareRoutes

X, Y = IPv6Network("2001:db8:42:1::/64"), IPv6Network("2001:db8:42:2::/64")
A, B = NextHop(IPv6Address("fe80::a"), "re6stnet1"), NextHop(IPv6Address("fe80::b"), "re6stnet2")
OWN = IPv6Address("2001:db8:42:9::1")


class PlayedKernel:
    def __init__(self) -> None:
        self.there: dict[tuple[int, str], tuple[str, int]] = {}
        self.changes = 0
        self.refuses = False

    def add_route(self, route: KernelRoute, *, replace: bool = False) -> None:
        if self.refuses:
            raise NetlinkError(errno.EINVAL, "no")
        assert replace
        assert (route.protocol, route.preferred) == (RTPROT_DETOUR, OWN)
        self.changes += 1
        self.there[route.table, str(route.destination)] = str(route.gateway), route.interface or 0

    def delete_route(self, route: KernelRoute) -> None:
        self.changes += 1
        if self.there.get((route.table, str(route.destination))) != (str(route.gateway), route.interface):
            raise NetlinkError(errno.ESRCH, "none")
        del self.there[route.table, str(route.destination)]


@pytest.fixture
def indexes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    known = {"re6stnet1": 11, "re6stnet2": 12}

    def index(name: str) -> int:
        if name not in known:
            raise OSError
        return known[name]

    monkeypatch.setattr(socket, "if_nametoindex", index)
    return known


def test_each_line_has_a_table_and_only_changes_are_made(indexes: dict[str, int]) -> None:
    kernel = PlayedKernel()
    routes = ShareRoutes(cast(Netlink, kernel), table)
    asyncio.run(routes.follow({1: {X: A, Y: A}, 2: {X: B}}, OWN))
    assert kernel.there == {
        (table(1), str(X)): ("fe80::a", 11),
        (table(1), str(Y)): ("fe80::a", 11),
        (table(2), str(X)): ("fe80::b", 12),
    }
    kernel.changes = 0
    asyncio.run(routes.follow({1: {X: A, Y: A}, 2: {X: B}}, OWN))
    assert kernel.changes == 0
    asyncio.run(routes.follow({1: {X: A}, 2: {X: B, Y: B}}, OWN))
    assert kernel.changes == 2
    asyncio.run(routes.follow({}, OWN))
    assert kernel.there == {}


def test_a_route_by_an_interface_that_was_made_anew_is_put_there_again(indexes: dict[str, int]) -> None:
    kernel = PlayedKernel()
    routes = ShareRoutes(cast(Netlink, kernel), table)
    asyncio.run(routes.follow({1: {X: A}}, OWN))
    indexes["re6stnet1"] = 21
    asyncio.run(routes.follow({1: {X: A}}, OWN))
    assert kernel.there == {(table(1), str(X)): ("fe80::a", 21)}
    del indexes["re6stnet1"]
    asyncio.run(routes.follow({1: {X: A}}, OWN))
    assert kernel.there == {}


def test_what_others_removed_comes_back_and_what_the_kernel_refused_is_tried_again(indexes: dict[str, int]) -> None:
    kernel = PlayedKernel()
    routes = ShareRoutes(cast(Netlink, kernel), table)
    kernel.refuses = True
    asyncio.run(routes.follow({1: {X: A}}, OWN))
    kernel.refuses = False
    asyncio.run(routes.follow({1: {X: A}}, OWN))
    assert len(kernel.there) == 1
    kernel.there.clear()
    asyncio.run(routes.follow({1: {X: A}}, OWN, anew=True))
    assert len(kernel.there) == 1
