"""What is said about a certificate that ends soon: in the log, if its renewal has failed, and in the verdict."""

from __future__ import annotations

from dataclasses import dataclass

DAY = 86400.0
THRESHOLDS = (30, 14, 7, 3, 1, 0)
"""A warning is due so many days before the end; renewal begins at the first of them."""
SERIOUS = 3
"""From so many days before the end on, the warning is an error."""

OURS, AUTHORITY = "our certificate", "the CA certificate"


def expires(what: str, left: float) -> str:
    """Says that a certificate has `left` seconds."""
    if left < 0:
        return f"{what} has expired"
    return f"{what} expires in {left / DAY:.0f} days" if left >= 1.5 * DAY else f"{what} expires in {left / 3600:.0f} h"


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the log."""

    text: str
    serious: bool


class Expiry:
    """Remembers what was said, so that each threshold is reported once; for another certificate, it begins again."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, int]] = {}
        """By certificate: its end, and the last threshold that was reported."""

    def notice(self, what: str, until: float, now: float) -> Notice | None:
        """What has to be said about a certificate whose renewal has failed; times are Unix times."""
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
