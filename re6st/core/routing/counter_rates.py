"""What counters of bytes say of the time since they were read before."""

from __future__ import annotations

from collections.abc import Mapping


class CounterRates:
    """Times are in seconds, by a clock that the caller reads."""

    def __init__(self) -> None:
        self._before: tuple[float, Mapping[str, int]] | None = None

    def begin(self, now: float) -> None:
        """All of them are new, and count from zero."""
        self._before = now, {}

    def forget(self) -> None:
        """What was read does not count any more."""
        self._before = None

    def read(self, counted: Mapping[str, int], now: float) -> dict[str, float] | None:
        """By name what was counted since, in Mbit/s; None where that is not known yet."""
        before, self._before = self._before, (now, counted)
        if before is None or now <= before[0]:
            return None
        seconds = now - before[0]
        return {name: 8 * max(0, count - before[1].get(name, 0)) / seconds / 1e6 for name, count in counted.items()}
