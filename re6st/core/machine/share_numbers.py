"""The kernel's numbers for what a node sends over one of its lines by choice: marks, tables and rules.

The bits of these marks are neither those of uplinks (uplink_numbers.py) nor those of planes (core/routing/planes.py). A
rule looks at them only where a packet comes from the node's own subnet, and stays inside the network.
"""

from __future__ import annotations

from re6st.core.machine import uplink_numbers

MASK = 0x0F000000
"""The bits of a mark that count."""
TABLES = range(14701, 14701 + uplink_numbers.LIMIT)
"""No babeld can have these, as it takes 255 at most."""
PRIORITIES = range(14561, 14561 + uplink_numbers.LIMIT)
"""Of the rules: after those of planes, and before those of uplinks, whose tables lead out of the network."""


def mark(slot: int) -> int:
    """What packets are marked with that are to go over the line of this slot."""
    return slot << 24


def table(slot: int) -> int:
    """The table with the ways over a line."""
    return TABLES[slot - 1]


def priority(slot: int) -> int:
    """Of the rule that leads there."""
    return PRIORITIES[slot - 1]
