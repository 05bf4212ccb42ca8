"""The nftables table on a real kernel: what passes, what does not, and what it counts."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from re6st.core.machine.packet_rules import TCP_BURST, UDP_BURST, Rules
from re6st.noded.packet_filter import PacketFilter, Sender
from testbed import Bed, Host, Pinger, wait_until

NETWORK, SUBNET = IPv6Network("2001:db8:42::/48"), IPv6Network("2001:db8:42:1::/64")
TUNNEL, OTHER, LAN = "re6stnet1", "re6stnet-tcp", "lan"
RULES = Rules(
    (TUNNEL, OTHER),
    NETWORK,
    SUBNET,
    ipv4=IPv4Network("10.42.0.0/16"),
    ipv4_subnet=IPv4Network("10.42.1.0/24"),
    tcp_ports=(1194,),
    udp_ports=(1195,),
)
PORT = 4000


@dataclass
class World:
    """A node between a member behind one tunnel, another one behind the other, and a LAN. The tunnels are played."""

    node: Host
    member: Host
    other: Host
    neighbour: Host

    def follow(self, rules: Rules) -> None:
        """Have the node's table hold these rules."""
        self.node.namespace.call(lambda: asyncio.run(_follow(rules)))

    def dropped(self) -> dict[str, int]:
        """What was counted, without zeros."""
        found = self.node.run(["nft", "list", "counters", "table", "inet", "re6stnet"]).stdout.split()
        counts = {name: int(found[at + 3]) for at, name in enumerate(found) if found[at - 1] == "counter"}
        return {name: count for name, count in counts.items() if count}

    def senders(self) -> str:
        """Who is named for what was dropped, and for how many packets."""
        listed = self.node.run(["nft", "list", "set", "inet", "re6stnet", "senders"]).stdout
        return re.sub(r" expires \S+", "", listed)


async def _follow(rules: Rules) -> None:
    made = PacketFilter()
    await made.follow(rules)
    assert made.missing == frozenset()
    assert made.active == rules.filtered
    await made.hand_over()  # the table stays


@pytest.fixture
def world(bed: Bed) -> World:
    node, member, other, neighbour = (bed.host(name) for name in "nmol")  # a cable has the name of its host too
    for name, host in ((TUNNEL, member), (OTHER, other), (LAN, neighbour)):
        bed.segment(name, node, host)
    node.namespace.sysctl({"net/ipv6/conf/all/forwarding": 1, "net/ipv4/ip_forward": 1})
    add(node, f"{IPv6Address('2001:db8:42:1::1')}/64", "lo")
    for subnet, name, host in (("2001:db8:42:2", TUNNEL, member), ("2001:db8:42:3", OTHER, other)):
        add(host, f"{subnet}::1/128", "lo")
        node.ip("-6", "route", "add", f"{subnet}::/64", "via", str(link_local(host, name)), "dev", name)
        host.ip("-6", "route", "add", str(NETWORK), "via", str(link_local(node, name)), "dev", name)
    add(node, "fd00:1::1/64", LAN)
    add(neighbour, "fd00:1::2/64", LAN)
    return World(node, member, other, neighbour)


def add(host: Host, address: str, interface: str) -> None:
    host.ip("address", "add", address, "dev", interface, *(("nodad",) if ":" in address else ()))


def link_local(host: Host, interface: str) -> IPv6Address:
    words = host.ip("-6", "-o", "address", "show", "dev", interface, "scope", "link").split()
    return IPv6Address(words[3].partition("/")[0])


def passes(source: Host, target: Host, sender: str, receiver: str) -> bool:
    """Whether a datagram with this source gets to a program of the target."""
    family = socket.AF_INET6 if ":" in receiver else socket.AF_INET

    def listen() -> socket.socket:
        own = socket.socket(family, socket.SOCK_DGRAM)
        own.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", PORT))
        own.settimeout(0.3)
        return own

    def speak() -> socket.socket:
        own = socket.socket(family, socket.SOCK_DGRAM)
        level, option = (socket.IPPROTO_IPV6, 78) if family == socket.AF_INET6 else (socket.IPPROTO_IP, 15)
        own.setsockopt(level, option, 1)  # IPV6_FREEBIND, IP_FREEBIND
        own.bind((sender, 0))
        return own

    with closing(target.namespace.call(listen)) as there, closing(source.namespace.call(speak)) as here:
        for _ in range(3):  # the first waits for neighbour discovery
            here.sendto(b"x", (receiver, PORT))
            try:
                there.recv(10)
            except TimeoutError:
                continue
            return True
    return False


