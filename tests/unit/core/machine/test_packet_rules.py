"""What our nftables table holds; what it does is tested on a real kernel (tests/network/test_packets.py)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from re6st.core.machine.bulk_rules import Bulk, BulkKind
from re6st.core.machine.packet_rules import ALL, HEARD, LOCAL_SENT, SENT, SENT4, Part, Rules, ruleset

BULK = (Bulk(BulkKind.TCP, "873"), Bulk(BulkKind.USER, "42"), Bulk(BulkKind.CGROUP, "backup.slice/a.service"))
SERVER, CLIENT = "re6stnet-tcp", "re6stnet1"
RULES = Rules((SERVER, CLIENT), IPv6Network("2001:db8::/32"), IPv6Network("2001:db8:1::/48"), shared=(SERVER,))


@pytest.mark.parametrize("counted", [False, True])
def test_packets_are_counted_only_where_somebody_reads_it(counted: bool) -> None:
    lines = ruleset(replace(RULES, counted=counted)).splitlines()
    for name in (LOCAL_SENT, HEARD, SENT, SENT4):
        assert any(f"set {name} " in line for line in lines) == counted
        assert any(f"update @{name} " in line for line in lines) == counted


@pytest.mark.parametrize("chain", ["from_tunnel", "to_us", "forward"])
def test_what_may_pass_does_not_depend_on_a_set(chain: str) -> None:
    """While another table takes this one's place, its sets are empty for those that are on their way through it."""
    text = ruleset(replace(RULES, accepted=(IPv6Network("2001:db8:ffff::/48"),)))
    rules = text.partition(f"chain {chain} {{\n")[2].partition("\n}")[0].splitlines()
    inside = [rule for rule in rules if rule.endswith(" accept") and "2001:db8" in rule]
    assert inside
    assert not [rule for rule in inside if "@" in rule or "{" in rule]
    named = [rule for rule in rules if "@" in rule and "drop" in rule]
    assert named == [], "nor is anything dropped for not being in one"


def chain(text: str, name: str) -> list[str]:
    return text.partition(f"chain {name} {{\n")[2].partition("\n}")[0].splitlines()


def test_a_class_is_taken_from_what_leaves_the_throughput_plane_where_there_is_one() -> None:
    assert "dscp" not in ruleset(RULES)
    text = ruleset(replace(RULES, planes=True))
    assert [line for line in chain(text, "planes") if "goto" in line] == [
        f"ip6 dscp {each} ip6 daddr 2001:db8::/32 ip6 daddr != 2001:db8:1::/48 goto leaves_plane"
        for each in ("0x08", "0x01")
    ]
    marking = [line for line in chain(text, "of_ours") if "meta mark" in line]
    assert len(marking) == 2, "what this machine sends gets another route when its class changes"
    assert "fib daddr . mark type != unicast ip6 dscp set cs0" in chain(text, "leaves_plane")
    assert "dscp" not in ruleset(replace(RULES, planes=True), parts=ALL - {Part.PLANES})


def test_babel_is_muted_in_both_planes() -> None:
    lines = [
        line for line in ruleset(replace(RULES, planes=True)).splitlines() if "@muted" in line or "@unheard" in line
    ]
    assert len(lines) == 3
    assert all("udp dport 6696-6697 drop" in line for line in lines)


@pytest.mark.parametrize("planes", [False, True])
def test_on_a_link_nobody_but_babeld_speaks_babel_in_either_plane(planes: bool) -> None:
    lines = ruleset(replace(RULES, links=(CLIENT,), user=7, planes=planes)).splitlines()
    assert f'oifname {{ "{CLIENT}" }} udp dport 6696-6697 meta skuid != 7 drop' in lines


def test_what_the_operator_names_as_bulk_gets_a_class() -> None:
    rules = replace(RULES, planes=True, bulk=BULK)
    text = ruleset(rules)
    assert chain(text, "bulk_ports") == ["tcp dport 873 ip6 dscp set 0x08", "tcp sport 873 ip6 dscp set 0x08"]
    assert chain(text, "bulk_here") == [
        "meta skuid 42 ip6 dscp set 0x08",
        'socket cgroupv2 level 2 "backup.slice/a.service" ip6 dscp set 0x08',
        "goto bulk_ports",
    ]
    without_groups = ruleset(rules, parts=ALL - {Part.CGROUPS})
    assert chain(without_groups, "bulk_here") == ["meta skuid 42 ip6 dscp set 0x08", "goto bulk_ports"]
    only_groups = ruleset(rules, parts=ALL - {Part.BULK})
    assert "cgroupv2" in only_groups
    assert "dport 873" not in only_groups
    assert "bulk" not in ruleset(rules, parts=ALL - {Part.BULK, Part.CGROUPS})
    assert "bulk" not in ruleset(replace(rules, planes=False))
