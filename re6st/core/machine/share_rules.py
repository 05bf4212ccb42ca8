"""The text of the nftables table by which connections go over one line or the other (nft(8)).

Packets that this node, or its subnet, sends to others in the network are told apart by a hash of addresses and ports;
the number that comes out of it is the bucket (core/routing/spreading.py). Buckets that are to go over a certain line
get the mark by which the kernel has a table for it. What goes out is counted by line and bucket.

It is a table of its own: it changes every second while a line is full. Its absence does no harm, since all goes as
babel says then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Network

from re6st.core import interfaces
from re6st.core.machine import share_numbers as numbers
from re6st.core.machine.nftables_text import removal
from re6st.core.machine.wanted_state import KernelRule
from re6st.core.routing.planes import BULK
from re6st.core.routing.spreading import BUCKETS

TABLE = "re6stnet_lines"
HASH = f"jhash ip6 saddr . ip6 daddr . th sport . th dport mod {BUCKETS} seed 0x72653674"
PORTED = "meta l4proto { tcp, udp, sctp, dccp, udplite }"
"""Packets that have ports, by which connections are told apart."""
_COUNTER = re.compile(r"line([0-9]{1,3})_([0-9]{1,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ShareRules:
    """What the table is made from."""

    network: IPv6Network
    subnet: IPv6Network
    """The node's own subnet."""
    lines: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By slot: the interfaces of the tunnels that go over a line."""
    bulk_apart: bool = False
    """Bulk traffic has a plane of its own, and is left to that."""
    apart: IPv6Network | None = None
    """The part of the subnet whose packets go over a certain line anyway; see mptcp.py."""


def kernel_rules(rules: ShareRules) -> tuple[KernelRule, ...]:
    """Those that lead marked packets to the table of their line; where that has no way, to what comes after it."""
    return tuple(
        KernelRule(
            numbers.priority(slot),
            rules.network,
            table=numbers.table(slot),
            mark=numbers.mark(slot),
            mask=numbers.MASK,
            source=rules.subnet,
        )
        for slot in sorted(rules.lines)
    )


def ruleset(rules: ShareRules, placed: Mapping[int, int]) -> str:
    """The commands that replace any table of before by this one, at once. `placed` is the line of each bucket that does
    not go as babel says.
    """
    lines = [*removal(TABLE).splitlines(), f"table inet {TABLE} {{"]
    lines += [f"counter {counter(slot, bucket)} {{}}" for slot in sorted(rules.lines) for bucket in range(BUCKETS)]
    lines += [line for slot in sorted(rules.lines) for line in _to_line(slot)]
    lines += ["chain place {", *_place(rules, placed), "}", *_deciding(rules), *_counting(rules), "}"]
    return "\n".join(lines) + "\n"


def placing(rules: ShareRules, placed: Mapping[int, int]) -> str:
    """The commands that change nothing but which bucket goes over which line."""
    commands = [f"flush chain inet {TABLE} place"]
    commands += [f"add rule inet {TABLE} place {rule}" for rule in _place(rules, placed)]
    return "\n".join(commands) + "\n"


def counter(slot: int, bucket: int) -> str:
    """The name of the counter of what goes over a line by a bucket."""
    return f"line{slot}_{bucket}"


def read_counter(name: str) -> tuple[int, int] | None:
    """The inverse; None for another name."""
    found = _COUNTER.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2]))


def not_bulk(*, bulk_apart: bool) -> str:
    """The condition that leaves bulk traffic to its own plane, where it has one."""
    return f"ip6 dscp != {{ {', '.join(f'{each:#04x}' for each in BULK)} }} " if bulk_apart else ""


def marking(mark: int) -> str:
    """The statement that gives a packet this mark."""
    return f"meta mark set meta mark & {numbers.MASK ^ 0xFFFFFFFF:#010x} | {mark:#010x}"


def _to_line(slot: int) -> Iterator[str]:
    yield f"chain to_{slot} {{"
    yield marking(numbers.mark(slot))
    yield "}"


def _place(rules: ShareRules, placed: Mapping[int, int]) -> Iterator[str]:
    verdicts = [f"{bucket} : goto to_{slot}" for bucket, slot in sorted(placed.items()) if slot in rules.lines]
    if verdicts:
        yield f"{HASH} vmap {{ {', '.join(verdicts)} }}"


def _deciding(rules: ShareRules) -> Iterator[str]:
    """What comes out of a tunnel is never asked: it goes as babel says, so that no packet goes in a circle."""
    which = f"{_own(rules)} {not_bulk(bulk_apart=rules.bulk_apart)}goto place"
    yield "chain sent_here {"
    yield "type route hook output priority -139; policy accept;"  # the kernel looks for a route again after it
    yield which
    yield "}"
    yield "chain from_subnet {"
    yield "type filter hook prerouting priority -149; policy accept;"
    yield f'iifname != "{interfaces.PREFIX}*" {which}'
    yield "}"


def _counting(rules: ShareRules) -> Iterator[str]:
    yield "chain counted {"
    for slot, names in sorted(rules.lines.items()):
        if names:
            counters = ", ".join(f'{bucket} : "{counter(slot, bucket)}"' for bucket in range(BUCKETS))
            quoted = ", ".join(f'"{name}"' for name in names)
            yield f"oifname {{ {quoted} }} counter name {HASH} map {{ {counters} }}"
    yield "}"
    yield "chain going_out {"
    yield "type filter hook postrouting priority 301; policy accept;"
    yield f"{_own(rules)} goto counted"
    yield "}"


def _own(rules: ShareRules) -> str:
    apart = "" if rules.apart is None else f"ip6 saddr != {rules.apart} "
    ends = f"ip6 saddr {rules.subnet} {apart}ip6 daddr {rules.network} ip6 daddr != {rules.subnet}"
    return f"{ends} {PORTED}"
