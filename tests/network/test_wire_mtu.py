"""The size of a link's packets is found on real links, which swallow what is too large."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

from re6st.core.transport.mtu_probe import LEAST, WIREGUARD
from re6st.linux.echo import known_path_mtu
from re6st.linux.rtnetlink import Netlink
from re6st.transport.link_mtu import LinkMtus
from testbed import Bed, Host
from testbed.namespace import command
from testbed.narrow import NarrowWay

WITHIN = 10.0
WIRE = "wire"


def link_local(host: Host) -> IPv6Address:
    (shown,) = json.loads(host.ip("-json", "-6", "address", "show", "dev", WIRE, "scope", "link"))
    return IPv6Address(shown["addr_info"][0]["local"])


def mtu_of(host: Host) -> int:
    (shown,) = json.loads(host.ip("-json", "link", "show", "dev", WIRE))
    return int(shown["mtu"])


def carry(bed: Bed, host: Host, mtu: int) -> None:
    """From now on larger packets than that vanish on their way to a host: bridges tell nobody."""
    command("ip", "-n", bed.switch.full_name, "link", "set", "dev", f"{WIRE}-{host.name}", "mtu", str(mtu))


def watch(host: Host, other: IPv6Address, until: Callable[[list[tuple[str, IPv6Address]]], bool]) -> None:
    """Have a host look after its link until something is so."""
    unfit: list[tuple[str, IPv6Address]] = []

    async def run() -> None:
        netlink = Netlink()
        links = LinkMtus(netlink, lambda interface, address: unfit.append((interface, address)))
        task = asyncio.create_task(links.run())
        try:
            async with asyncio.timeout(WITHIN):
                await asyncio.sleep(0)
                links.watch(WIRE, other, WIREGUARD)
                while not until(unfit):
                    await asyncio.sleep(0.05)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            netlink.close()

    host.namespace.call(lambda: asyncio.run(run()))


def test_what_an_interface_has_sent_is_counted_in_bytes(bed: Bed) -> None:
    one, other = bed.host("one"), bed.host("other")
    bed.segment(WIRE, one, other)
    peer = link_local(other)

    def count() -> tuple[int | None, int | None]:
        netlink = Netlink()
        try:
            return netlink.bytes_sent(socket.if_nametoindex(WIRE)), netlink.bytes_sent(9999)
        finally:
            netlink.close()

    before, nothing = one.namespace.call(count)
    one.run(["ping", "-6", "-c", "3", "-i", "0.2", "-s", "1000", f"{peer}%{WIRE}"])
    after, _ = one.namespace.call(count)
    assert nothing is None
    assert before is not None
    assert after is not None
    assert 3000 <= after - before < 6000


@pytest.mark.parametrize(("carries", "mtu"), [(1500, 1420), (1400, 1380), (1300, LEAST)])
def test_a_link_gets_the_largest_size_that_passes(bed: Bed, carries: int, mtu: int) -> None:
    one, other = bed.host("one"), bed.host("other")
    bed.segment(WIRE, one, other)
    carry(bed, other, carries)
    watch(one, link_local(other), lambda _: mtu_of(one) == mtu)
    assert mtu_of(one) == mtu


def test_a_link_is_unfit_that_swallows_the_least_size_of_ipv6(bed: Bed) -> None:
    one, other = bed.host("one"), bed.host("other")
    bed.segment(WIRE, one, other)
    carry(bed, other, 1000)
    there = link_local(other)
    watch(one, there, lambda unfit: unfit == [(WIRE, there)])


def test_the_system_knows_of_a_narrow_way_once_something_was_refused(bed: Bed) -> None:
    one, other = bed.host("one"), bed.host("other")
    NarrowWay(other, 1400)
    assert other.ipv6 is not None
    for address in (other.address, other.ipv6):
        assert one.namespace.call(lambda: known_path_mtu(address)) == 1500  # noqa: B023
        one.run(["ping", "-n", "-M", "do", "-c", "2", "-i", "0.2", "-W", "1", "-s", "1440", address], check=False)
        assert one.namespace.call(lambda: known_path_mtu(address)) == 1400  # noqa: B023
    assert one.namespace.call(lambda: known_path_mtu("10.99.0.1")) is None