def test_no_packet_is_lost_while_another_table_takes_its_place(world: World) -> None:
    """For us, and passed on: the kernel looks into the sets of the old table for a moment, and finds nothing there."""
    member = world.member
    world.follow(RULES)
    ends = [IPv6Address("2001:db8:42:1::1"), IPv6Address("2001:db8:42:3::1")]
    with ExitStack() as running:
        pingers = [running.enter_context(Pinger(member, end, 0.001).running()) for end in ends]
        for tick in range(60):
            assert world.dropped() == {}
            world.follow(replace(RULES, tcp_ports=(1194 + tick,)))
    assert [pinger.lost for pinger in pingers] == [0, 0]
    assert all(len(pinger.times) > 500 for pinger in pingers)


def test_only_babeld_speaks_babel_on_a_link(world: World) -> None:
    """Babel's packets have no key there: another user's would be this node's."""
    world.follow(replace(RULES, links=(TUNNEL,), user=0))

    def sends(user: int, interface: str, port: int = 6696) -> bool:
        words = f"echo x > /dev/udp/ff02::1:6%{interface}/{port}"
        found = world.node.run(["setpriv", f"--reuid={user}", "--clear-groups", "bash", "-c", words], check=False)
        return found.returncode == 0

    nobody = 65534
    assert sends(0, TUNNEL)
    assert not sends(nobody, TUNNEL)
    assert not sends(nobody, TUNNEL, 6697), "nor for the second plane"
    assert sends(nobody, TUNNEL, 6698), "other programs may say what they like to each other"
    assert sends(nobody, OTHER), "that one has a key"


def test_what_comes_out_of_a_tunnel_has_a_source_inside_the_network(world: World) -> None:
    node, member, own = world.node, world.member, "2001:db8:42:1::1"
    for source in ("fd00:1::7", "2001:db8:9::9", "2001:db8:42:1::7"):
        assert passes(member, node, source, own), "the kernel alone takes it"
    world.follow(RULES)
    assert passes(member, node, "2001:db8:42:2::1", own)
    assert passes(member, node, "2001:db8:42:7::9", own), "one of a member further away"
    assert world.dropped() == {}
    for source in ("fd00:1::7", "2001:db8:9::9"):
        assert not passes(member, node, source, own)
    assert set(world.dropped()) == {"foreign_source"}
    for source in ("2001:db8:42:1::1", "2001:db8:42:1::7", "fd00:1::1"):
        assert not passes(member, node, source, own), "our own, and one of our subnet"
    assert world.dropped()["own_source"] == 9
    # What a routing loop brings back is dropped too, and is nobody's fault.
    named = world.senders()
    assert not passes(member, node, "2001:db8:42:1::1", "2001:db8:42:7::9")
    assert (world.dropped()["own_source"], world.dropped()["came_back"]) == (9, 3)
    assert world.senders() == named
    # A network with a gateway: they may come from the Internet, but none of ours does.
    world.follow(replace(RULES, outside=True))
    assert passes(member, node, "2001:db8:9::9", own)
    assert not passes(member, node, "2001:db8:42:1::7", own)
    world.follow(replace(RULES, accepted=(IPv6Network("2001:db8:9::/48"),)))
    assert passes(member, node, "2001:db8:9::9", own)
    world.follow(replace(RULES, filtered=False))
    assert passes(member, node, "fd00:1::7", own)


def test_ipv4_out_of_a_tunnel_is_of_the_network_too(world: World) -> None:
    node, member = world.node, world.member
    for name, host, address in (
        ("lo", node, "10.42.1.1/32"),
        (LAN, node, "192.168.7.1/24"),
        ("lo", member, "10.42.2.1/32"),
    ):
        add(host, address, name)
    add(node, "169.254.9.1/30", TUNNEL)
    add(member, "169.254.9.2/30", TUNNEL)
    member.ip("route", "add", "10.42.0.0/16", "via", "169.254.9.1")
    member.ip("route", "add", "192.168.7.0/24", "via", "169.254.9.1")
    node.ip("route", "add", "10.42.2.0/24", "via", "169.254.9.2")
    assert passes(member, node, "10.42.2.1", "192.168.7.1")
    world.follow(RULES)
    assert passes(member, node, "10.42.2.1", "10.42.1.1")
    assert world.dropped() == {}
    assert not passes(member, node, "10.42.2.1", "192.168.7.1"), "an address of the node that is not the network's"
    assert set(world.dropped()) == {"foreign_destination"}
    assert not passes(member, node, "169.254.9.2", "10.42.1.1")
    assert "foreign_source" in world.dropped()


