"""What a link costs in the throughput plane: by its capacity, in steps of a factor of two (docs/decisions.md).

The end that opened a tunnel says its cost. The interface of a server has many peers behind it, and babel one cost for
each interface: there it is NEUTRAL. With `link-quality`, babel multiplies the costs that the two ends say and divides
by 256, so that the cost of such a link is what its opener says, both ways.

What a link carries is known by what the operator says of the line that it goes over, else by measuring it (a short
train of packets), or by what has passed, which is the least that it carries. A measured capacity varies, and each
change of a cost moves routes: so the class of a link changes only where the capacity is clearly in another one, and
not again for some minutes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

NEUTRAL = 256
"""The cost that leaves that of the other end as it is; and that of a link of FASTEST."""
FASTEST = 1000.0
"""Mbit/s in the first class, and more."""
CLASSES = 7
"""In the last one are all links of 16 Mbit/s and less: three hops of it are still a way (babel's infinity is 65535)."""
UNKNOWN = 3
"""The class of a link that was not measured: 125 Mbit/s."""
CLEARLY = 0.75
"""How many classes the capacity must be away from the middle of the class of now."""
HOLD = 300.0
"""Seconds between two changes of the class of a link."""
PASSED_FOR = 3600.0
"""Seconds for which counts what has passed."""

Link = TypeVar("Link", bound=Hashable)


def place(mbits: float) -> float:
    """Where a capacity in Mbit/s is among the classes; whole numbers are their middles."""
    return min(max(math.log2(FASTEST / max(mbits, 1.0)), 0.0), CLASSES - 1.0)


def class_of(mbits: float) -> int:
    """The class of a capacity in Mbit/s: 0 is the fastest."""
    return round(place(mbits))


def cost(capacity_class: int) -> int:
    """What a link of this class costs."""
    return NEUTRAL << capacity_class


def mbits(capacity_class: int) -> float:
    """The middle of a class, in Mbit/s."""
    return FASTEST / (1 << capacity_class)


@dataclass(slots=True)
class _KnownLink:
    said: float | None = None
    """Mbit/s, by the operator."""
    measured: float | None = None
    """Mbit/s, by the last train."""
    passed: float = 0.0
    """The most Mbit/s that went by it lately, and when."""
    passed_at: float = 0.0
    current: int | None = None
    changed: float = float("-inf")

    def capacity(self, now: float) -> float | None:
        """The best guess in Mbit/s; None where nothing is known."""
        if self.said is not None:
            return self.said
        passed = self.passed if now - self.passed_at < PASSED_FOR else 0.0
        if self.measured is not None:
            return max(self.measured, passed)
        # What has passed says only that the link is no slower.
        return passed if place(passed) < UNKNOWN - CLEARLY else None


class Capacities(Generic[Link]):
    """Those of the links of one node. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._links: dict[Link, _KnownLink] = {}

    def follow(self, links: Iterable[Link]) -> None:
        """These are the links that there are. Others are forgotten."""
        self._links = {link: self._links.get(link) or _KnownLink() for link in links}

    def said(self, link: Link, mbits: float | None) -> None:
        """The operator says what the line of a link carries, in Mbit/s; None: nothing."""
        if link in self._links:
            self._links[link].said = mbits

    def measured(self, link: Link, mbits: float) -> None:
        """A train of packets has shown the capacity of a link, in Mbit/s."""
        if link in self._links:
            self._links[link].measured = mbits

    def passed(self, link: Link, mbits: float, now: float) -> None:
        """So much went by a link for a second or longer, in Mbit/s, in one direction."""
        if (known := self._links.get(link)) is not None and (
            mbits >= known.passed or now - known.passed_at >= PASSED_FOR
        ):
            known.passed, known.passed_at = mbits, now

    def of(self, link: Link, now: float) -> float | None:
        """What is known of a link, in Mbit/s; None for nothing."""
        known = self._links.get(link)
        return None if known is None else known.capacity(now)

    def classes(self, now: float) -> Mapping[Link, int]:
        """The class of each link that something is known of."""
        for known in self._links.values():
            capacity = known.capacity(now)
            if capacity is None:
                continue
            moved = known.current is None or abs(place(capacity) - known.current) >= CLEARLY
            if moved and now - known.changed >= HOLD:
                known.current, known.changed = class_of(capacity), now
        return {link: known.current for link, known in self._links.items() if known.current is not None}
