"""A limit for each of a bounded number of senders: so many at once, then so many a second."""

from __future__ import annotations

from collections import OrderedDict

RATE_KEYS = 4096


class RateLimit:
    """A token bucket for each key: `burst` at once, then `rate` a second."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, key: str, now: float) -> bool:
        """Take one, if the rate allows it."""
        tokens, since = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(self._burst, tokens + max(0.0, now - since) * self._rate)
        allowed = tokens >= 1
        self._buckets[key] = tokens - allowed, now
        if len(self._buckets) > RATE_KEYS:
            self._buckets.popitem(last=False)
        return allowed

    def has(self, key: str, now: float) -> bool:
        """Whether the rate would allow one more."""
        tokens, since = self._buckets.get(key, (float(self._burst), now))
        return tokens + max(0.0, now - since) * self._rate >= 1

    def give_back(self, key: str) -> None:
        """Undo the count of one that was allowed."""
        if key in self._buckets:
            tokens, since = self._buckets[key]
            self._buckets[key] = min(self._burst, tokens + 1), since
