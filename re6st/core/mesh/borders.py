"""Which tunnels may cross the borders of countries (wire.md 10.6)."""

from __future__ import annotations

from collections.abc import Set


def may_meet(one: str, other: str, closed: Set[str]) -> bool:
    """Whether nodes of two countries may have a tunnel: not into nor out of a `closed` one.

    Countries are codes of two capital letters (ISO 3166-1); one that is not known (empty) forbids nothing.
    """
    return not one or not other or one == other or not closed & {one, other}
