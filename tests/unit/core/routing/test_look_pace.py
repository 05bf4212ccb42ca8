"""Looks are as frequent as they are wanted to be for a moment, and twenty a second in the long run."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.routing.look_pace import AT_ONCE, LOOKS, RECOVERY, LookPace

SOON = 0.01


def looks(pace: LookPace, begin: float, end: float, *, wanted: float = SOON, dying: bool = False) -> list[float]:
    """When there are looks."""
    found, now = [], begin
    while now < end:
        pace.looked(now)
        found.append(now)
        now += pace.pause(wanted, dying=dying)
    return found


def test_there_are_looks_enough_at_once_for_a_link_that_dies_even_while_others_want_them_all() -> None:
    pace = LookPace()
    assert len(looks(pace, 100, 160)) / 60 == pytest.approx(LOOKS, rel=0.05)
    assert len(looks(pace, 160, 160.4, wanted=0.026, dying=True)) == pytest.approx(0.4 / 0.026, abs=1)


def test_what_was_left_for_that_comes_back() -> None:
    pace = LookPace()
    looks(pace, 100, 110, dying=True)
    after = looks(pace, 110, 120)
    assert max(b - a for a, b in pairwise(after)) <= RECOVERY + 0.001
    assert len(looks(pace, 120, 120.4, wanted=0.026, dying=True)) == pytest.approx(0.4 / 0.026, abs=1)


@given(st.lists(st.tuples(st.floats(0.001, 0.3), st.booleans()), max_size=300))
def test_whatever_is_wanted_there_are_never_more(wanted: list[tuple[float, bool]]) -> None:
    pace, now, begin = LookPace(), 100.0, 100.0
    for count, (pause, dying) in enumerate(wanted, 1):
        pace.looked(now)
        assert count <= AT_ONCE + LOOKS * (now - begin) + 1
        waits = pace.pause(pause, dying=dying)
        assert pause <= waits <= max(pause, RECOVERY)
        now += waits
