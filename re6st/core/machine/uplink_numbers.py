"""The kernel's numbers for uplinks: the mark of what goes by each, its table, and the rules that lead there.

Each uplink has a slot, from 1 on. Seven bits of a mark count, the lower four of which are zero: so neither the bits of
the planes (core/routing/planes.py) nor those of Kubernetes, published ports of containers, Calico, Cilium, Tailscale
and AWS (0x80) say anything here, and the numbers of wg-quick (0xca6c), of Mullvad (0x6d6f6c65) and those that people
choose (1, 2, 3, 100) are none of ours.
"""

from __future__ import annotations

LIMIT = 7
"""Uplinks of one machine."""
MASK = 0x7F
"""The bits of a mark that count."""
SLOTS = range(1, LIMIT + 1)
TABLES = range(14601, 14601 + LIMIT)
"""No babeld can have these: it takes 255 at most."""
MARK_PRIORITY, SOURCE_PRIORITY = 14600, 14620
"""Of rules by mark, and of those by address: after the planes' rules, which are for packets inside a network, and
before the main table's. Each slot has two of each."""
PRIORITIES = range(MARK_PRIORITY, SOURCE_PRIORITY + 2 * LIMIT + 2)


def mark(slot: int) -> int:
    """What packets are marked with that go by an uplink."""
    return slot << 4


def slot_of(mark: int) -> int | None:
    """The inverse; None for a mark that is none of ours."""
    return (mark & MASK) >> 4 if not mark & 0x0F and mark & MASK else None


def table(slot: int) -> int:
    """The table with the default routes of an uplink."""
    return TABLES[slot - 1]
