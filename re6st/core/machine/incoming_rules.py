"""The text of the nftables table that counts what comes by each line, and by each group of connections (nft(8)).

It is there only while a line is busy (core/routing/incoming.py). What is counted comes by neighbours that were told by
which line to send, and is for this node or its subnet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Network

from re6st.core.machine.nftables_text import removal
from re6st.core.machine.share_rules import HASH, PORTED, counter, not_bulk
from re6st.core.routing.spreading import BUCKETS

TABLE = "re6stnet_incoming"
OTHERS = "other_"
"""Before the names of counters of what comes by `others`."""


@dataclass(frozen=True, slots=True)
class IncomingRules:
    """What the table is made from."""

    network: IPv6Network
    subnet: IPv6Network
    """The node's own subnet."""
    lines: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By slot: the interfaces of neighbours that can send by all other lines as well."""
    others: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Those of the other neighbours that were told: what moved may come by them."""
    bulk_apart: bool = False
    """Bulk traffic has a plane of its own, and is left to that."""


def ruleset(rules: IncomingRules) -> str:
    """The commands that replace any table of before by this one, at once."""
    which = f"ip6 saddr {rules.network} ip6 daddr {rules.subnet} {PORTED} {not_bulk(bulk_apart=rules.bulk_apart)}"
    lines = [*removal(TABLE).splitlines(), f"table inet {TABLE} {{"]
    counting = []
    for prefix, interfaces in (("", rules.lines), (OTHERS, rules.others)):
        for slot, names in sorted(interfaces.items()):
            counters = [f"{prefix}{counter(slot, bucket)}" for bucket in range(BUCKETS)]
            lines += [f"counter {each} {{}}" for each in counters]
            chosen = ", ".join(f'{bucket} : "{each}"' for bucket, each in enumerate(counters))
            quoted = ", ".join(f'"{name}"' for name in names)
            counting.append(f"iifname {{ {quoted} }} {which}counter name {HASH} map {{ {chosen} }}")
    lines += ["chain coming_in {", "type filter hook prerouting priority -147; policy accept;", *counting]
    return "\n".join((*lines, "}", "}")) + "\n"
