"""What was said of faults that come and go: each once, and again only after it was away for a while."""

from __future__ import annotations

from collections.abc import Collection

FORGET = 60.0
"""Seconds without a fault after which it is a new one. Some programs make one again every few seconds."""


class Said:
    """Remembers texts."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def news(self, texts: Collection[str], now: float) -> list[str]:
        """Those of the texts that hold now which were not said yet. `now` in seconds."""
        self._last = {text: last for text, last in self._last.items() if now - last < FORGET}
        found = [text for text in dict.fromkeys(texts) if text not in self._last]
        self._last.update(dict.fromkeys(texts, now))
        return found