def test_members_get_through_to_each_other_but_not_to_the_lan_behind_a_node(world: World) -> None:
    node, member, other, neighbour = world.node, world.member, world.other, world.neighbour
    member.ip("-6", "route", "add", "fd00:1::/64", "via", str(link_local(node, TUNNEL)), "dev", TUNNEL)
    neighbour.ip("-6", "route", "add", str(NETWORK), "via", "fd00:1::1")
    source = "2001:db8:42:2::1"
    assert passes(member, neighbour, source, "fd00:1::2"), "the kernel alone forwards it"
    world.follow(RULES)
    assert passes(member, other, source, "2001:db8:42:3::1")
    assert not passes(member, neighbour, source, "fd00:1::2")
    assert set(world.dropped()) == {"not_forwarded"}
    # A machine of the node's subnet, as the partitions and taps of SlapOS are.
    add(neighbour, "2001:db8:42:1:8000::2/80", LAN)
    node.ip("-6", "route", "add", "2001:db8:42:1:8000::/80", "dev", LAN)
    assert passes(member, neighbour, source, "2001:db8:42:1:8000::2")
    # Another node on a LAN where neighbours need no tunnel.
    add(neighbour, "2001:db8:42:4::1/128", "lo")
    node.ip("-6", "route", "add", "2001:db8:42:4::/64", "via", "fd00:1::2")
    assert not passes(member, neighbour, source, "2001:db8:42:4::1")
    world.follow(replace(RULES, lan=(LAN,)))
    assert passes(member, neighbour, source, "2001:db8:42:4::1")
    assert not passes(member, neighbour, source, "fd00:1::2")
    for rules in (replace(RULES, gateway=True), replace(RULES, accepted=(IPv6Network("fd00:1::/64"),))):
        world.follow(rules)
        assert passes(member, neighbour, source, "fd00:1::2")


def test_who_is_no_member_cannot_pass_for_one(world: World) -> None:
    node, other, neighbour = world.node, world.other, world.neighbour
    neighbour.ip("-6", "route", "add", str(NETWORK), "via", "fd00:1::1")
    assert passes(neighbour, other, "2001:db8:42:7::7", "2001:db8:42:3::1"), "our node carries it into the network"
    world.follow(RULES)
    for target, address in ((other, "2001:db8:42:3::1"), (node, "2001:db8:42:1::1")):
        assert not passes(neighbour, target, "2001:db8:42:7::7", address)
    assert world.dropped() == {"outside_tunnels": 6}
    assert passes(neighbour, other, "2001:db8:42:1::7", "2001:db8:42:3::1"), "it has an address of our subnet"


def test_answers_to_whom_an_operator_translates_addresses_for_still_come(world: World) -> None:
    node, neighbour = world.node, world.neighbour
    neighbour.ip("-6", "route", "add", str(NETWORK), "via", "fd00:1::1")
    rule = "ip6 saddr fd00:1::/64 oifname re6stnet* masquerade"
    node.run(["nft", f"table ip6 site {{ chain out {{ type nat hook postrouting priority 100; {rule}; }}; }}"])
    add(node, "2001:db8:42:1::9/128", OTHER)
    neighbour.run(["ping", "-c2", "-W1", "2001:db8:42:3::1"])
    world.follow(RULES)

    def asked() -> bool:
        command = ["ping", "-c1", "-W1", "2001:db8:42:3::1"]
        return neighbour.run(command, check=False).returncode == 0

    wait_until(asked, 60, "the other member answers a machine behind the node")
    assert world.dropped() == {}


@contextmanager
def connections(host: Host, target: str, count: int) -> Iterator[int]:
    """How many of so many connections came up; they are held open."""
    with ExitStack() as stack:
        tries = [host.namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(count)]
        for each in tries:
            stack.enter_context(each)
            each.settimeout(0.02)
        yield sum(_connects(each, target) for each in tries)


def _connects(own: socket.socket, target: str) -> bool:
    try:
        own.connect((target, 1194))
    except OSError:
        return False
    return True


