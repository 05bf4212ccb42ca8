"""Finds out whether nftables rules of other programs, such as Docker, drop what this machine forwards between tunnels
(nft(8)).

The rules are those of `nft -j list ruleset`, which include the ones of iptables. A rule that we do not understand might
let packets pass, so the result says whether it is certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from re6st.core.interfaces import PREFIX

Expression = Mapping[str, Any]
_Chain = tuple[str, str, str]
"""Family, table and name."""

"""How the names of our interfaces begin."""
_FAMILIES = ("ip6", "inet")
_INTERFACES = ("iifname", "oifname", "iif", "oif")
_REPLIES = frozenset(("established", "related"))


@dataclass(frozen=True, slots=True)
class Blocked:
    """Where packets are dropped. If it is not `certain`, a rule that we do not understand may let our packets pass."""

    where: str
    certain: bool


def blocked(listing: object, own_table: str) -> Blocked | None:
    """The chain that drops by default, and in which no rule accepts packets from tunnel to tunnel."""
    chains: dict[_Chain, Mapping[str, Any]] = {}
    rules: dict[_Chain, list[Sequence[Expression]]] = {}
    entries = listing.get("nftables", ()) if isinstance(listing, dict) else ()
    for entry in entries:
        if "chain" in entry:
            chain = entry["chain"]
            chains[chain["family"], chain["table"], chain["name"]] = chain
        elif "rule" in entry:
            rule = entry["rule"]
            rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule["expr"])
    doubtful = None
    for key, chain in chains.items():
        family, table, name = key
        if family not in _FAMILIES or table == own_table or chain.get("hook") != "forward":
            continue
        own = rules.get(key, [])
        if chain.get("policy") != "drop" and not (own and _drops_all(own[-1])):
            continue
        where = f"table {family} {table}, chain {name}"
        reached = list(_reached(key, rules))
        if not any(_may_accept(rule) for rule in reached):
            return Blocked(where, certain=True)
        if not any(_names_us(rule) for rule in reached):
            doubtful = Blocked(where, certain=False)
    return doubtful


def _reached(start: _Chain, rules: Mapping[_Chain, Sequence[Sequence[Expression]]]) -> Iterator[Sequence[Expression]]:
    """The rules of a chain, and of the chains to which they jump."""
    family, table, _ = start
    waiting, seen = [start], {start}
    while waiting:
        for rule in rules.get(waiting.pop(), ()):
            yield rule
            for expression in rule:
                for verb in ("jump", "goto"):
                    if isinstance(target := expression.get(verb), dict):
                        key = family, table, str(target.get("target"))
                        if key not in seen:
                            seen.add(key)
                            waiting.append(key)


def _drops_all(rule: Sequence[Expression]) -> bool:
    return all(expression.keys() <= {"counter", "drop", "reject", "log"} for expression in rule) and any(
        "drop" in expression or "reject" in expression for expression in rule
    )


def _may_accept(rule: Sequence[Expression]) -> bool:
    """Whether a rule may accept the first packet of a connection from tunnel to tunnel."""
    if not any("accept" in expression or "vmap" in expression or "queue" in expression for expression in rule):
        return False
    return not any(_excludes_us(match) for expression in rule if isinstance(match := expression.get("match"), dict))


def _excludes_us(match: Mapping[str, Any]) -> bool:
    if match.get("op") not in ("==", "in"):
        return False
    left, right = match.get("left"), _values(match.get("right"))
    if not isinstance(left, dict) or right is None:
        return False
    if isinstance(left.get("meta"), dict) and left["meta"].get("key") in _INTERFACES:
        return not any(_is_ours(name) for name in right)
    if isinstance(left.get("ct"), dict) and left["ct"].get("key") == "state":
        return _REPLIES.issuperset(right)
    return False


def _names_us(rule: Sequence[Expression]) -> bool:
    matches = [expression["match"] for expression in rule if isinstance(expression.get("match"), dict)]
    return any(_is_ours(name) for match in matches for name in _values(match.get("right")) or ())


def _values(right: object) -> list[str] | None:
    """The strings that something is compared with; None if they cannot be known."""
    if isinstance(right, dict):
        right = right.get("set")
    words = right if isinstance(right, list) else [right]
    return [str(word) for word in words] if all(isinstance(word, str) for word in words) else None


def _is_ours(name: str) -> bool:
    """Whether this is the name of one of our interfaces, or a pattern that matches some."""
    return name.startswith(PREFIX) or (name.endswith("*") and PREFIX.startswith(name[:-1]))
