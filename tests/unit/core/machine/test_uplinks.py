"""Which lines to the Internet a machine has, and what the kernel is given of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from re6st.core.machine import uplink_numbers as numbers
from re6st.core.machine.uplinks import (
    LAST,
    Seen,
    Uplink,
    UplinkOption,
    WayOut,
    find,
    slot_of,
    things,
)
from re6st.core.machine.wanted_state import (
    IFF_POINTOPOINT,
    IFF_RUNNING,
    IFF_UP,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RTPROT_RE6ST,
    KernelLink,
    KernelRoute,
    KernelRule,
    Placed,
)
from re6st.core.routing import planes

IPV4, IPV6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
A, B = ip_address("192.168.1.1"), ip_address("192.168.2.1")
"""Routers."""


def link(index: int, name: str, kind: str = "", flags: int = IFF_UP | IFF_RUNNING) -> KernelLink:
    return KernelLink(index, name, flags, kind)


def default(interface: int, gateway: str | None, priority: int = 0, **more: object) -> KernelRoute:
    by = None if gateway is None else ip_address(gateway)
    anywhere = IPV6 if by is not None and by.version == 6 else IPV4
    return replace(KernelRoute(anywhere, gateway=by, interface=interface, priority=priority), **more)  # type: ignore[arg-type]


def seen(links: Sequence[KernelLink], addresses: Mapping[str, Sequence[str]], *defaults: KernelRoute) -> Seen:
    placed = []
    for name, texts in addresses.items():
        for text in texts:
            ip, _, length = text.partition("/")
            placed.append(Placed(ip_address(ip), int(length), name))
    return Seen({each.index: each for each in links}, placed, defaults)


LINKS = (link(1, "lo"), link(2, "eth0"), link(3, "eth1"))
ADDRESSES = {"eth0": ["192.168.1.5/24", "2001:db8:a::5/64"], "eth1": ["192.168.2.5/24"]}
BOTH = default(2, str(A), 100), default(3, str(B), 200), default(2, "fe80::1", 1024)
TWO = seen(LINKS, ADDRESSES, *BOTH)


# --- found by default routes ---


def test_each_interface_with_a_default_route_is_a_line() -> None:
    first, second = find((), TWO)
    assert first == Uplink(
        "eth0",
        "eth0",
        2,
        (ip_address("192.168.1.5"), ip_address("2001:db8:a::5")),
        {4: WayOut(A), 6: WayOut(ip_address("fe80::1"))},
    )
    assert second == Uplink("eth1", "eth1", 3, (ip_address("192.168.2.5"),), {4: WayOut(B)})


def test_routes_in_the_tables_of_network_managers_count_and_the_best_metric_is_first() -> None:
    found = find((), seen(LINKS, ADDRESSES, default(2, str(A), 200), default(3, str(B), 100, table=10003)))
    assert [each.name for each in found] == ["eth1", "eth0"]


def test_of_two_routers_of_one_interface_the_better_one_is_taken() -> None:
    (one,) = find((), seen(LINKS, ADDRESSES, default(2, "192.168.1.9", 50), default(2, str(A), 20)))
    assert one.gateways == [A]


@pytest.mark.parametrize(
    "route",
    [
        default(4, None),
        default(2, str(A), protocol=RTPROT_RE6ST, table=14601),
        default(2, "fe80::1", protocol=42),
        default(2, "fe80::1", source=IPv6Network("2001:db8:42::/48")),
        default(2, str(A), type=RTN_UNREACHABLE),
        default(2, str(A), destination=IPv4Network("10.0.0.0/8")),
        default(5, str(A)),
        default(9, str(A)),
    ],
    ids=["VPN", "ours", "babel's", "for some sources", "to nowhere", "no default route", "a tunnel's", "gone"],
)
def test_what_is_no_way_to_the_internet_is_no_line(route: KernelRoute) -> None:
    links = [*LINKS, link(4, "tun0", "tun"), link(5, "re6stnet1", "tun")]
    addresses = {**ADDRESSES, "tun0": ["10.8.0.2/24"], "re6stnet1": ["10.9.0.2/24"]}
    assert find((), seen(links, addresses, route)) == []


def test_two_interfaces_in_one_network_are_one_line() -> None:
    """As a laptop on Wi-Fi and on a cable. But each router may be fe80::1."""
    both = seen(
        LINKS, {"eth0": ["192.168.1.5/24"], "eth1": ["192.168.1.6/24"]}, default(2, str(A)), default(3, str(A), 9)
    )
    assert [each.name for each in find((), both)] == ["eth0"]
    addresses = {"eth0": ["2001:db8:a::5/64"], "eth1": ["2001:db8:b::5/64"]}
    other = seen(LINKS, addresses, default(2, "fe80::1"), default(3, "fe80::1"))
    assert [each.name for each in find((), other)] == ["eth0", "eth1"]


def test_a_line_that_lost_its_route_stays_known_while_its_interface_is_there() -> None:
    known = [each.name for each in find((), TWO)]
    first, second = find((), replace(TWO, defaults=BOTH[::2]), known)
    assert (first.is_up, second.is_up, second.problem) == (True, False, "there is no default route by eth1")
    unplugged = [*LINKS[:2], link(3, "eth1", flags=IFF_UP)]
    assert find((), seen(unplugged, {"eth0": ["192.168.1.5/24"]}, BOTH[0]), known)[1].problem == "eth1 has no carrier"
    down = [*LINKS[:2], link(3, "eth1", flags=0)]
    assert find((), seen(down, ADDRESSES, BOTH[0]), known)[1].problem == "eth1 is down"
    assert [each.name for each in find((), seen(LINKS[:2], ADDRESSES, BOTH[0]), known)] == ["eth0"]


def test_a_line_with_a_modem_has_no_router_and_is_paid_by_volume() -> None:
    modem = link(4, "wwan0", flags=IFF_UP | IFF_RUNNING | IFF_POINTOPOINT)
    (one,) = find((), seen([modem], {"wwan0": ["10.64.0.7/32"]}, default(4, None)))
    assert (one.ways, one.metered, one.is_up) == ({4: WayOut(None)}, True, True)


def test_the_source_that_a_default_route_names_is_kept_while_the_address_is_there() -> None:
    route = default(2, str(A), preferred=ip_address("192.168.1.6"))
    (one,) = find((), seen(LINKS, {"eth0": ["192.168.1.5/24", "192.168.1.6/24"]}, route))
    assert one.ways == {4: WayOut(A, ip_address("192.168.1.6"))}
    (one,) = find((), seen(LINKS, {"eth0": ["192.168.1.5/24"]}, route))
    assert one.ways == {4: WayOut(A)}


# --- named by the operator ---


def test_what_the_operator_says_counts_alone() -> None:
    options = UplinkOption("fibre", "eth1", down=100.0, up=20.0), UplinkOption("lte", "wwan0", metered=True)
    fibre, lte = find(options, TWO)
    assert (fibre.device, fibre.gateways, fibre.down, fibre.up, fibre.capacity) == ("eth1", [B], 100.0, 20.0, 60.0)
    assert fibre.given
    assert (lte.is_up, lte.problem, lte.metered) == (False, "there is no interface wwan0", True)


def test_an_interface_is_known_by_the_router_or_by_the_name() -> None:
    by_network = replace(TWO, defaults=())
    (one,) = find([UplinkOption("dsl", gateways=(B,))], by_network)
    assert (one.device, one.ways) == ("eth1", {4: WayOut(B)})
    far = ip_address("203.0.113.1")
    (one,) = find([UplinkOption("dsl", gateways=(far,))], replace(TWO, defaults=(default(3, str(far)),)))
    assert one.device == "eth1"
    assert find([UplinkOption("eth0")], TWO)[0].gateways == [A, ip_address("fe80::1")]
    (one,) = find([UplinkOption("eth0", gateways=(ip_address("fe80::7"),))], TWO)
    assert one.ways == {4: WayOut(A), 6: WayOut(ip_address("fe80::7"))}


def test_a_router_that_is_on_no_line_is_told() -> None:
    nowhere = ip_address("192.168.9.1")
    (one,) = find([UplinkOption("dsl", gateways=(nowhere,))], TWO)
    assert (one.is_up, one.problem) == (False, "no interface is in the network of its router 192.168.9.1")
    (one,) = find([UplinkOption("dsl", "eth1", (nowhere,))], TWO)
    assert (one.is_up, one.problem) == (False, "its router 192.168.9.1 is in no network of eth1")
    (one,) = find([UplinkOption("eth0", gateways=(nowhere,), device="eth0")], TWO)
    assert (one.is_up, list(one.ways)) == (True, [6]), "by IPv6 it has a way all the same"
    assert one.problem
    (one,) = find([UplinkOption("dsl", "eth1", (ip_address("fe80::1"),))], TWO)
    assert one.problem == "eth1 has no address of the family of its router fe80::1"


def test_a_router_beside_an_address_that_stands_alone_is_taken() -> None:
    """As many providers of servers have it: 203.0.113.7/32, and the router somewhere else."""
    alone = seen(LINKS, {"eth0": ["203.0.113.7/32"]})
    (one,) = find([UplinkOption("eth0", gateways=(ip_address("198.51.100.1"),), device="eth0")], alone)
    assert one.is_up


def test_without_a_default_route_the_router_has_to_be_given() -> None:
    (one,) = find([UplinkOption("eth1")], replace(TWO, defaults=()))
    assert one.problem == "there is no default route by eth1"
    (one,) = find([UplinkOption("eth1")], seen(LINKS, {}))
    assert one.problem == "eth1 has no address"


# --- what the kernel is given ---


def test_each_line_has_a_table_and_rules_that_lead_there() -> None:
    found = things({1: find((), TWO)[0], 2: find((), TWO)[1]})
    routes = [each for each in found if isinstance(each, KernelRoute)]
    assert {(r.table, r.destination, r.gateway, r.interface) for r in routes if r.type == RTN_UNICAST} == {
        (14601, IPV4, A, 2),
        (14601, IPV6, ip_address("fe80::1"), 2),
        (14602, IPV4, B, 3),
    }
    nowhere = {(r.table, r.destination, r.priority) for r in routes if r.type == RTN_UNREACHABLE}
    assert nowhere == {(14600 + slot, where, LAST) for slot in (1, 2) for where in (IPV4, IPV6)}, (
        "what is bound to a line does not leave by another one"
    )
    rules = [each for each in found if isinstance(each, KernelRule)]
    assert {(r.priority, r.table, r.mark, r.specific) for r in rules if r.mark} == {
        (14602, 254, 0x10, True),
        (14603, 14601, 0x10, False),
        (14604, 254, 0x20, True),
        (14605, 14602, 0x20, False),
    }
    by_source = [(r.priority, str(r.source), r.table) for r in rules if not r.mark and not r.specific]
    assert by_source == [
        (14623, "192.168.1.5/32", 14601),
        (14623, "2001:db8:a::5/128", 14601),
        (14625, "192.168.2.5/32", 14602),
    ]
    assert list(found).index(rules[0]) == len(routes), "a rule never leads to an empty table"


def test_a_line_that_is_down_has_no_way_out_and_its_addresses_no_rule() -> None:
    up, down = find((), TWO)[0], replace(find((), TWO)[1], ways={})
    found = things({1: up, 2: down})
    assert [r for r in found if isinstance(r, KernelRoute) and r.table == 14602 and r.type == RTN_UNICAST] == []
    assert [r for r in found if isinstance(r, KernelRule) and r.source == IPv4Network("192.168.2.5/32")] == []
    assert any(isinstance(r, KernelRule) and r.mark == 0x20 for r in found)
    assert things({1: down}) == (), "with none that is up, packets go as the machine says"


def test_an_address_that_two_lines_have_answers_by_the_first_one() -> None:
    one = find([UplinkOption("a", "eth0", (A,)), UplinkOption("b", "eth0", (ip_address("192.168.1.9"),))], TWO)
    rules = [r for r in things(dict(enumerate(one, 1))) if isinstance(r, KernelRule) and r.source is not None]
    assert {r.table for r in rules if not r.specific} == {14601}


def test_of_two_lines_by_one_interface_each_has_the_addresses_of_its_router() -> None:
    """Else what came in by one would be answered by the other."""
    both = seen(LINKS, {"eth0": ["192.168.1.5/24", "192.168.2.5/24", "2001:db8:a::5/64"]})
    first, second = find([UplinkOption("a", "eth0", (A,)), UplinkOption("b", "eth0", (B,))], both)
    assert [each for each in first.addresses if each.version == 4] == [ip_address("192.168.1.5")]
    assert [each for each in second.addresses if each.version == 4] == [ip_address("192.168.2.5")]


def test_a_router_that_is_this_machine_is_told_of() -> None:
    (found,) = find([UplinkOption("a", "eth0", (ip_address("192.168.1.5"),))], TWO)
    assert found.problem == "its router 192.168.1.5 is this machine itself"
    assert 4 not in found.ways


def test_a_default_route_of_a_vrf_is_no_line_of_this_machine() -> None:
    links = (link(1, "lo"), link(2, "eth0"), replace(link(3, "eth1"), master=4), link(4, "management", "vrf"))
    assert [each.name for each in find((), seen(links, ADDRESSES, *BOTH))] == ["eth0"]
    named = find([UplinkOption("eth1")], seen(links, ADDRESSES, *BOTH))
    assert [each.is_up for each in named] == [True], "unless somebody says so"


def test_the_slot_of_an_earlier_daemon_is_known_by_its_routes() -> None:
    first, second = find((), TWO)
    left = [each for each in things({5: first, 3: second}) if isinstance(each, KernelRoute)]
    assert (slot_of(first, left), slot_of(second, left)) == (5, 3)
    assert slot_of(replace(first, index=9), left) is None


def test_marks_are_nobody_elses() -> None:
    """Neither the planes', nor those of programs that many machines have; and a slot is read from them as written."""
    marks = [numbers.mark(slot) for slot in numbers.SLOTS]
    assert [numbers.slot_of(each) for each in marks] == list(numbers.SLOTS)
    assert not numbers.MASK & (planes.MARK | planes.OURS | 0xC000 | 0x2000 | 0xFF0000 | 0x0F00 | 0x80)
    for other in (0, 1, 2, 3, 100, 0xCA6C, 0x6D6F6C65, 0x40000, planes.MARK, planes.OURS):
        assert other & numbers.MASK not in marks
    assert numbers.slot_of(0xCA6C) is None
    assert numbers.TABLES[0] not in planes.TABLES
    assert min(numbers.TABLES) > 255
    assert planes.PRIORITY + 2 * len(planes.BULK) + 1 < numbers.PRIORITIES[0]
    assert numbers.PRIORITIES[-1] < 32766
