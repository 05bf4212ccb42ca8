"""What is counted on the links of tunnels, what is asked of neighbours, and routes around them, on a real kernel."""

from __future__ import annotations

import asyncio
import select
import struct
import time
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from re6st.core.machine.packet_rules import Part
from re6st.core.machine.wanted_state import AddressPlan
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.detours import ANYWHERE, Detour, Way, for_packets_of
from re6st.linux import detour_routes
from re6st.linux.detour_routes import DetourRoutes
from re6st.linux.icmpv6 import ECHO_REQUEST, hear_only, raw_echo_socket
from re6st.linux.link_traffic import LinkTraffic
from re6st.linux.probes import EchoAnswer, ProbeSocket
from re6st.linux.rtnetlink import Netlink
from re6st.noded.packet_filter import PacketFilter
from testbed import Bed, Host, wait_until
from tests.network.test_packets import NETWORK, OTHER, RULES, TUNNEL, World, add, link_local, passes, world

__all__ = ["world"]

COUNTED = replace(RULES, shared=(OTHER,), counted=True)
FAR = IPv6Network("2001:db8:42:9::/64")


def counts(node: Host) -> LinkTraffic:
    return node.namespace.call(LinkTraffic)


def packets(node: Host, traffic: LinkTraffic, *more: str) -> dict[str, tuple[int, int]]:
    return node.namespace.call(lambda: traffic.by_interface((TUNNEL, OTHER, *more)))


def index_of(host: Host, name: str) -> int:
    return int(host.ip("-o", "link", "show", name).partition(":")[0])


@pytest.mark.parametrize("filtered", [True, False])
def test_packets_are_counted_by_interface_and_behind_a_server_by_neighbour(world: World, filtered: bool) -> None:
    node, member, other = world.node, world.member, world.other
    world.follow(replace(COUNTED, filtered=filtered))
    words = other.ip("-o", "link", "show", OTHER).split()
    hardware, hop = words[words.index("link/ether") + 1], link_local(other, OTHER)
    with closing(counts(node)) as traffic:
        before, local = packets(node, traffic, "none"), traffic.local_sent()
        assert set(before) == {TUNNEL, OTHER}
        for _ in range(5):
            assert passes(node, member, "2001:db8:42:1::1", "2001:db8:42:2::1")
            assert passes(node, other, "2001:db8:42:1::1", "2001:db8:42:3::1")
        assert passes(other, node, "2001:db8:42:3::1", "2001:db8:42:1::1")
        after, locally = packets(node, traffic), traffic.local_sent()
        for name in (TUNNEL, OTHER):
            payload = after[name][1] - before[name][1] - locally.get(name, 0) + local.get(name, 0)
            assert payload == 5, "without what the two kernels ask each other"
        shared = traffic.shared()
        assert shared.sent == {(OTHER, hop): 5}
        assert shared.received[OTHER, hardware] >= 1
        assert {name for name, _ in shared.received} == {OTHER}
        assert not shared.full
        node.ip("link", "del", OTHER)
        assert set(packets(node, traffic)) == {TUNNEL}


def test_payload_of_ipv4_is_counted_by_its_next_hop(world: World) -> None:
    node, other = world.node, world.other
    add(node, "10.42.1.1/32", "lo")
    add(other, "10.42.3.1/24", OTHER)
    node.ip("route", "add", "10.42.3.0/24", "dev", OTHER, "src", "10.42.1.1")
    other.ip("route", "add", "10.42.1.0/24", "dev", OTHER)
    world.follow(COUNTED)
    assert passes(node, other, "10.42.1.1", "10.42.3.1")
    with closing(counts(node)) as traffic:
        assert traffic.shared().sent[OTHER, IPv4Address("10.42.3.1")] >= 1


def test_a_kernel_that_cannot_count_is_told_of(bed: Bed) -> None:
    node = bed.host("n")

    async def follow() -> None:
        made = PacketFilter()
        await made.follow(replace(COUNTED, tunnels=(TUNNEL,)))
        assert Part.TRAFFIC not in made.missing
        await made.close()

    node.namespace.call(lambda: asyncio.run(follow()))
    with closing(counts(node)) as traffic:
        assert traffic.local_sent() == {}, "the table is gone"
        assert not traffic.shared().received


def test_a_neighbour_answers_echo_requests_and_only_for_itself(world: World) -> None:
    node, member = world.node, world.member
    world.follow(COUNTED)
    hop, index = link_local(member, TUNNEL), index_of(node, TUNNEL)
    with closing(node.namespace.call(ProbeSocket)) as echo:
        heard: list[EchoAnswer] = []
        number = echo.ask(hop, index)
        echo.ask(IPv6Address("fe80::dead"), index)

        def answered() -> bool:
            heard.extend(echo.answers())
            return bool(heard)

        wait_until(answered, 5, "an answer")
        time.sleep(0.3)  # another one would come meanwhile
        heard.extend(echo.answers())
        (answer,) = heard
        assert (answer.target, answer.number) == ((hop, index), number)
        assert 0 <= answer.seconds < 0.3
        echo.ask(IPv6Address("2001:db8:42:2::1"))
        wait_until(lambda: any(one.target == (IPv6Address("2001:db8:42:2::1"), 0) for one in echo.answers()), 5, "far")
        assert echo.ask(hop, 99) is None, "no such interface: no error"
        own, there = IPv6Address("2001:db8:42:1::1"), IPv6Address("2001:db8:42:2::1")
        echo.ask(there, source=IPv6Address("2001:db8:42:77::1"))  # no address of ours: no error
        node.namespace.call(lambda: echo.ask(there, source=own))
        wait_until(lambda: any(one.target == (there, 0) for one in echo.answers()), 5, "an answer to our address")


