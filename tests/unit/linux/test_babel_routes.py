"""The routes that a babeld gave the kernel, as they are read."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, IPv6Network

import pytest

from re6st.core.machine.wanted_state import RTN_UNREACHABLE, AddressPlan, KernelRoute
from re6st.linux import babel_routes
from re6st.linux.babel_routes import BabelRoutes


def test_a_way_that_babel_lost_says_nothing_of_the_priority_of_its_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """babeld holds it as an unreachable route of the last priority there is: no babeld could take the next one."""
    network = IPv6Network("2001:db8:42::/48")
    there, lost = IPv6Network("2001:db8:42:1::/64"), IPv6Network("2001:db8:42:2::/64")

    class Netlink:
        def routes(self, family: int, protocol: int = 0) -> list[KernelRoute]:
            unreachable = KernelRoute(lost, protocol=protocol, type=RTN_UNREACHABLE, priority=0xFFFFFFFF)
            return [KernelRoute(there, protocol=protocol, priority=1030), unreachable]

        def close(self) -> None: ...

    monkeypatch.setattr(babel_routes, "Netlink", Netlink)
    plan = AddressPlan(network, IPv6Address("2001:db8:42:b::1"), 64, (network,))
    assert asyncio.run(BabelRoutes().ways([plan])) == {(there, IPv6Network("::/0")): 1030}
