"""How often babeld's table is read: what that costs, and how soon something that happened is seen."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.routing.dump_pace import (
    CALM_SHARE,
    ENTRY_COST,
    FIRST,
    GAP,
    LAST,
    LOAD,
    NEWS_LAST,
    NEWS_SHARE,
    SAVED,
    DumpPace,
)


def dumps(entries: int, until: float, news: list[float] | None = None) -> list[float]:
    """When dumps of so many entries begin, each of which takes no time."""
    pace, began, waiting = DumpPace(entries, 0.0), list[float](), sorted(news or [])
    while True:
        while waiting and waiting[0] <= pace.due:
            pace.news(waiting.pop(0))
        if pace.due > until:
            return began
        began.append(pace.due)
        pace.dumped(entries, pace.due)


@pytest.mark.parametrize(("entries", "pause"), [(10, FIRST), (1000, 5.0), (200_000, LAST)])
def test_without_news_a_large_table_is_read_rarely(entries: int, pause: float) -> None:
    assert dumps(entries, 4.5 * pause) == pytest.approx([pause, 2 * pause, 3 * pause, 4 * pause])


def test_news_are_looked_at_soon_and_again_after_pauses_that_double() -> None:
    began = dumps(1500, 160.0, [100.0])
    after = [time - 100.0 for time in began if time >= 100.0]
    gap = max(GAP, 1500 * ENTRY_COST / LOAD)
    assert after[0] <= gap
    pauses = [after[0], *(late - early for early, late in pairwise(after))]
    assert pauses[1:5] == pytest.approx([2 * gap, 4 * gap, 8 * gap, 16 * gap])
    assert max(pauses) == pytest.approx(7.5)


def test_a_small_table_is_read_a_tenth_of_a_second_after_news() -> None:
    began = dumps(20, 101.0, [100.01])
    assert next(time for time in began if time >= 100.01) <= 100.01 + GAP


@given(st.integers(1, 100_000), st.lists(st.floats(0, 600), max_size=300).map(sorted))
def test_however_much_happens_dumps_take_no_more_than_their_shares(entries: int, news: list[float]) -> None:
    cost, seconds = entries * ENTRY_COST, 600.0
    began = dumps(entries, seconds, news)
    calm = max(CALM_SHARE * seconds, cost * seconds / LAST)
    hurried = max(NEWS_SHARE * seconds, cost * seconds / NEWS_LAST)
    assert len(began) * cost <= calm + hurried + (SAVED + 2) * cost
    assert all(late - early >= max(GAP, cost / LOAD) - 1e-9 for early, late in pairwise(began))


@given(st.integers(1, 20_000), st.lists(st.floats(0, 600), max_size=50).map(sorted))
def test_all_is_read_within_some_seconds_and_what_happens_within_three(entries: int, news: list[float]) -> None:
    began = [0.0, *dumps(entries, 620.0, news), 620.0]
    assert all(late - early <= LAST + 1e-6 for early, late in pairwise(began))
    assert all(any(moment <= each <= moment + NEWS_LAST for each in began) for moment in news)
