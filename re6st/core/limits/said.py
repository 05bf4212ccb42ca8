"""Remembers which faults were logged: a fault that comes and goes is logged once, and again only after it was away for
a while.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable

FORGET = 60.0
"""After so many seconds without it, a fault counts as new. Some programs cause the same fault again every few seconds.
"""

LIMIT = 1000
"""Of so many it is known what was said of them last."""


class LastWords:
    """Remembers what was said last of each of many."""

    def __init__(self) -> None:
        self._last: dict[Hashable, str] = {}

    def are_new(self, of: Hashable, text: str) -> bool:
        """Whether something else was said of this one before; now it is this."""
        before = self._last.pop(of, None)
        self._last[of] = text
        if len(self._last) > LIMIT:
            del self._last[next(iter(self._last))]
        return before != text


class Said:
    """Remembers the texts of faults."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def news(self, texts: Collection[str], now: float) -> list[str]:
        """Those of the present faults that have not been logged yet. `now` is in seconds."""
        self._last = {text: last for text, last in self._last.items() if now - last < FORGET}
        found = [text for text in dict.fromkeys(texts) if text not in self._last]
        self._last.update(dict.fromkeys(texts, now))
        return found
