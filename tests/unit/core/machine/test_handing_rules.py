"""The text of the tables by which packets go by one line or the other of a neighbour, and that count what comes."""

from __future__ import annotations

import re
from ipaddress import IPv6Network

from re6st.core.machine import incoming_rules, share_numbers, uplink_numbers
from re6st.core.machine.handing_rules import TABLE, HandingRules, filling, kernel_rules, ruleset
from re6st.core.machine.incoming_rules import IncomingRules
from re6st.core.machine.nftables_text import removal
from re6st.core.machine.share_rules import counter
from re6st.core.routing.spreading import BUCKETS
from tests.unit.core.machine.test_share_rules import chain

NETWORK, HOME, SUBNET = (IPv6Network(f"2001:db8:42::/{length}") for length in (48, 64, 80))
OTHER = IPv6Network("2001:db8:42:9::/64")
RULES = HandingRules(NETWORK, {HOME: {5: 2, 9: 1}}, {HOME: {"re6stnet2", "re6stnet-wg1"}, OTHER: frozenset()})


def test_the_table_takes_the_place_of_any_of_before_at_once() -> None:
    assert ruleset(RULES).startswith(removal(TABLE) + f"table inet {TABLE} {{")


def test_what_neighbours_wish_changes_and_counters_stay() -> None:
    commands, whole = filling(RULES).splitlines(), ruleset(RULES)
    for name in ("handed_to_us", "wished"):
        assert f"flush chain inet {TABLE} {name}" in commands
        assert [f"add rule inet {TABLE} {name} {rule}" for rule in chain(whole, name)] == [
            line for line in commands if line.startswith(f"add rule inet {TABLE} {name} ")
        ]
    assert "counter {" not in filling(RULES)
    assert "delete" not in filling(RULES)
    others = ruleset(HandingRules(NETWORK, {OTHER: {1: 7}}))
    assert re.sub(r"(?s)chain handed_to_us.*?^}.*?^}", "", others, flags=re.M) == re.sub(
        r"(?s)chain handed_to_us.*?^}.*?^}", "", whole, flags=re.M
    ), "all else is the same whatever is wished"


def test_groups_of_connections_to_who_wishes_it_get_the_mark_of_the_line() -> None:
    text = ruleset(RULES)
    (wished,) = chain(text, "wished")
    assert wished.startswith(f"ip6 daddr {HOME} jhash ")
    assert wished.endswith("vmap { 5 : goto to_2, 9 : goto to_1 }")
    assert f"| {share_numbers.handed_mark(2):#010x}" in chain(text, "to_2")[0]
    assert chain(ruleset(HandingRules(NETWORK)), "wished") == []


def test_what_is_handed_to_us_goes_home_before_anything_else_is_asked() -> None:
    text = ruleset(RULES)
    _, handed_to_us, wished = chain(text, "coming_in")
    assert handed_to_us == "jump handed_to_us"
    (home,) = chain(text, "handed_to_us")
    assert home.startswith(f'ip6 daddr {HOME} iifname {{ "re6stnet-wg1", "re6stnet2" }} ')
    assert home.endswith("goto go_home")
    assert wished.endswith("goto wished")
    assert chain(text, "sent_here")[1] == wished, "nobody hands us what we send"


def test_what_goes_over_a_line_of_ours_by_choice_keeps_its_mark() -> None:
    assert "meta mark & 0x0f000000 == 0 goto wished" in ruleset(RULES)


def test_bulk_traffic_is_left_to_its_plane_where_there_is_one() -> None:
    assert "dscp" not in ruleset(RULES)
    assert "ip6 dscp != { 0x08, 0x01 } goto wished" in ruleset(HandingRules(NETWORK, bulk_apart=True))


def test_what_was_handed_to_us_and_has_no_way_home_goes_nowhere() -> None:
    home, two, nowhere = kernel_rules(NETWORK, (2,))
    assert home.table == share_numbers.HANDED_TABLES[0]
    assert home.priority < nowhere.priority < two.priority
    assert (nowhere.table, nowhere.mark, nowhere.mask) == (None, home.mark, share_numbers.MASK)
    assert nowhere.silent, "who is told that there is no way gives up a connection that it opens"
    assert two.mark != home.mark


def test_numbers_are_those_of_nobody_else() -> None:
    slots = (share_numbers.HOME, *uplink_numbers.SLOTS)
    marks = [share_numbers.handed_mark(slot) for slot in slots]
    marks += [share_numbers.mark(slot) for slot in uplink_numbers.SLOTS]
    assert len(set(marks)) == len(marks)
    assert all(mark & share_numbers.MASK == mark for mark in marks)
    priorities = [share_numbers.handed_priority(slot) for slot in slots]
    priorities += [share_numbers.priority(slot) for slot in uplink_numbers.SLOTS] + [share_numbers.HOME_PRIORITY + 1]
    assert len(set(priorities)) == len(priorities)
    assert set(priorities) <= set(share_numbers.PRIORITIES)
    assert not set(share_numbers.HANDED_TABLES) & {*share_numbers.TABLES, *uplink_numbers.TABLES}


def test_what_comes_is_counted_by_line_and_bucket() -> None:
    text = incoming_rules.ruleset(IncomingRules(NETWORK, SUBNET, {1: ("re6stnet1",), 3: ("re6stnet4",)}))
    assert text.startswith(removal(incoming_rules.TABLE))
    _, one, three = chain(text, "coming_in")
    assert one.startswith(f'iifname {{ "re6stnet1" }} ip6 saddr {NETWORK} ip6 daddr {SUBNET} ')
    assert f'7 : "{counter(3, 7)}"' in three
    assert len(re.findall(r"^counter ", text, re.MULTILINE)) == 2 * BUCKETS
