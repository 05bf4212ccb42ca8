"""What became of the last echo requests on a link, and whether its losses are its own.

Where a firewall has one limit of echo requests for all neighbours, or all goes over one bad line, answers are missing
on all links that are asked: then those of one link say nothing of it. So others have to bear witness: they were asked
at the same time, and have lost much less.
"""

from __future__ import annotations

from collections.abc import Iterable

KEPT = 200
"""Requests of a link."""
ENOUGH = 5
"""Requests at least that say what a link loses."""
MUCH = 0.4
"""So large a part of what the link in question loses is much."""


class Outcomes:
    """Of one link."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[float, bool]] = {}
        """By number: when the request went, and whether it was lost."""

    def note(self, number: int, moment: float, *, lost: bool) -> None:
        """A request that went at a moment was answered, or lost; also if the answer was just late."""
        self._found[number] = moment, lost
        if len(self._found) > KEPT:
            del self._found[next(iter(self._found))]

    def lost_since(self, moment: float) -> float | None:
        """Which part was lost of those that went since; None where too few say so."""
        since = [lost for sent, lost in self._found.values() if sent >= moment]
        return sum(since) / len(since) if len(since) >= ENOUGH else None


def are_its_own(link: Outcomes, others: Iterable[Outcomes], since: float) -> bool | None:
    """Whether the losses of a link since a moment are its own; None where no other link bears witness."""
    mine = link.lost_since(since)
    shares = [share for each in others if (share := each.lost_since(since)) is not None]
    if mine is None or not shares:
        return None
    return 2 * sum(share >= MUCH * mine for share in shares) <= len(shares)
