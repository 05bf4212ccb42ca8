"""What a link carries, by when packets arrive that were sent at once; and that this is asked seldom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.routing.packet_train import (
    AGAIN,
    AT_ONCE,
    BYTES,
    EVERY,
    FEW,
    KEPT,
    LASTS,
    MANY,
    ON_THE_LINK,
    SLOW,
    STRETCH,
    TrainSchedule,
    pace,
    pace_of_few,
    pace_of_train,
)

DAY = 86400.0


def train(mbits: float, count: int = MANY, rtt: float = 0.0, window: int = 10) -> list[float]:
    """When packets arrive by a link that carries so much; over TCP, which begins with so many, in so long a trip."""
    came, now, room = [], 0.0, window
    for number in range(count):
        if rtt and number == room:
            now, window = now + rtt, 2 * window
            room += window
        now += 8 * ON_THE_LINK / mbits / 1e6
        came.append(now)
    return came


@pytest.mark.parametrize("mbits", [1, 10, 100, 1000])
def test_packets_that_were_sent_at_once_are_as_far_apart_as_the_link_is_slow(mbits: float) -> None:
    assert pace_of_train(train(mbits)) == pytest.approx(mbits)
    assert pace_of_few(train(mbits, FEW)) == pytest.approx(mbits)


def test_over_tcp_what_waits_for_a_round_trip_does_not_count() -> None:
    assert pace_of_train(train(500, rtt=0.06)) == pytest.approx(500)
    assert pace_of_few(train(500, FEW, rtt=0.06)) == pytest.approx(500)


def test_a_few_packets_that_came_all_at_once_do_not_count() -> None:
    """A machine that had no time for them gets what had waited."""
    came = train(10)
    assert pace_of_train([*came[:50], *([came[70]] * 20), *came[70:]]) == pytest.approx(10, rel=0.5)


def test_where_too_little_came_back_nothing_is_known() -> None:
    assert pace_of_train(train(100)[:STRETCH]) is None
    assert pace_of_few(train(100, FEW)[: FEW // 2 - 1]) is None
    assert pace([], 8) is None


def test_a_slow_line_that_drops_what_its_queue_does_not_hold_is_known_all_the_same() -> None:
    """Of 128 packets at once, a line of 4 Mbit/s with room for 60 kB lets 48 pass."""
    assert pace_of_train(train(4)[: STRETCH * 2]) == pytest.approx(4)


@given(st.lists(st.floats(0, 10), max_size=200))
def test_whatever_comes_there_is_an_answer(came: list[float]) -> None:
    for found in (pace_of_few(came), pace_of_train(came)):
        assert found is None or found > 0


def test_what_is_measured_in_a_day_is_bounded() -> None:
    schedule: TrainSchedule[int] = TrainSchedule()
    now, count, peers = 0.0, 0, 0
    while now < DAY:
        peers += 1
        peer = schedule.due([peers], now)  # always a new one
        if peer is not None:
            schedule.note(peer, 100.0, now)
            count += 1
        now += 60
    assert count <= AT_ONCE + DAY / EVERY == 60
    assert count * BYTES < 21e6


def test_a_link_is_measured_seldom_and_sooner_where_that_failed() -> None:
    schedule: TrainSchedule[str] = TrainSchedule()
    assert schedule.due(["a"], 0) == "a"
    schedule.note("a", None, 0)
    assert schedule.known("a", 1) is None
    assert schedule.due(["a"], AGAIN - 1) is None
    assert schedule.due(["a"], AGAIN) == "a"
    schedule.note("a", 50.0, AGAIN)
    assert schedule.known("a", AGAIN + 1) == 50.0
    assert schedule.due(["a", "b"], AGAIN + LASTS) == "b", "who was never asked is the first"
    schedule.note("b", SLOW, AGAIN + LASTS)
    assert schedule.due(["a", "b"], AGAIN + LASTS) == "a"
    schedule.note("a", None, AGAIN + LASTS)
    assert schedule.known("a", AGAIN + LASTS) == 50.0
    assert schedule.due(["a"], 2 * AGAIN + LASTS - 1) is None
    assert schedule.due(["a"], 2 * AGAIN + LASTS) == "a"
    assert schedule.due([], 0) is None


def test_not_everybody_is_remembered() -> None:
    schedule: TrainSchedule[int] = TrainSchedule()
    for peer in range(2 * KEPT):
        schedule.note(peer, 1.0, 0)
    assert len(schedule.measured) == KEPT
    assert schedule.known(0, 1) is None
