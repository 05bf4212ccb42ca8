"""The text of the nftables table by which connections go over one line or the other."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from re6st.core.machine import share_numbers, uplink_numbers
from re6st.core.machine.nftables_text import removal
from re6st.core.machine.share_rules import (
    TABLE,
    ShareRules,
    counter,
    kernel_rules,
    placing,
    read_counter,
    ruleset,
)
from re6st.core.routing import planes
from re6st.core.routing.spreading import BUCKETS

NETWORK, SUBNET = IPv6Network("2001:db8:42::/48"), IPv6Network("2001:db8:42:7::/64")
RULES = ShareRules(NETWORK, SUBNET, {1: ("re6stnet1", "re6stnet-wg2"), 3: ("re6stnet4",)})


def chain(text: str, name: str) -> list[str]:
    found = re.search(rf"chain {name} {{\n(.*?)^}}\n", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[1].splitlines()


def test_the_table_takes_the_place_of_any_of_before_at_once() -> None:
    assert ruleset(RULES, {}).startswith(removal(TABLE) + f"table inet {TABLE} {{")


def test_buckets_get_the_mark_of_their_line_and_all_others_none() -> None:
    text = ruleset(RULES, {5: 1, 9: 3, 11: 2})
    (place,) = chain(text, "place")
    assert place.endswith("vmap { 5 : goto to_1, 9 : goto to_3 }"), "there is no line 2"
    assert chain(text, "to_3") == [f"meta mark set meta mark & 0xf0ffffff | {share_numbers.mark(3):#010x}"]
    assert chain(ruleset(RULES, {}), "place") == []


def test_what_goes_over_a_certain_line_by_its_source_is_neither_placed_nor_counted() -> None:
    apart = IPv6Network("2001:db8:42:7:ffff:ffff:ffff:fe00/120")
    text = ruleset(replace(RULES, apart=apart), {5: 1})
    for name in ("sent_here", "from_subnet", "going_out"):
        assert f"ip6 saddr {SUBNET} ip6 saddr != {apart} ip6 daddr {NETWORK} " in chain(text, name)[1]


def test_what_is_placed_can_change_alone() -> None:
    assert placing(RULES, {}) == f"flush chain inet {TABLE} place\n"
    flush, rule = placing(RULES, {5: 1}).splitlines()
    assert flush == f"flush chain inet {TABLE} place"
    assert rule.startswith(f"add rule inet {TABLE} place jhash ")


def test_only_what_comes_from_here_is_asked_and_never_what_comes_out_of_a_tunnel() -> None:
    text = ruleset(RULES, {})
    here, subnet = chain(text, "sent_here"), chain(text, "from_subnet")
    assert "hook output" in here[0]
    assert here[1].startswith(f"ip6 saddr {SUBNET} ip6 daddr {NETWORK} ip6 daddr != {SUBNET} ")
    assert subnet[1] == f'iifname != "re6stnet*" {here[1]}'


def test_bulk_traffic_is_left_to_its_plane_where_there_is_one() -> None:
    assert "dscp" not in ruleset(RULES, {})
    apart = ShareRules(NETWORK, SUBNET, RULES.lines, bulk_apart=True)
    assert "ip6 dscp != { 0x08, 0x01 } goto place" in ruleset(apart, {})


def test_what_goes_out_is_counted_by_line_and_bucket() -> None:
    text = ruleset(RULES, {})
    one, three = chain(text, "counted")
    assert one.startswith('oifname { "re6stnet1", "re6stnet-wg2" } counter name jhash ')
    assert f'7 : "{counter(3, 7)}"' in three
    assert len(re.findall(r"^counter ", text, re.MULTILINE)) == 2 * BUCKETS


@pytest.mark.parametrize(("name", "key"), [(counter(7, 63), (7, 63)), ("line1", None), ("line1_2x", None), ("a", None)])
def test_names_of_counters_are_read_as_they_are_made(name: str, key: object) -> None:
    assert read_counter(name) == key


def test_the_kernel_leads_marked_packets_of_ours_inside_the_network_by_the_table_of_their_line() -> None:
    one, three = kernel_rules(RULES)
    assert (one.destination, one.source, one.table) == (NETWORK, SUBNET, share_numbers.table(1))
    assert three.mark & three.mask == share_numbers.mark(3)
    assert not three.mark & (uplink_numbers.MASK | planes.MARK | planes.OURS)


def test_rules_come_after_those_of_planes_and_before_those_of_uplinks() -> None:
    last = planes.PRIORITY + 2 * len(planes.BULK) + 1
    assert last < share_numbers.PRIORITIES[0] < share_numbers.PRIORITIES[-1] < uplink_numbers.PRIORITIES[0]
    assert not set(share_numbers.TABLES) & {*uplink_numbers.TABLES, *planes.TABLES}
    assert all(
        share_numbers.mark(slot) & share_numbers.MASK == share_numbers.mark(slot) for slot in uplink_numbers.SLOTS
    )
