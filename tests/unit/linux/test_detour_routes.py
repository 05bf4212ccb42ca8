"""Routes of detours are in the kernel as long as they are wanted, and not much longer if nobody removes them."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, cast

import pytest

from re6st.core.machine.wanted_state import AddressPlan, KernelRoute
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.detours import ANYWHERE, Detour, Way
from re6st.core.routing.regions import ROUTE_PROTOCOL
from re6st.linux.detour_routes import AT_ONCE, LASTS, RTPROT_DETOUR, DetourRoutes
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import Netlink

A, B = (NextHop(IPv6Address(f"fe80::{number}"), f"re6stnet{number}") for number in (1, 2))
FAR, PAYLOAD = IPv6Network("2001:db8:42:9::/64"), IPv4Network("10.42.9.0/24")
OURS = IPv6Network("2001:db8:42:1::/64")
PLANS = (
    AddressPlan(IPv6Network("2001:db8:42::/48"), OURS.network_address + 1, 64, ()),
    AddressPlan(IPv4Network("10.42.0.0/16"), IPv4Address("10.42.1.1"), 32, ()),
)


@dataclass
class PlayedKernel:
    """Keeps routes as the kernel does: by destination and source."""

    there: dict[tuple[Any, Any], KernelRoute] = field(default_factory=dict)
    refuses: set[Any] = field(default_factory=set)
    looked_up: list[str] = field(default_factory=list)

    def add_route(self, route: KernelRoute, *, replace: bool = False, create: bool = True) -> None:
        assert replace
        assert create
        if route.destination in self.refuses:
            raise NetlinkError(errno.EINVAL, "no")
        self.there[route.destination, route.source] = route

    def delete_route(self, route: KernelRoute) -> None:
        if self.there.pop((route.destination, route.source), None) is None:
            raise NetlinkError(errno.ESRCH, "none")

    def index(self, name: str) -> int:
        self.looked_up.append(name)
        if name not in ("re6stnet1", "re6stnet2"):
            raise OSError(errno.ENODEV, "none")
        return int(name[-1])


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> PlayedKernel:
    made = PlayedKernel()
    monkeypatch.setattr("socket.if_nametoindex", made.index)
    return made


def routes_in(kernel: PlayedKernel) -> DetourRoutes:
    return DetourRoutes(cast(Netlink, kernel))


def test_they_have_a_mark_and_an_end_that_comes_by_itself(kernel: PlayedKernel) -> None:
    wanted: dict[Way, Detour] = {(FAR, OURS): Detour(B, A, unproved=True), (PAYLOAD, ANYWHERE): Detour(B, A)}
    asyncio.run(routes_in(kernel).follow(wanted, PLANS))
    far, payload = kernel.there[FAR, OURS], kernel.there[PAYLOAD, None]
    assert (far.gateway, far.interface, far.protocol, far.lasts) == (B.address, 2, RTPROT_DETOUR, LASTS)
    assert far.preferred == OURS.network_address + 1
    assert (payload.gateway, payload.lasts, payload.preferred) == (B.address, None, IPv4Address("10.42.1.1"))


def test_packets_by_them_have_our_own_address_and_not_that_which_a_region_shares(kernel: PlayedKernel) -> None:
    """An answer to that one would come to whichever node of our region is nearest."""
    region = IPv6Network("2001:db8:42::/56")
    shared = AddressPlan(region, region[-1], 128, (region,), ROUTE_PROTOCOL)
    asyncio.run(routes_in(kernel).follow({(FAR, ANYWHERE): Detour(B, A)}, (PLANS[0], shared, PLANS[1])))
    assert kernel.there[FAR, None].preferred == OURS.network_address + 1


def test_one_that_was_for_our_packets_alone_gives_way_to_that_for_all(kernel: PlayedKernel) -> None:
    routes = routes_in(kernel)
    asyncio.run(routes.follow({(FAR, OURS): Detour(B, A, unproved=True)}, PLANS))
    asyncio.run(routes.follow({(FAR, ANYWHERE): Detour(B, A, unproved=True)}, PLANS))
    assert kernel.there.keys() == {(FAR, None)}
    asyncio.run(routes.follow({}, PLANS))
    assert kernel.there == {}


def test_what_the_kernel_refuses_or_has_removed_is_no_error(kernel: PlayedKernel) -> None:
    routes, gone = routes_in(kernel), NextHop(A.address, "none")
    kernel.refuses = {PAYLOAD}
    wanted: dict[Way, Detour] = {
        (FAR, ANYWHERE): Detour(B, A),
        (PAYLOAD, ANYWHERE): Detour(B, A),
        (OURS, ANYWHERE): Detour(gone, A),
    }
    asyncio.run(routes.follow(wanted, PLANS))
    assert kernel.there.keys() == {(FAR, None)}
    kernel.there.clear()
    asyncio.run(routes.follow({}, PLANS))


def test_a_change_that_is_broken_off_leaves_nothing_behind(kernel: PlayedKernel) -> None:
    routes = routes_in(kernel)
    many: dict[Way, Detour] = {
        (IPv6Network(((0x2001 << 112) + (number << 64), 64)), ANYWHERE): Detour(B, A) for number in range(5 * AT_ONCE)
    }

    async def broken_off() -> None:
        task = asyncio.create_task(routes.follow(many, PLANS))
        while not kernel.there:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert 0 < len(kernel.there) < len(many), "others have their turn meanwhile"
        await routes.follow({}, PLANS)

    asyncio.run(broken_off())
    assert kernel.there == {}
    assert kernel.looked_up == ["re6stnet2"], "once for all"
