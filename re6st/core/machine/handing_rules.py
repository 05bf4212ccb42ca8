"""The text of the nftables table by which packets go by one line or the other of a neighbour (nft(8)).

core/routing/handing.py decides. Packets to a neighbour that wishes it get the mark of the line that their group of
connections is to go by; those that another neighbour of it hands to us get a mark by which they go over our own link
there, or nowhere. The table is there only while somebody wishes something; without it all goes as babel says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field
from ipaddress import IPv6Network

from re6st.core.machine import share_numbers as numbers
from re6st.core.machine import uplink_numbers
from re6st.core.machine.nftables_text import removal
from re6st.core.machine.share_rules import HASH, PORTED, marking, not_bulk
from re6st.core.machine.wanted_state import KernelRule

TABLE = "re6stnet_handing"
HANDED, HOME = "handed", "home"
"""Counters: of what goes by a line as a neighbour wishes, and of what others hand to us."""


@dataclass(frozen=True, slots=True)
class HandingRules:
    """What the table is made from."""

    network: IPv6Network
    buckets: Mapping[IPv6Network, Mapping[int, int]] = field(default_factory=dict)
    """By subnet of a neighbour: the slot of its line by which each group of connections goes."""
    handing: Mapping[IPv6Network, Set[str]] = field(default_factory=dict)
    """The interfaces by which others hand to us what is for a subnet."""
    bulk_apart: bool = False
    """Bulk traffic has a plane of its own, and is left to that."""


def kernel_rules(network: IPv6Network, slots: Collection[int]) -> tuple[KernelRule, ...]:
    """Those that lead marked packets to the table of their line, or home. Where a line has no way, all goes as babel
    says; what was handed to us goes nowhere then, as it could come round again.
    """
    leading = tuple(
        KernelRule(
            numbers.handed_priority(slot),
            network,
            table=numbers.handed_table(slot),
            mark=(mark := numbers.handed_mark(slot)),
            mask=0 if mark == numbers.MASK else numbers.MASK,  # as rules are read
        )
        for slot in (numbers.HOME, *sorted(slots))
    )
    home = numbers.handed_mark(numbers.HOME)
    # Who is told that a destination cannot be reached gives up a connection that it is opening.
    nowhere = KernelRule(numbers.HOME_PRIORITY + 1, network, mark=home, mask=numbers.MASK, silent=True)
    return (*leading, nowhere)


def ruleset(rules: HandingRules) -> str:
    """The commands that replace any table of before by this one, at once."""
    lines = [*removal(TABLE).splitlines(), f"table inet {TABLE} {{", f"counter {HANDED} {{}}", f"counter {HOME} {{}}"]
    for slot in uplink_numbers.SLOTS:
        lines += [f"chain to_{slot} {{", f'counter name "{HANDED}" {marking(numbers.handed_mark(slot))}', "}"]
    lines += ["chain go_home {", f'counter name "{HOME}" {marking(numbers.handed_mark(numbers.HOME))}', "}"]
    for chain, made in _changing(rules).items():
        lines += [f"chain {chain} {{", *made, "}"]
    return "\n".join((*lines, *_deciding(rules), "}")) + "\n"


def filling(rules: HandingRules) -> str:
    """The commands that change nothing but which packets go by which line, and which are handed to us."""
    commands = []
    for chain, made in _changing(rules).items():
        commands += [f"flush chain inet {TABLE} {chain}", *(f"add rule inet {TABLE} {chain} {rule}" for rule in made)]
    return "\n".join(commands) + "\n"


def _changing(rules: HandingRules) -> dict[str, list[str]]:
    """The rules of those chains that change as neighbours wish."""
    return {"handed_to_us": list(_handed_to_us(rules)), "wished": list(_wished(rules))}


def _handed_to_us(rules: HandingRules) -> Iterator[str]:
    for subnet, names in sorted(rules.handing.items()):
        if names:
            quoted = ", ".join(f'"{name}"' for name in sorted(names))
            yield f"ip6 daddr {subnet} iifname {{ {quoted} }} {PORTED} goto go_home"


def _wished(rules: HandingRules) -> Iterator[str]:
    for subnet, buckets in sorted(rules.buckets.items()):
        verdicts = ", ".join(f"{bucket} : goto to_{slot}" for bucket, slot in sorted(buckets.items()))
        if verdicts:
            yield f"ip6 daddr {subnet} {HASH} vmap {{ {verdicts} }}"


def _deciding(rules: HandingRules) -> Iterator[str]:
    """After the table by which what is sent here goes over one of our own lines: what has its mark keeps it."""
    inside = f"ip6 saddr {rules.network} ip6 daddr {rules.network} {PORTED}"
    free = f"meta mark & {numbers.MASK:#010x} == 0"
    wished = f"{inside} {free} {not_bulk(bulk_apart=rules.bulk_apart)}goto wished"
    yield "chain sent_here {"
    yield "type route hook output priority -138; policy accept;"  # the kernel looks for a route again after it
    yield wished
    yield "}"
    yield "chain coming_in {"
    yield "type filter hook prerouting priority -148; policy accept;"
    yield "jump handed_to_us"
    yield wished
    yield "}"
