"""A program that others have started again and again: at once, then ever less often, and at once after a quiet time."""

from __future__ import annotations

import itertools

from re6st.core.limits.restarts import Restarts


def test_the_first_restart_is_at_once_and_the_others_come_ever_less_often() -> None:
    restarts, now, starts = Restarts(5, 60), 100.0, []
    for _ in range(6):
        now += restarts.wait(now)
        restarts.note(now)
        starts.append(now)
    assert [after - before for before, after in itertools.pairwise(starts)] == [10, 20, 40, 60, 60]


def test_after_a_pause_without_a_reason_the_pauses_are_short_again() -> None:
    restarts = Restarts(5, 60)
    for now in (0, 10, 30):
        assert restarts.wait(now) == 0
        restarts.note(now)
    restarts.rest(60)
    assert restarts.wait(60) == 10, "it is not over yet"
    restarts.rest(71)
    restarts.note(71)
    assert restarts.wait(71) == 10
