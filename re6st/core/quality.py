"""What our tunnels have been like lately: averages of what babel measures on them.

One missed hello doubles a cost at once, half of which is gone with the next one, so single figures say little.
"""

from __future__ import annotations

from dataclasses import dataclass

HALF_LIFE = 20.0
"""Seconds after which a figure counts half in the averages."""


@dataclass(slots=True)
class Quality:
    """Of one tunnel: averages of babel's cost, and of the round trip in milliseconds, both None until measured."""

    cost: float | None = None
    rtt: float | None = None
    best: float = float("inf")
    """The lowest average cost so far."""
    _noted: float = 0.0

    def note(self, cost: int, rtt: float | None, now: float) -> None:
        """Take in what babel says now, in seconds of the caller's clock."""
        weight = 0.5 ** (max(0.0, now - self._noted) / HALF_LIFE)
        self._noted = now
        self.cost = _average(self.cost, cost, weight)
        self.best = min(self.best, self.cost)
        if rtt is not None:
            self.rtt = _average(self.rtt, rtt, weight)

    @property
    def worsened(self) -> float:
        """How many times its best the cost is now."""
        return 1.0 if self.cost is None else self.cost / self.best


def _average(old: float | None, new: float, weight: float) -> float:
    return new if old is None else weight * old + (1 - weight) * new
