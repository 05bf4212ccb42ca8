"""What our tunnels have been like lately: an average of what babel measures on them.

One missed hello doubles a cost at once, half of which is gone with the next one, so single figures say little.
"""

from __future__ import annotations

from dataclasses import dataclass

HALF_LIFE = 20.0
"""Seconds after which a figure counts half in the average."""


@dataclass(slots=True)
class Quality:
    """Of one tunnel: the average of babel's cost, None until it was measured."""

    cost: float | None = None
    best: float = float("inf")
    """The lowest average cost so far."""
    _noted: float = 0.0

    def note(self, cost: int, now: float) -> None:
        """Take in what babel says now, in seconds of the caller's clock."""
        weight = 0.5 ** (max(0.0, now - self._noted) / HALF_LIFE)
        self._noted = now
        self.cost = cost if self.cost is None else weight * self.cost + (1 - weight) * cost
        self.best = min(self.best, self.cost)

    @property
    def worsened(self) -> float:
        """How many times its best the cost is now."""
        return 1.0 if self.cost is None else self.cost / self.best
