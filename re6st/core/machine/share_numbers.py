"""The kernel's numbers for what a node sends over a line by choice, its own or another's: marks, tables and rules.

The bits of these marks are neither those of uplinks (uplink_numbers.py) nor those of planes (core/routing/planes.py). A
rule looks at them only where a packet stays inside the network; for a line of ours, where it comes from our subnet.
"""

from __future__ import annotations

from re6st.core.machine import uplink_numbers

MASK = 0x0F000000
"""The bits of a mark that count."""
TABLES = range(14701, 14701 + uplink_numbers.LIMIT)
"""No babeld can have these, as it takes 255 at most."""
PRIORITIES = range(14561, 14579)
"""Of the rules: after those of planes, and before those of uplinks, whose tables lead out of the network."""
HANDED = 8
"""Added to the slot of a line of another node, by which that wants its packets (core/routing/handing.py)."""
HANDED_TABLES = range(14710, 14710 + 1 + uplink_numbers.LIMIT)
HOME = 0
"""In place of such a slot: packets that others hand to us, and that go over our own link."""
HOME_PRIORITY = 14570
"""Of the rule for those; the next one has them go nowhere else."""


def mark(slot: int) -> int:
    """What packets are marked with that are to go over the line of this slot."""
    return slot << 24


def table(slot: int) -> int:
    """The table with the ways over a line."""
    return TABLES[slot - 1]


def priority(slot: int) -> int:
    """Of the rule that leads there."""
    return PRIORITIES[slot - 1]


def handed_mark(slot: int) -> int:
    """What packets are marked with that are to go by the line of this slot of their destination, or HOME."""
    return (HANDED | slot) << 24


def handed_table(slot: int) -> int:
    """The table with the ways there."""
    return HANDED_TABLES[slot]


def handed_priority(slot: int) -> int:
    """Of the rule that leads there."""
    return HOME_PRIORITY if slot == HOME else HOME_PRIORITY + 1 + slot
