"""The clock of a simulation, and what is to happen when."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

LOOK_EVERY = 1.0
"""Seconds between two looks at the whole, at least."""


class Engine:
    """Does what is due, in order; what is due at one moment in the order in which it was asked for."""

    def __init__(self, now: float) -> None:
        self.now = now
        """Seconds, by a clock that nobody sets."""
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def monotonic(self) -> float:
        """As in the module `time`, whose place the engine takes for what it simulates."""
        return self.now

    def time(self) -> float:
        """As in the module `time`: the wall clock is the other one."""
        return self.now

    def after(self, delay: float, do: Callable[[], None]) -> None:
        """Have something done in so many seconds."""
        heapq.heappush(self._due, (self.now + delay, next(self._order), do))

    def run(self, seconds: float, look: Callable[[], bool]) -> float:
        """Let time pass, at most so long, and `look` every second or so; until that returns true.

        Returns how many seconds it was.
        """
        start, end, next_look = self.now, self.now + seconds, self.now
        while self._due and self._due[0][0] <= end:
            self.now, _, do = heapq.heappop(self._due)
            do()
            if self.now >= next_look:
                next_look = self.now + LOOK_EVERY
                if look():
                    return self.now - start
        self.now = end
        return seconds
