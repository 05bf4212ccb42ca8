"""The text of the nftables table that counts what comes by each line, and by each group of connections (nft(8)).

It is there only while a line is busy (core/routing/incoming.py). What is counted comes by neighbours that can send it
by another line as well, and is for this node or its subnet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Network

from re6st.core.machine.share_rules import HASH, PORTED, counter, not_bulk
from re6st.core.routing.spreading import BUCKETS

TABLE = "re6stnet_incoming"


@dataclass(frozen=True, slots=True)
class IncomingRules:
    """What the table is made from."""

    network: IPv6Network
    subnet: IPv6Network
    """The node's own subnet."""
    lines: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By slot: the interfaces by which it comes."""
    bulk_apart: bool = False
    """Bulk traffic has a plane of its own, and is left to that."""


def removal() -> str:
    """The commands that remove the table, if it exists."""
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def ruleset(rules: IncomingRules) -> str:
    """The commands that replace any table of before by this one, at once."""
    which = f"ip6 saddr {rules.network} ip6 daddr {rules.subnet} {PORTED} {not_bulk(bulk_apart=rules.bulk_apart)}"
    lines = [*removal().splitlines(), f"table inet {TABLE} {{"]
    lines += [f"counter {counter(slot, bucket)} {{}}" for slot in sorted(rules.lines) for bucket in range(BUCKETS)]
    lines += ["chain coming_in {", "type filter hook prerouting priority -147; policy accept;"]
    for slot, names in sorted(rules.lines.items()):
        counters = ", ".join(f'{bucket} : "{counter(slot, bucket)}"' for bucket in range(BUCKETS))
        quoted = ", ".join(f'"{name}"' for name in names)
        lines.append(f"iifname {{ {quoted} }} {which}counter name {HASH} map {{ {counters} }}")
    return "\n".join((*lines, "}", "}")) + "\n"
