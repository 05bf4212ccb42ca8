"""Connections are spread over the lines once one is full, and none gets less than before."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from re6st.core.routing.spreading import CALM, HOLD, OVERHEAD, RESTS, LineRate, Spreading

STEP = 0.5


class World:
    """Lines that are shared fairly by connections, which take what they get, or a rate of their own.

    Each connection has a bucket of its own, and goes over line 1 if nobody says otherwise.
    """

    def __init__(self, carries: dict[int, float], told: dict[int, float] | None = None, home: int = 1) -> None:
        self.carries = carries
        self.told = carries if told is None else told
        self.wants: dict[int, float] = {}
        self.home = home
        self.spreading = Spreading()
        self.now = 100.0
        self.moves = 0

    def line(self, bucket: int) -> int:
        return self.spreading.placed.get(bucket, self.home)

    def rates(self) -> dict[int, float]:
        """What each connection gets, in Mbit/s inside."""
        found: dict[int, float] = {}
        for line, carries in self.carries.items():
            left, others = (
                carries / OVERHEAD,
                sorted(
                    (bucket for bucket in self.wants if self.line(bucket) == line),
                    key=lambda bucket: self.wants[bucket],
                ),
            )
            for number, bucket in enumerate(others):
                found[bucket] = min(self.wants[bucket], left / (len(others) - number))
                left -= found[bucket]
        return found

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            rates = self.rates()
            load = dict.fromkeys(self.carries, 0.0)
            for bucket, rate in rates.items():
                load[self.line(bucket)] += rate * OVERHEAD
            lines = {slot: LineRate(load[slot], self.told.get(slot)) for slot in self.carries}
            flows = {(self.line(bucket), bucket): rate for bucket, rate in rates.items()}
            before = {bucket: self.line(bucket) for bucket in rates}
            self.spreading.look(lines, flows, self.now)
            self.moves += sum(self.line(bucket) != line for bucket, line in before.items())
            self.now += STEP

    def used(self) -> float:
        """Of what all lines carry together."""
        return sum(self.rates().values()) * OVERHEAD / sum(self.carries.values())


GREEDY = 1e6


@pytest.mark.parametrize("carries", [{1: 50, 2: 50}, {1: 80, 2: 20}, {1: 30, 2: 30, 3: 30}, {1: 20, 2: 80}])
@pytest.mark.parametrize("known", [True, False])
def test_many_connections_use_all_lines_within_two_seconds_and_then_stay(
    carries: dict[int, float], known: bool
) -> None:
    world = World(carries, None if known else {})
    world.wants = dict.fromkeys(range(16), GREEDY)
    world.run(2)
    assert world.used() > 0.99
    world.run(2 * HOLD)
    moves = world.moves
    world.run(60)
    assert world.moves == moves
    assert world.used() > 0.99


@pytest.mark.parametrize("home", [1, 2])
@pytest.mark.parametrize("carries", [{1: 50, 2: 50}, {1: 80, 2: 20}])
def test_one_connection_has_the_line_that_carries_most(carries: dict[int, float], home: int) -> None:
    world = World(carries, home=home)
    world.wants = {0: GREEDY}
    world.run(5)
    assert world.rates()[0] * OVERHEAD == pytest.approx(max(carries.values()))
    assert world.moves <= 1


def test_no_connection_gets_less_by_moving() -> None:
    """Two connections share a line of 80 Mbit/s: 40 each. One of 20 beside it is of no use to either."""
    world = World({1: 80, 2: 20})
    world.wants = {0: GREEDY, 1: GREEDY}
    world.run(20)
    assert min(world.rates().values()) * OVERHEAD == pytest.approx(40)
    world.wants = dict.fromkeys(range(5), GREEDY)
    world.run(20)
    assert world.used() == pytest.approx(1)
    assert min(world.rates().values()) * OVERHEAD == pytest.approx(20)


def test_as_long_as_no_line_is_full_all_goes_as_babel_says() -> None:
    world = World({1: 50, 2: 50})
    world.wants = dict.fromkeys(range(16), 2.0)
    world.run(20)
    assert world.moves == 0


def test_a_change_of_babels_way_moves_nothing_while_a_line_is_full() -> None:
    world = World({1: 50, 2: 50})
    world.wants = {0: GREEDY}
    world.run(2)
    world.home = 2
    assert world.line(0) == 1
    world.run(20)
    assert world.line(0) == 1


def test_what_other_programs_send_over_a_line_counts() -> None:
    spreading = Spreading()
    lines = {1: LineRate(49.0, 50.0), 2: LineRate(1.0, 50.0)}
    assert spreading.look(lines, {(1, 7): 10.0, (1, 8): 2.0}, 0.0)
    assert spreading.placed[7] == 2


def test_what_stands_still_goes_back_to_babels_way() -> None:
    world = World({1: 50, 2: 50})
    world.wants = dict.fromkeys(range(4), GREEDY)
    world.run(5)
    assert world.moves
    world.wants = {}
    world.run(RESTS + 1)
    assert not world.spreading.placed


def test_where_there_is_room_again_all_goes_back_to_babels_way_after_a_while() -> None:
    world = World({1: 50, 2: 50})
    world.wants = dict.fromkeys(range(4), GREEDY)
    world.run(5)
    world.wants = dict.fromkeys(range(4), 1.0)
    world.run(CALM - 1)
    assert world.spreading.placed
    world.run(2)
    assert not world.spreading.placed


def test_what_went_over_a_line_that_is_gone_goes_as_babel_says_at_once() -> None:
    world = World({1: 50, 2: 50})
    world.wants = dict.fromkeys(range(4), GREEDY)
    world.run(5)
    assert 2 in world.spreading.placed.values()
    assert world.spreading.follow(frozenset({1}))
    assert 2 not in world.spreading.placed.values()
    assert not world.spreading.follow(frozenset({1}))


def test_a_line_that_carries_less_than_thought_gets_no_more_than_it_takes() -> None:
    """Nothing is known of two lines, of which one carries a tenth of the other."""
    world = World({1: 100, 2: 10}, told={})
    world.wants = dict.fromkeys(range(16), GREEDY)
    world.run(120)
    lines = Counter(map(world.line, world.wants))
    assert world.used() > 0.99
    assert lines[1] >= lines[2]


def test_connections_that_come_and_go_move_seldom() -> None:
    chance = Random(5)
    world = World({1: 50, 2: 30, 3: 20})
    for _ in range(200):
        for bucket in range(20):
            if chance.random() < 0.1:
                world.wants[bucket] = chance.choice((0.5, 2.0, GREEDY))
            elif chance.random() < 0.05:
                world.wants.pop(bucket, None)
        world.run(1)
    assert world.moves < 200 * 2
