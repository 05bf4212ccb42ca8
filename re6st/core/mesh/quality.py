"""What a tunnel has been like lately: averages of what babel measures on it, and how they compare with its best.

Single figures say little: one missed hello doubles a cost at once, and half of that is gone with the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HALF_LIFE = 20.0
"""Seconds after which a figure counts half in an average."""
COST_CLIP, LOSS_CLIP = 9.0, 4.5
"""Figures count at most so many times the best: a moment in which nothing got through is no lasting fault."""


@dataclass(slots=True)
class Average:
    """Recent figures count more. None until there was one."""

    clip: float
    value: float | None = None
    best: float = float("inf")
    """The lowest average so far."""
    _noted: float = 0.0

    def note(self, figure: float, now: float) -> None:
        """Take in what it is now, in seconds of the caller's clock."""
        weight = 0.5 ** (max(0.0, now - self._noted) / HALF_LIFE)
        self._noted = now
        figure = min(figure, self.clip * self.best)
        self.value = figure if self.value is None else weight * self.value + (1 - weight) * figure
        self.best = min(self.best, self.value)

    def ratio(self, figure: float | None) -> float:
        """How many times the best a single figure is, where there are both."""
        return 1.0 if self.value is None or figure is None else figure / self.best

    @property
    def worsened(self) -> float:
        """How many times its best it is now."""
        return 1.0 if self.value is None else self.value / self.best


@dataclass(slots=True)
class Quality:
    """Of one tunnel: babel's cost, in which the round trip counts most, and transmissions per packet."""

    cost: Average = field(default_factory=lambda: Average(COST_CLIP))
    loss: Average = field(default_factory=lambda: Average(LOSS_CLIP))