def test_one_source_cannot_hold_all_connections_of_a_server(world: World) -> None:
    """More of them would take all files of OpenVPN, and then nobody gets in."""
    node, member, other = world.node, world.member, world.other
    for host, interface, address in (
        *((node, TUNNEL, "192.0.2.1/25"), (member, TUNNEL, "192.0.2.2/25")),
        *((node, OTHER, "192.0.2.129/25"), (other, OTHER, "192.0.2.130/25")),
    ):
        add(host, address, interface)
    world.follow(replace(RULES, tunnels=("re6stnet9",)))

    def listen() -> socket.socket:
        own = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        own.bind(("0.0.0.0", 1194))
        own.listen(2000)
        return own

    with closing(node.namespace.call(listen)), connections(member, "192.0.2.1", TCP_BURST + 60) as held:
        assert TCP_BURST <= held < TCP_BURST + 20
        assert world.dropped()["tcp_connections"] >= 40
        with connections(other, "192.0.2.129", 5) as others:
            assert others == 5


def first_packets(host: Host, source: str, target: str, count: int) -> None:
    """First packets of OpenVPN's handshake (P_CONTROL_HARD_RESET_CLIENT_V2), and as many of data."""
    with closing(host.namespace.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))) as own:
        own.setsockopt(socket.IPPROTO_IPV6, 78, 1)
        own.bind((source, 0))
        for _ in range(count):
            own.sendto(b"\x38" + bytes(13), (target, 1195))
            own.sendto(b"\x48" + bytes(13), (target, 1195))


def test_handshakes_by_udp_are_limited_for_each_network_and_data_is_not(world: World) -> None:
    world.follow(RULES)
    first_packets(world.member, "2001:db8:42:2::1", "2001:db8:42:1::1", UDP_BURST)
    assert world.dropped() == {}
    first_packets(world.member, "2001:db8:42:2::9", "2001:db8:42:1::1", 100)
    assert 80 <= world.dropped()["udp_handshakes"] <= 100, "another address of the same network"
    before = world.dropped()
    first_packets(world.other, "2001:db8:42:3::1", "2001:db8:42:1::1", 20)
    assert world.dropped() == before


def ruleset(host: Host) -> str:
    return host.run(["nft", "list", "ruleset"]).stdout


def kept_up(world: World, accident: Callable[[], Any], until: Callable[[], bool], told: list[Sender]) -> None:
    """Have a table looked after in the node's namespace; `accident` is what others do to it."""

    async def keep() -> None:
        made = PacketFilter(told=told.extend)
        await made.follow(RULES)
        await made.mute(TUNNEL)
        task = asyncio.create_task(made.run())
        await asyncio.to_thread(accident)
        async with asyncio.timeout(15):
            while not await asyncio.to_thread(until):
                await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        await made.close()

    world.node.namespace.call(lambda: asyncio.run(keep()))


@pytest.mark.parametrize(
    "words",
    [
        ["flush", "ruleset"],
        ["delete", "table", "inet", "re6stnet"],
        ["flush", "chain", "inet", "re6stnet", "from_tunnel"],
        ["flush", "set", "inet", "re6stnet", "muted"],
        ["flush", "set", "inet", "re6stnet", "tunnels"],
        ["add", "element", "inet", "re6stnet", "unheard", "{ re6stnet-tcp . fe80::9 }"],
    ],
    ids=" ".join,
)
def test_whatever_others_do_to_the_table_is_put_right(world: World, words: list[str]) -> None:
    node = world.node

    def whole() -> bool:
        text = ruleset(node)
        wanted = ('elements = { "re6stnet1" }', "goto own", '"re6stnet-tcp"')
        return all(each in text for each in wanted) and "fe80::9" not in text

    kept_up(world, lambda: node.run(["nft", *words]), whole, [])
    assert "re6stnet" not in ruleset(node), "it goes with the node"


def test_where_packets_came_from_that_were_dropped_is_told(world: World) -> None:
    told: list[Sender] = []
    words = world.member.ip("-o", "link", "show", TUNNEL).split()
    address = words[words.index("link/ether") + 1]

    def lie() -> None:
        assert not passes(world.member, world.node, "fd00:9::7", "2001:db8:42:1::1")

    kept_up(world, lie, lambda: bool(told), told)
    assert [(each.interface, each.hardware_address) for each in told] == [(TUNNEL, address)]
    assert told[0].packets == 3
