"""The size of a link's packets is found by asking the link, whatever is under it says or does not say."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re6st.core.transport.mtu_probe import (
    ANSWER,
    CONFIRM,
    CONFIRM_IDLE,
    LEAST,
    RAISE,
    SMALL,
    SPARING,
    TRIES,
    WIREGUARD,
    Action,
    MtuProbe,
    Probe,
    ProbeState,
    Unfit,
    UseMtu,
)


class Link:
    """A link that carries packets of up to `carries` bytes, and says nothing of larger ones."""

    def __init__(
        self, carries: int, *, loss: float = 0.0, trip: float = 0.02, seed: int = 0, sizes: tuple[int, ...] = WIREGUARD
    ) -> None:
        self.carries, self.loss, self.trip = carries, loss, trip
        self.silent = False
        """The other end answers nothing."""
        self.now = 100.0
        self.used: list[int] = []
        """The sizes that were told."""
        self.unfit = 0
        self.sent: list[Probe] = []
        self.carried: Callable[[float], int | None] = lambda now: None
        self._random = Random(seed)
        self._answers: list[tuple[float, int]] = []
        self.probe = MtuProbe(sizes, self.now)

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Probe(number, size):
                    self.sent.append(action)
                    if size <= self.carries and not self.silent and self._random.random() >= self.loss:
                        self._answers.append((self.now + self.trip, number))
                case UseMtu(mtu):
                    self.used.append(mtu)
                case Unfit():
                    self.unfit += 1

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self._answers.sort()
            following = min(self.probe.deadline, self._answers[0][0] if self._answers else end)
            if following >= end:
                self.now = end
                return
            self.now = max(self.now, following)
            if self._answers and self._answers[0][0] <= self.now:
                self.do(self.probe.answered(self._answers.pop(0)[1], self.now))
            else:
                self.do(self.probe.tick(self.now, self.carried(self.now)))


@pytest.mark.parametrize(
    ("carries", "mtu"), [(9000, 1420), (1420, 1420), (1412, 1412), (1411, 1380), (1300, 1280), (1280, 1280)]
)
def test_a_new_link_has_the_largest_size_that_passes(carries: int, mtu: int) -> None:
    link = Link(carries)
    link.run(TRIES * ANSWER + 1)
    assert link.probe.mtu == mtu
    assert link.probe.state is ProbeState.CONFIRMED
    assert not link.unfit


def test_until_it_is_known_a_link_has_the_least_size_and_then_the_best_after_one_round_trip() -> None:
    link = Link(1500)
    assert link.probe.mtu == LEAST
    link.run(0.03)
    assert link.probe.mtu == 1420
    assert link.used == [1280, 1380, 1412, 1420][1:]


def test_the_small_one_goes_first_and_a_round_is_bounded() -> None:
    link = Link(1500)
    link.run(0.001)
    assert [each.size for each in link.sent] == [SMALL, 1280, 1380, 1412, 1420]


def test_a_link_that_passes_only_small_packets_is_told_of_once_until_it_is_better() -> None:
    link = Link(1279)
    link.run(1000)
    assert link.unfit == 1
    assert link.probe.mtu == LEAST
    link.carries = 1500
    link.run(RAISE + CONFIRM)
    assert link.probe.mtu == 1420
    link.carries = 1000
    link.run(2 * CONFIRM)
    assert link.unfit == 2


def test_a_path_that_becomes_narrow_without_a_word_is_found_and_one_that_is_wide_again_too() -> None:
    link = Link(1500)
    link.run(50)
    link.carries = 1390
    link.run(CONFIRM + (2 * TRIES + 1) * ANSWER)
    assert link.probe.mtu == 1380
    link.carries = 1500
    link.run(RAISE + CONFIRM + ANSWER)
    assert link.probe.mtu == 1420


def test_a_doubt_is_looked_into_at_once() -> None:
    link = Link(1500)
    link.run(10)
    link.carries = 1300
    link.do(link.probe.doubt(link.now))
    link.run((2 * TRIES + 1) * ANSWER)
    assert link.probe.mtu == 1280


def test_another_path_is_searched_anew() -> None:
    link = Link(1380)
    link.run(10)
    link.carries = 1412
    link.do(link.probe.search(link.now))
    link.run(1)
    assert link.probe.mtu == 1412


def test_what_the_system_knows_of_the_path_counts_at_once_to_the_byte() -> None:
    link = Link(1340)
    link.probe.mtu = 1420
    link.do(link.probe.search(link.now, limit=1340))
    assert link.used == [1340]
    link.run(1)
    assert link.probe.mtu == 1340
    link.do(link.probe.search(link.now, limit=600))
    assert link.probe.mtu == LEAST
    link.do(link.probe.search(link.now, limit=65535))
    assert max(each.size for each in link.sent) == 1420


def test_a_link_on_which_nothing_is_answered_stays_as_it_is() -> None:
    link = Link(1500)
    link.run(10)
    link.silent = True
    link.run(3 * RAISE)
    assert link.probe.mtu == 1420
    assert not link.unfit


def test_a_peer_that_comes_late_is_asked_again_soon() -> None:
    link = Link(1500)
    link.silent = True
    link.run(10)
    assert link.probe.mtu == LEAST
    link.silent = False
    link.run(CONFIRM + ANSWER)
    assert link.probe.mtu == 1420


def test_answers_later_than_a_round_still_count() -> None:
    link = Link(1412, trip=2.5)
    link.run(TRIES * ANSWER + 1)
    assert link.probe.mtu == 1412


def test_what_nobody_was_asked_changes_nothing() -> None:
    link = Link(1300)
    link.run(10)
    for number in (0, -1, 10**9, *(each.number for each in link.sent)):
        assert link.probe.answered(number, link.now) == []
    assert link.probe.mtu == 1280


def test_little_is_sent_on_a_link_that_stays_as_it_is() -> None:
    link = Link(1500)
    link.run(10)
    link.sent.clear()
    link.run(RAISE)
    assert sum(each.size for each in link.sent) / RAISE < 75


@pytest.mark.parametrize(("rate", "within"), [(2 * SPARING / CONFIRM, CONFIRM), (SPARING / CONFIRM / 20, CONFIRM_IDLE)])
def test_a_link_that_carries_much_is_looked_at_often_and_an_idle_one_seldom(rate: float, within: float) -> None:
    link = Link(1500)
    link.carried = lambda now: int(rate * now)
    link.run(50)
    asked = len(link.sent)
    link.run(5 * CONFIRM)
    assert (len(link.sent) > asked) is (within == CONFIRM)
    link.carries = 1390
    link.run(within + (2 * TRIES + 1) * ANSWER)
    assert link.probe.mtu == 1380, "neither swallows large packets for long"


def test_an_idle_link_is_looked_at_once_it_carries_something_or_is_counted_anew() -> None:
    link = Link(1500)
    carried = 10**6
    link.carried = lambda now: carried
    link.run(2 * CONFIRM)
    asked = len(link.sent)
    carried += SPARING
    link.run(CONFIRM + ANSWER)
    assert len(link.sent) == asked + 2
    carried = 5
    link.run(CONFIRM + ANSWER)
    assert len(link.sent) == asked + 4


@given(
    carries=st.integers(500, 2000),
    loss=st.sampled_from([0.0, 0.03, 0.2]),
    trip=st.floats(0.001, 0.9),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_nothing_is_ever_used_that_does_not_pass(carries: int, loss: float, trip: float, seed: int) -> None:
    link = Link(carries, loss=loss, trip=trip, seed=seed)
    link.run(2000)
    assert all(mtu <= max(carries, LEAST) for mtu in link.used)
    assert link.probe.mtu in WIREGUARD
    if not loss:
        assert link.probe.mtu == next((size for size in WIREGUARD if size <= carries), LEAST)


def test_losses_alone_do_not_make_packets_smaller_for_long() -> None:
    link = Link(1500, loss=0.2, seed=3)
    link.run(36_000)
    assert link.used.count(1420) < 30
    assert link.probe.mtu >= 1380
