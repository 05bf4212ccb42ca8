"""Which time the registry believes: a wrong clock moves nothing, time that really passed does."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.registry.clock import AHEAD_LIMIT, NEWEST_AGE, SLACK, ClockError, Marks, TrustedClock, first_marks

NOW = 1811808000.0
HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY


def test_time_passes() -> None:
    clock = TrustedClock(Marks(NOW, NOW), 5.0)
    clock.advance(NOW + DAY, 5.0 + DAY)
    assert clock.marks == Marks(NOW + DAY, NOW + DAY)


@pytest.mark.parametrize(("jump", "says"), [(YEAR, "only a moment ago"), (-YEAR, "already"), (1e18, "moment ago")])
def test_a_jump_is_refused_until_it_is_over(jump: float, says: str) -> None:
    clock = TrustedClock(Marks(NOW, NOW), 0.0)
    for hours in range(1, 100):
        with pytest.raises(ClockError, match=says):
            clock.advance(NOW + hours * HOUR + jump, hours * HOUR)
        assert clock.trusted == NOW
    clock.advance(NOW + 100 * HOUR, 100 * HOUR)
    assert clock.marks.seen == NOW + 100 * HOUR


def test_small_steps_are_taken() -> None:
    clock = TrustedClock(Marks(NOW, NOW), 0.0)
    clock.advance(NOW - SLACK + 1, 0.0)
    assert clock.trusted == NOW
    clock.advance(NOW + DAY, 0.0)
    assert clock.trusted == NOW, "the wall clock alone does not move it"


def test_time_off_does_not_count() -> None:
    clock = TrustedClock(Marks(NOW, NOW), 0.0)
    clock.advance(NOW + 80 * DAY, 0.0)
    clock.advance(NOW + 120 * DAY, 40 * DAY)
    assert clock.marks == Marks(NOW + 40 * DAY, NOW + 120 * DAY)


steps = st.lists(
    st.tuples(st.floats(0, 10 * DAY), st.floats(-10 * YEAR, 10 * YEAR) | st.floats(-DAY, DAY) | st.just(0.0))
)


@given(steps)
def test_the_trusted_time_is_never_ahead_and_the_right_time_never_refused(
    steps: list[tuple[float, float]],
) -> None:
    clock = TrustedClock(Marks(NOW, NOW), 0.0)
    passed = 0.0
    for duration, wrong in steps:
        passed += duration
        before = clock.trusted
        try:
            clock.advance(NOW + passed + wrong, passed)
        except ClockError:
            assert wrong != 0.0
        assert before <= clock.trusted <= NOW + passed + 0.001


def test_what_a_registry_begins_with() -> None:
    assert first_marks(None, None, NOW) == Marks(NOW, NOW), "a new one"
    assert first_marks(None, NOW - DAY, NOW) == Marks(NOW - DAY, NOW), "the newest certificate is a day old"
    assert first_marks(None, NOW + DAY, NOW).trusted == NOW + DAY, "issued tomorrow: the clock is behind"
    assert first_marks(None, NOW - NEWEST_AGE - 1, NOW).seen < NOW - AHEAD_LIMIT, "all ended: the clock is ahead"
    kept = Marks(NOW - YEAR, NOW - YEAR)
    assert first_marks(kept, None, NOW) == kept
    assert first_marks(kept, NOW, NOW) == Marks(NOW - YEAR, NOW), "another registry has issued one since"


@given(st.floats(allow_nan=False))
def test_any_reading_of_the_clock_can_be_told(wall: float) -> None:
    with suppress(ClockError):
        TrustedClock(Marks(NOW, NOW), 0.0).advance(wall, 0.0)
