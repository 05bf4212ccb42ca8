"""How often a program may be started again for one reason, which others can cause again and again."""

from __future__ import annotations


class Restarts:
    """At once the first time; then after a pause that doubles with each restart, from `first` to `last` seconds."""

    def __init__(self, first: float, last: float) -> None:
        self._first = first
        self._last = last
        self._pause = first
        self._at = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until the next one is allowed; 0 if it is now."""
        return max(0.0, self._at + self._pause - now)

    def note(self, now: float) -> None:
        """It is started again now."""
        self._at, self._pause = now, min(2 * self._pause, self._last)

    def rest(self, now: float) -> None:
        """There is no reason now. After a whole pause without one, the pauses are short again."""
        if now - self._at > self._pause:
            self._pause = self._first
