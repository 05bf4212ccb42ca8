"""On which of our links babel meets the peer, by what one babeld after another says. No input, no output.

A babeld that was just started has met nobody yet, and what a large table says may be old: only what babeld knew when
the time was over tells that a link is silent. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Set

LEARNS = 30.0
"""Seconds that a babeld has told what it knows, until it knows how large the network is, and who our neighbours are."""
MEET_TIME, LOST_TIME = 30.0, 3.0
"""Seconds that babel may take to meet the peer on a link, and since it lost it there, until the link is silent."""


class MetLinks:
    """Looks at one table after the other."""

    def __init__(self) -> None:
        self._babeld: int | None = None
        self._since = float("inf")
        """Since when this babeld tells what it knows."""
        self._known_at = float("-inf")
        self._met: set[str] = set()
        """Links on which it has met the peer."""
        self._missed: dict[str, float] = {}
        """Links on which it does not, and since when it says so."""

    def look(self, babeld: int | None, known_at: float, links: Set[str], met: Set[str]) -> None:
        """Take note of the `links` on which a babeld had `met` somebody at a time. Each babeld has another number; None
        while there is none that tells what it knows.
        """
        if babeld != self._babeld:
            self._babeld, self._since = babeld, known_at
            self._met.clear()
            self._missed.clear()
        if babeld is None:
            return
        self._known_at = known_at
        self._met = (self._met | met) & links
        self._missed = {name: self._missed.get(name, known_at) for name in links - met}

    def is_settled(self, now: float) -> bool:
        """Whether there is a babeld that knows the network."""
        return self._babeld is not None and now - self._since >= LEARNS

    def is_silent(self, link: str, up_since: float) -> bool:
        """Whether babel does not meet the peer on a link, though it had the time to."""
        if link not in self._missed:
            return False
        if link in self._met:
            return self._known_at - self._missed[link] >= LOST_TIME
        return self._known_at - max(up_since, self._since) >= MEET_TIME

    def is_lost(self, link: str) -> bool:
        """Whether babel had met the peer on a link, and does not any more."""
        return link in self._missed and link in self._met
