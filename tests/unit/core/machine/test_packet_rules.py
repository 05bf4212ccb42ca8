"""What our nftables table holds; what it does is tested on a real kernel (tests/network/test_packets.py)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from re6st.core.machine.packet_rules import HEARD, LOCAL_SENT, SENT, SENT4, Rules, ruleset

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
