"""Whether rules of others drop what is forwarded between tunnels, by the JSON that nft tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.machine.forward_chain import Blocked, blocked


def match(key: str, right: object, op: str = "==", kind: str = "meta") -> dict[str, object]:
    return {"match": {"op": op, "left": {kind: {"key": key}}, "right": right}}


ACCEPT: dict[str, object] = {"accept": None}
DROP: dict[str, object] = {"drop": None}
REPLIES = match("state", ["established", "related"], "in", "ct")


def ruleset(
    *rules: list[Any],
    policy: str = "drop",
    family: str = "ip6",
    hook: str = "forward",
    docker: list[list[Any]] | None = None,
) -> object:
    """A chain FORWARD with these rules, and a chain DOCKER-FORWARD that they may jump to."""
    chain = {"family": family, "table": "filter", "name": "FORWARD", "type": "filter", "hook": hook, "prio": 0}
    found: list[Any] = [{"metainfo": {}}, {"table": {"family": family, "name": "filter"}}]
    found.append({"chain": {**chain, "policy": policy}})
    for name, own in {"FORWARD": list(rules), "DOCKER-FORWARD": docker or []}.items():
        if name != "FORWARD":
            found.append({"chain": {"family": family, "table": "filter", "name": name}})
        for rule in own:
            found.append({"rule": {"family": family, "table": "filter", "chain": name, "expr": rule}})
    return {"nftables": found}


CERTAIN = Blocked("table ip6 filter, chain FORWARD", certain=True)
DOUBTFUL = Blocked("table ip6 filter, chain FORWARD", certain=False)
DOCKER = [{"jump": {"target": "DOCKER-FORWARD"}}]


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (ruleset(), CERTAIN),
        (ruleset(policy="accept"), None),
        (ruleset(hook="input"), None),
        (ruleset(family="ip"), None),
        (ruleset([ACCEPT]), DOUBTFUL),
        (ruleset([REPLIES, ACCEPT]), CERTAIN),
        (ruleset([match("iifname", "br-lan"), ACCEPT]), CERTAIN),
        (ruleset([match("iifname", {"set": ["br-lan", "wg0"]}), ACCEPT]), CERTAIN),
        (ruleset([match("iifname", "re6stnet*"), ACCEPT]), None),
        (ruleset([match("iifname", "re*"), ACCEPT]), None),
        (ruleset([match("oifname", "docker0", "!="), ACCEPT]), DOUBTFUL),
        (ruleset([{"xt": None}, ACCEPT]), DOUBTFUL),
        (ruleset([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@zones"}}]), DOUBTFUL),
        (ruleset(DOCKER, docker=[[match("oifname", "docker0"), REPLIES, ACCEPT]]), CERTAIN),
        (ruleset(DOCKER, docker=[DOCKER, [match("iifname", "re6stnet-tcp"), ACCEPT]]), None),
        (ruleset([match("iifname", "lan"), ACCEPT], [{"counter": {}}, {"reject": {}}], policy="accept"), CERTAIN),
        (ruleset([match("iifname", "lan"), DROP], policy="accept"), None),
        ({"nftables": []}, None),
        (None, None),
    ],
)
def test_what_rules_do_with_what_we_forward(listing: object, found: Blocked | None) -> None:
    assert blocked(json.loads(json.dumps(listing)), "re6st") == found


def test_our_own_table_is_no_reason() -> None:
    assert blocked(ruleset(), "filter") is None


words = st.text("reiftnsablockdp*0", max_size=9)
values = st.recursive(st.none() | words, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner))
expressions = st.dictionaries(st.sampled_from(["match", "accept", "drop", "jump", "goto", "vmap", "counter"]), values)


@given(st.lists(st.lists(expressions, max_size=3), max_size=4))
def test_rules_of_any_form_are_read(rules: list[list[dict[str, object]]]) -> None:
    found = blocked(ruleset(*rules), "re6st")
    assert found in (None, CERTAIN, DOUBTFUL)
