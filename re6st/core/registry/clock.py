"""Decides which time the registry trusts: a wrong clock must neither drop certificates nor date new ones.

Two times are kept across restarts. `trusted` has surely passed: it grows only while the registry runs, with the
monotonic clock, and never beyond the wall clock. So it is never ahead of the real time, and is behind it by the time
for which the registry was off. What ended before it has really ended, so it alone decides what is dropped. `seen` is
the last plausible reading of the wall clock. A wall clock that is far ahead of it, or behind the trusted time, is
wrong, and the registry dates nothing by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from re6st.core.words import duration

SLACK = 3600.0
"""The wall clock may be set back by so many seconds."""
AHEAD_LIMIT = 90 * 86400.0
"""A registry may have been off, or asleep, for so many seconds. If it was away for longer, no certificate could be
renewed, and a person should look at the network anyway.
"""
NEWEST_AGE = 365 * 86400.0
"""Seconds after which the newest certificate has ended, and the network with it (wire.md 2.2)."""


SKEW_WARNING = 60.0
"""From this difference in seconds on, a node reports that its clock and the registry's differ. Half a minute each way
is usual where clocks are not synchronised, and an hour is too much (cert.BACKDATED).
"""


def skew(ahead: float) -> str:
    """Says how a node's clock differs from the registry's, which is `ahead` of it by so many seconds."""
    return f"the clock here is {duration(abs(ahead))} {'behind' if ahead > 0 else 'ahead of'} the registry's"


class ClockError(Exception):
    """The clock is wrong; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Unix times that are kept."""

    trusted: float
    seen: float


class TrustedClock:
    def __init__(self, marks: Marks, monotonic: float) -> None:
        self._trusted, self._seen = marks.trusted, marks.seen
        self._monotonic = monotonic

    @property
    def trusted(self) -> float:
        """A Unix time that has surely passed."""
        return self._trusted

    @property
    def marks(self) -> Marks:
        """The times to keep across a restart."""
        return Marks(self._trusted, self._seen)

    def advance(self, wall: float, monotonic: float) -> None:
        """The wall clock says `wall`. Raises ClockError if that cannot be."""
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
    """The times with which a registry starts, from those that it kept and the date of the newest certificate.

    Another program may have issued this certificate since; without kept times it is all that is known.
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
