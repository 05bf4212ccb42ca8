"""The phases of a client tunnel, and which may follow which (wire.md 10.7).

    OPENING --> UP --> DRAINING --> ASKED --> CLOSING
                ^          |          |
                +----------+----------+

From every phase CLOSING may follow at once: nobody is met on the tunnel, or it may not be. A tunnel begins as OPENING,
or as UP where an earlier daemon left it; it ends in any phase, as its end is not ours to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Phase(Enum):
    """Life of a client tunnel."""

    OPENING = "opening"
    UP = "up"
    DRAINING = "draining"
    """Routes are moving away."""
    ASKED = "asked"
    """Nothing goes through it any more; the peer was asked."""
    CLOSING = "closing"


CHANGES: Mapping[Phase, frozenset[Phase]] = {
    Phase.OPENING: frozenset({Phase.UP, Phase.CLOSING}),
    Phase.UP: frozenset({Phase.DRAINING, Phase.CLOSING}),
    Phase.DRAINING: frozenset({Phase.ASKED, Phase.UP, Phase.CLOSING}),
    Phase.ASKED: frozenset({Phase.UP, Phase.CLOSING}),
    Phase.CLOSING: frozenset(),
}
"""Which phases may follow each."""


class IllegalChange(Exception):
    """A phase that must not follow the one that a tunnel is in: a mistake of the policy."""


def check(before: Phase, after: Phase) -> None:
    """Raises IllegalChange if a phase must not follow another one."""
    if after not in CHANGES[before]:
        raise IllegalChange(f"a tunnel that is {before.value} cannot become {after.value}")
