"""A start removes what a killed run left in the kernel, and nothing that the user or another program made."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import TypeVar

from re6st.core.machine.wanted_state import AddressPlan, Kept, Placed
from re6st.core.routing.planes import TABLES
from re6st.linux.kept_state import SYSCTL, KeptState
from re6st.linux.kernel import Kernel
from re6st.linux.rtnetlink import Netlink
from testbed import Bed, Host

T = TypeVar("T")
NET6, NET4, OWN4 = IPv6Network("2001:db8:42::/48"), IPv4Network("10.42.0.0/16"), IPv4Network("10.42.3.0/24")
OURS = [
    AddressPlan(NET6, IPv6Address("2001:db8:42:1::1"), 64, (NET6,)),
    AddressPlan(NET4, IPv4Address("10.42.3.1"), 32, (NET4, OWN4)),
]
LEFT = [
    "tuntap add dev re6stnet1 mode tap",
    "tuntap add dev re6stnet-tcp mode tap",
    "address add 2001:db8:42:1::1/64 dev lo",
    "address add 10.42.3.1/32 dev lo",
    "route add unreachable 2001:db8:42::/48 proto static",
    "route add unreachable 10.42.0.0/16 proto static",
    "route add unreachable 10.42.3.0/24 proto static",
    "route add 2001:db8:42:2::/64 via fe80::1 dev eth0 proto babel",
    "route add unreachable 2001:db8:42:3::/64 proto babel",
    "route add default from 2001:db8:42::/48 via fe80::1 dev eth0 proto babel",
    "route add 10.42.2.0/24 via 10.0.0.9 dev eth0 proto babel",
]
FOREIGN = [
    "tuntap add dev re6stnet-backup mode tap",
    "address add 2001:db8:42:1::5/128 dev lo",
    "address add 10.42.3.5/32 dev lo",
    "route add 2001:db8:42:1:8000::/80 via fe80::2 dev eth0 proto static",
    "route add 2001:db8:43:1::/64 via fe80::1 dev eth0 proto babel",
    "route add default from 2001:db8:43::/48 via fe80::1 dev eth0 proto babel",
    "route add default via fe80::1 dev eth0",
    "route add default via 10.0.0.9 dev eth0",
    "route add 10.43.0.0/24 via 10.0.0.9 dev eth0 proto babel",
]


def state(host: Host) -> set[str]:
    shown = [host.ip("-6", "route"), host.ip("-4", "route"), host.ip("-brief", "address")]
    return {" ".join(line.split()) for text in shown for line in text.splitlines()}


def within(host: Host, work: Callable[[Kernel], Awaitable[T]]) -> T:
    """What the kernel of a host answers."""

    async def run() -> T:
        own = Kernel()
        try:
            return await work(own)
        finally:
            own.close()

    return host.namespace.call(lambda: asyncio.run(run()))


def test_nothing_is_left_of_an_address_that_comes_as_babeld_has_the_machine_forward(bed: Bed) -> None:
    """The kernel joins an anycast group for each subnet then, and leaves it with the address."""
    host, addresses = bed.host("host"), [ip_address(f"2001:db8:42:{number:x}::1") for number in range(100)]

    def come_and_go() -> str:
        netlink = Netlink()
        state, forwarding = KeptState(netlink), SYSCTL / "ipv6/conf/all/forwarding"
        index = socket.if_nametoindex("lo")
        for address in addresses:
            forwarding.write_text("0")
            state.put(Placed(address, 64, "lo"), index)
            forwarding.write_text("1")
            netlink.delete_address(address, 64, index)
        netlink.close()
        return Path("/proc/thread-self/net/anycast6").read_text()

    assert "20010db80042" not in host.namespace.call(come_and_go)


def test_a_start_clears_what_is_ours_alone(bed: Bed) -> None:
    host = bed.host("host")
    host.namespace.ip(*FOREIGN)
    before = state(host)
    host.namespace.ip(*LEFT)
    assert len(state(host) - before) >= len(LEFT) - 2, "two are words in the line of lo"

    removed = within(host, lambda own: own.clear(OURS))
    assert state(host) == before, removed
    assert len(removed) >= len(LEFT), removed
    assert within(host, lambda own: own.clear(OURS)) == []


def test_trying_routes_by_source_leaves_nothing(bed: Bed) -> None:
    host = bed.host("host")
    before = state(host)
    assert within(host, Kernel.source_specific), "the kernels that we test on have them"
    assert state(host) == before


def test_a_start_that_goes_on_with_tunnels_clears_the_tables_of_other_planes_alone(bed: Bed) -> None:
    """Their babelds are ended, and the next ones would take a route that is there for their own, wherever it leads."""
    host, left = bed.host("host"), f"2001:db8:42:2::/64 via fe80::1 dev eth0 proto babel table {TABLES[0]}"
    kept = ["2001:db8:42:2::/64 via fe80::1 dev eth0 proto babel", "2001:db8:42:2::/64 dev lo proto babel table 77"]
    host.namespace.ip(*(f"route add {route}" for route in kept))
    before = host.ip("-6", "route", "show", "table", "all")
    host.namespace.ip(f"route add {left}")
    removed = within(host, lambda own: own.clear(OURS, Kept()))
    assert host.ip("-6", "route", "show", "table", "all") == before
    assert len(removed) == 1
