"""When to ask babeld for its table again: the larger it is, the less often, but soon after something has happened.

To write and to read an entry takes some microseconds of a core, at babeld and at the daemon together. So a large table
is read so often that this takes a small share of a core. What the kernel tells of routes and interfaces is news: then
the table is read at once, and again after pauses that double, for what comes of it later. These dumps have a share of
their own, which may be saved up, so that a network in which routes change all the time costs little more than both.
"""

from __future__ import annotations

ENTRY_COST = 5e-6
"""Seconds of a core for an entry: 3 of babeld's, 2 of the daemon's."""
CALM_SHARE, NEWS_SHARE = 0.001, 0.005
"""Of a core, for dumps without news, and for those after news."""
FIRST, LAST = 1.0, 10.0
"""Seconds between two dumps without news, at least and at most."""
GAP, LOAD = 0.1, 0.1
"""Seconds between two dumps after news, at least, and the share of a core that they may take for a moment."""
SAVED = 8
"""Dumps after news for which the share may be saved up."""
NEWS_LAST = 3.0
"""Seconds between two dumps after news, at most, whatever their share: tunnels that babel hears nobody on are closed
after some seconds. As long as one takes no more than the share for a moment.
"""


class DumpPace:
    """Times are those of a clock that only goes forward, in seconds. The first dump is just over."""

    def __init__(self, entries: int, now: float) -> None:
        self._ended = now
        self._count(entries)
        self._pause, self._credit = self._calm, SAVED * self._cost
        self._due = now + self._pause

    @property
    def due(self) -> float:
        """When the next one begins."""
        return self._due

    def news(self, now: float) -> None:
        """Something has happened."""
        self._pause = self._gap
        self._plan(now)

    def dumped(self, entries: int, now: float) -> None:
        """A dump of so many entries is over. What happened since it began is told after this."""
        hurried = self._pause < self._calm
        passed, self._ended = now - self._ended, now
        self._count(entries)
        self._credit = min(self._credit + passed * NEWS_SHARE, SAVED * self._cost) - (self._cost if hurried else 0.0)
        self._pause = min(2 * self._pause, self._calm) if hurried else self._calm
        self._plan(now)

    def _plan(self, now: float) -> None:
        """One that the share does not pay for waits until it does, but not for long."""
        pause = self._pause
        if pause < self._calm:
            paid = (self._cost - self._credit) / NEWS_SHARE
            pause = max(pause, min(paid, NEWS_LAST, self._calm))
        self._due = max(now, self._ended + pause)

    def _count(self, entries: int) -> None:
        self._cost = entries * ENTRY_COST
        self._calm = min(max(FIRST, self._cost / CALM_SHARE), LAST)
        self._gap = max(GAP, self._cost / LOAD)