def test_a_raw_socket_may_be_woken_by_answers_to_its_own_requests_alone(world: World) -> None:
    node, there = world.node, ("2001:db8:42:2::1", 0)

    def request(identifier: int) -> bytes:
        return struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, 1)

    make = raw_echo_socket
    with closing(node.namespace.call(make)) as ours, closing(node.namespace.call(make)) as all_of_them:
        hear_only(ours, 0xABCD)
        for identifier in (0xABCC, 0xABCD):
            ours.sendto(request(identifier), there)
        for identifier in (0xABCC, 0xABCD):
            all_of_them.settimeout(5)
            assert int.from_bytes(all_of_them.recv(100)[4:6]) == identifier
        ours.settimeout(5)
        assert int.from_bytes(ours.recv(100)[4:6]) == 0xABCD
        assert not select.select([ours], [], [], 0)[0]


def test_a_detour_may_be_for_packets_of_our_subnet_alone_and_ends_by_itself(world: World) -> None:
    node, member, other = world.node, world.member, world.other
    by_member, by_other = (NextHop(link_local(host, name), name) for host, name in ((member, TUNNEL), (other, OTHER)))
    node.ip("-6", "route", "add", str(FAR), "via", str(by_member.address), "dev", TUNNEL, "metric", "1024")
    plans = [AddressPlan(NETWORK, IPv6Address("2001:db8:42:1::1"), 64, ())]
    ours = IPv6Network("2001:db8:42:1::/64")
    with closing(node.namespace.call(Netlink)) as netlink:
        routes = DetourRoutes(netlink)
        wanted = for_packets_of((FAR, ANYWHERE), ours, Detour(by_other, by_member, unproved=True))
        node.namespace.call(lambda: asyncio.run(routes.follow(wanted, plans)))
        far = "2001:db8:42:9::9"
        assert f"dev {OTHER}" in node.ip("-6", "route", "get", far, "from", "2001:db8:42:1::1")
        assert f"dev {OTHER}" in node.ip("-6", "route", "get", far), "also before a source is chosen"
        others = node.ip("-6", "route", "get", far, "from", "2001:db8:42:2::1", "iif", OTHER)
        assert f"dev {TUNNEL}" in others, "those of others go where babel says"
        shown = node.ip("-6", "route", "show", "proto", "147").splitlines()
        assert sum(f"from {ours}" in line for line in shown) == 1
        for line in shown:
            assert 0 < int(line.partition("expires ")[2].partition("sec")[0]) <= detour_routes.LASTS
        node.namespace.call(lambda: asyncio.run(routes.follow({}, plans)))
        assert node.ip("-6", "route", "show", "proto", "147") == ""
        node.namespace.call(lambda: asyncio.run(routes.follow(wanted, plans)))
        assert detour_routes.clear(netlink) == 4, "what an earlier run left"


def test_detours_are_preferred_while_they_are_wanted(world: World) -> None:
    node, member, other = world.node, world.member, world.other
    by_member, by_other = (NextHop(link_local(host, name), name) for host, name in ((member, TUNNEL), (other, OTHER)))
    node.ip("-6", "route", "add", str(FAR), "via", str(by_member.address), "dev", TUNNEL, "metric", "1024")
    node.ip("address", "add", "10.42.1.1/32", "dev", "lo")
    plans = [
        AddressPlan(NETWORK, IPv6Address("2001:db8:42:1::1"), 64, ()),
        AddressPlan(IPv4Network("10.42.0.0/16"), IPv4Address("10.42.1.1"), 32, ()),
    ]
    payload = IPv4Network("10.42.9.0/24")
    wanted: dict[Way, Detour] = {(net, ANYWHERE): Detour(by_other, by_member) for net in (FAR, payload)}

    def leads(host: str, *family: str) -> str:
        return node.ip(*family, "route", "get", host)

    with closing(node.namespace.call(Netlink)) as netlink:
        routes = DetourRoutes(netlink)
        node.namespace.call(lambda: asyncio.run(routes.follow(wanted, plans)))
        assert f"dev {OTHER}" in leads("2001:db8:42:9::9", "-6")
        assert "src 2001:db8:42:1::1" in leads("2001:db8:42:9::9", "-6")
        assert f"via inet6 {by_other.address} dev {OTHER}" in leads("10.42.9.9")
        back: dict[Way, Detour] = {(FAR, ANYWHERE): Detour(by_member, by_other)}
        node.namespace.call(lambda: asyncio.run(routes.follow(back, plans)))
        assert f"dev {TUNNEL}" in leads("2001:db8:42:9::9", "-6")
        assert "10.42.9.0" not in node.ip("route", "show")
        assert detour_routes.clear(netlink) == 1, "what an earlier run left"
        node.namespace.call(lambda: asyncio.run(routes.follow({}, plans)))
        assert f"dev {TUNNEL}" in leads("2001:db8:42:9::9", "-6"), "that of babel"
        gone: dict[Way, Detour] = {(FAR, ANYWHERE): Detour(NextHop(by_other.address, "none"), by_member)}
        node.namespace.call(lambda: asyncio.run(routes.follow(gone, plans)))
        assert detour_routes.clear(netlink) == 0
