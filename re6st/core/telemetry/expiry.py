"""What is said of a certificate that nears its end: in the log when its renewal has not worked, and in the verdict."""

from __future__ import annotations

from dataclasses import dataclass

DAY = 86400.0
THRESHOLDS = (30, 14, 7, 3, 1, 0)
"""Days before the end at which a word is due; renewal begins with the first."""
SERIOUS = 3
"""Days from which on the word is an error."""

OURS, AUTHORITY = "our certificate", "the CA certificate"


def expires(what: str, left: float) -> str:
    """A certificate with `left` seconds, in words."""
    if left < 0:
        return f"{what} has expired"
    return f"{what} expires in {left / DAY:.0f} days" if left >= 1.5 * DAY else f"{what} expires in {left / 3600:.0f} h"


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the log."""

    text: str
    serious: bool


class Expiry:
    """Remembers what was said, so that each threshold is said once; of another certificate from the beginning."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, int]] = {}
        """By certificate: its end, and the last threshold."""

    def notice(self, what: str, until: float, now: float) -> Notice | None:
        """What there is to say of a certificate whose renewal has not worked; Unix times."""
        left = until - now
        reached = [days for days in THRESHOLDS if left < days * DAY]
        if not reached:
            return None
        threshold = min(reached)
        end, last = self._said.get(what, (until, THRESHOLDS[0] + 1))
        if end == until and threshold >= last:
            return None
        self._said[what] = until, threshold
        return Notice(f"{expires(what, left)} and is not renewed yet", threshold <= SERIOUS)
