"""Which time the registry believes: a wrong clock must neither drop certificates nor date new ones.

Two marks are kept over restarts. `trusted` is a time that has surely come: it grows only while the registry runs, with
the monotonic clock, and never beyond the wall clock. So it is never ahead of the real time, and behind it by the time
for which the registry was off. What ended before it has ended: it alone decides what is dropped. `seen` is what the
wall clock said last when it was plausible; a wall clock far ahead of it, or behind the trusted time, is wrong, and then
nothing is dated by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from re6st.core.words import duration

SLACK = 3600.0
"""Seconds by which the wall clock may be set back."""
AHEAD_LIMIT = 90 * 86400.0
"""Seconds that a registry may have been off, or asleep. A network whose registry was away for longer could not renew
its certificates, so that a person should look at it anyway."""
NEWEST_AGE = 365 * 86400.0
"""Seconds after which the newest certificate has ended, and with it the network (wire.md 2.2)."""


SKEW_WARNING = 60.0
"""Seconds between a node's clock and the registry's from which on the node says so: half a minute each way is usual
where nothing sets the clocks, and an hour is too much (cert.BACKDATED)."""


def skew(ahead: float) -> str:
    """How a node's clock differs from the registry's, which is so many seconds `ahead` of it, in words."""
    return f"the clock here is {duration(abs(ahead))} {'behind' if ahead > 0 else 'ahead of'} the registry's"


class ClockError(Exception):
    """The clock is wrong; text for the user."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Unix times."""

    trusted: float
    seen: float


class Clock:
    def __init__(self, marks: Marks, monotonic: float) -> None:
        self._trusted, self._seen = marks.trusted, marks.seen
        self._monotonic = monotonic

    @property
    def trusted(self) -> float:
        """Unix time that has surely come."""
        return self._trusted

    @property
    def marks(self) -> Marks:
        """What to keep over a restart."""
        return Marks(self._trusted, self._seen)

    def advance(self, wall: float, monotonic: float) -> None:
        """It is `wall` now by the clock. Raises ClockError if that cannot be."""
        passed = max(0.0, monotonic - self._monotonic)
        self._monotonic = monotonic
        expected = self._seen + passed
        if wall < self._trusted - SLACK:
            self._seen = max(expected, self._trusted)
            raise ClockError(f"the clock says {_text(wall)}, but it was {_text(self._trusted)} already")
        if wall > expected + AHEAD_LIMIT:
            self._seen = expected
            raise ClockError(f"the clock says {_text(wall)}, but it was {_text(expected)} only a moment ago")
        self._seen = wall
        self._trusted = max(self._trusted, min(wall, self._trusted + passed))


def first_marks(kept: Marks | None, newest: float | None, wall: float) -> Marks:
    """What a registry begins with: the marks that it kept, and when the newest certificate was issued.

    Another program may have issued that one since; without marks it is all that is known.
    """
    if kept is not None:
        return Marks(kept.trusted, max(kept.seen, newest or kept.seen))
    if newest is None:
        return Marks(wall, wall)
    return Marks(newest, newest if wall > newest + NEWEST_AGE else max(wall, newest))


def _text(when: float) -> str:
    try:
        return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%MZ}"
    except (ValueError, OverflowError, OSError):
        return f"{when:.0f} s after 1970"
