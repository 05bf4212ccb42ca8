"""How often links are looked at: as soon as one of them wants it, but not often for long.

One look serves all links. Each has moments of its own at which something is to be done, so with many links there would
always be another moment. A few looks in quick succession are for a link that dies, or that seems to lose packets.
Where there is always such a link, a look has more to do instead: it sends several requests at once.
"""

from __future__ import annotations

LOOKS, AT_ONCE, RESERVE = 20.0, 40.0, 20.0
"""Looks a second; so many sooner than that; and of these, so many only while a link seems to be dead."""
RECOVERY = 0.06
"""Seconds between two looks at most, as long as fewer of these are left."""


class LookPace:
    """Times are monotonic."""

    def __init__(self) -> None:
        self._left = AT_ONCE
        self._looked = float("inf")

    def looked(self, now: float) -> None:
        """There was a look."""
        self._left = min(AT_ONCE, self._left + max(now - self._looked, 0.0) * LOOKS) - 1
        self._looked = now

    def pause(self, wanted: float, *, dying: bool) -> float:
        """Seconds from a look until the next one, where so many are wanted. `dying`: a link seems to be dead."""
        least = (1 - self._left) / LOOKS if dying else min((1 - self._left + RESERVE) / LOOKS, RECOVERY)
        return max(wanted, least)
