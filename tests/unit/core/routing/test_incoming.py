"""Neighbours are told by which lines connections are to come, once one is full and as long as they can."""

from __future__ import annotations

from collections import Counter

import pytest

from re6st.core.prefix import Prefix
from re6st.core.routing.incoming import LINGERS, Incoming
from re6st.core.routing.line_wishes import LASTS, REPEAT, Able, Wish
from re6st.core.routing.spreading import OVERHEAD, LineRate

STEP = 0.25
A, B, C = Prefix(1, 16), Prefix(2, 16), Prefix(3, 16)


class World:
    """A machine with lines, to which one sender has connections, all over line 1 if nobody says otherwise."""

    def __init__(self, carries: dict[int, float], told: dict[int, float] | None = None) -> None:
        self.carries = carries
        self.told = carries if told is None else told
        self.neighbours: dict[int, tuple[Prefix, ...]] = {1: (A,), 2: (B,)}
        self.wants: dict[int, float] = {}
        self.relayed: dict[int, float] = {}
        """What a relay lets pass of one connection over line 2."""
        self.able = True
        self.can = {A: frozenset({1, 2}), B: frozenset({1, 2})}
        self.incoming = Incoming()
        self.now = 100.0
        self.wish = Wish()
        """What A was told last."""
        self.messages = 0

    def line(self, bucket: int) -> int:
        return self.wish.buckets.get(bucket, 1) if self.able else 1

    def rates(self) -> dict[int, float]:
        found: dict[int, float] = {}
        for line, carries in self.carries.items():
            here = [bucket for bucket in self.wants if self.line(bucket) == line]
            left = carries / OVERHEAD
            bound = {b: self.relayed.get(b, 1e6) if line == 2 else 1e6 for b in here}
            for number, b in enumerate(sorted(here, key=lambda b: min(self.wants[b], bound[b]))):
                found[b] = min(self.wants[b], bound[b], left / (len(here) - number))
                left -= found[b]
        return found

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            rates = self.rates()
            load = dict.fromkeys(self.carries, 0.0)
            for bucket, rate in rates.items():
                load[self.line(bucket)] += rate * OVERHEAD
            lines = {slot: LineRate(load[slot], self.told.get(slot)) for slot in self.carries}
            self.incoming.follow(lines, self.neighbours, self.now)
            movable = self.incoming.movable()
            flows = {(self.line(b), b): rate for b, rate in rates.items()}
            free = {key: rate for key, rate in flows.items() if key[0] in movable}
            others = {key: rate for key, rate in flows.items() if key not in free and movable}
            self.incoming.look(lines, free, others, self.now)
            for to, wish in self.incoming.due(self.now):
                self.messages += 1
                if to == A:
                    self.wish = wish
            if self.wish.lines and self.able:
                for each, slots in self.can.items():
                    self.incoming.able(each, Able(slots), self.now)
            self.now += STEP

    @property
    def total(self) -> float:
        return sum(self.rates().values()) * OVERHEAD


@pytest.mark.parametrize("carries", [{1: 50.0, 2: 50.0}, {1: 80.0, 2: 20.0}, {1: 20.0, 2: 80.0}])
@pytest.mark.parametrize("told", [True, False])
def test_sixteen_connections_fill_both_lines(carries: dict[int, float], told: bool) -> None:
    world = World(carries, None if told else {})
    world.wants = dict.fromkeys(range(16), 1e3)
    world.run(15)
    assert world.total > 0.95 * 100
    assert min(world.rates().values()) > (2 if told else 1), "nobody starves"
    before = dict(world.wish.buckets)
    world.run(30)
    assert world.wish.buckets == before, "nothing moves any more"


def test_what_comes_by_a_neighbour_that_itself_cannot_send_by_all_lines_is_not_taken_for_lost() -> None:
    world = World({1: 50.0, 2: 50.0, 3: 50.0})
    world.neighbours[3] = (C,)
    world.can = {A: frozenset({1, 2, 3}), B: frozenset({2}), C: frozenset({3})}
    world.wants = dict.fromkeys(range(18), 1e3)
    world.run(15)
    assert world.total > 0.95 * 150
    before = dict(world.wish.buckets)
    for _ in range(60):
        world.run(1)
        assert world.wish.buckets == before, "nothing moves any more"


def test_one_connection_stays_on_the_line_that_carries_most() -> None:
    world = World({1: 80.0, 2: 20.0})
    world.wants = {7: 1e3}
    world.run(20)
    assert world.line(7) == 1
    world = World({1: 20.0, 2: 80.0})
    world.wants = {7: 1e3}
    world.run(20)
    assert world.line(7) == 2


def test_as_long_as_no_line_is_busy_nobody_is_told_anything() -> None:
    world = World({1: 50.0, 2: 50.0})
    world.wants = dict.fromkeys(range(16), 1.0)
    world.run(60)
    assert world.messages == 0


def test_while_a_line_is_full_there_is_about_one_message_a_second_to_each() -> None:
    world = World({1: 50.0, 2: 50.0})
    world.wants = dict.fromkeys(range(16), 1e3)
    world.run(10)
    world.messages = 0
    world.run(60)
    assert world.messages <= 2 * 60 / REPEAT + 2


def test_once_there_is_room_again_all_comes_as_babel_says_and_nobody_is_told_any_more() -> None:
    world = World({1: 50.0, 2: 50.0})
    world.wants = dict.fromkeys(range(16), 1e3)
    world.run(10)
    world.wants = dict.fromkeys(range(16), 0.5)
    world.run(40 + LINGERS)
    assert world.wish == Wish()
    world.messages = 0
    world.run(20)
    assert world.messages == 0


def test_who_cannot_send_by_another_line_is_asked_for_nothing() -> None:
    world = World({1: 50.0, 2: 50.0})
    world.able = False
    world.wants = dict.fromkeys(range(16), 1e3)
    world.run(20)
    assert world.wish.lines == {1: (A,), 2: (B,)}
    assert world.wish.buckets == {}


def test_who_was_able_and_says_it_no_more_does_not_count() -> None:
    world = World({1: 50.0, 2: 50.0})
    world.wants = dict.fromkeys(range(16), 1e3)
    world.run(10)
    assert world.incoming.movable() == {1: {A}, 2: {B}}
    world.able = False
    world.run(LASTS + STEP)
    assert world.incoming.movable() == {}


def test_of_a_line_that_is_gone_nothing_is_wished() -> None:
    world = World({1: 50.0, 2: 50.0})
    world.wants = dict.fromkeys(range(16), 1e3)
    world.run(10)
    assert Counter(world.wish.buckets.values()) == {1: 8, 2: 8}
    del world.neighbours[2]
    world.run(STEP)
    assert world.wish == Wish()


def test_a_neighbour_that_is_none_any_more_is_told_so() -> None:
    incoming, busy = Incoming(), {1: LineRate(50, 50), 2: LineRate(0, 50)}
    incoming.follow(busy, {1: (A, C), 2: (B,)}, 0.0)
    assert {to for to, wish in incoming.due(0.0) if wish.lines} == {A, B, C}
    incoming.follow(busy, {1: (A,), 2: (B,)}, 0.25)
    assert {to for to, wish in incoming.due(0.25) if not wish.lines} == {C}
    incoming.able(C, Able(frozenset({1, 2})), 0.25)
    assert incoming.movable() == {}, "what strangers say does not count"


def test_what_has_less_by_its_new_line_goes_back_and_stays() -> None:
    world = World({1: 50.0, 2: 50.0})
    world.wants = {1: 1e3, 2: 1e3}
    world.relayed = {1: 3.0, 2: 3.0}
    world.run(4)
    world.run(10)
    assert world.line(1) == world.line(2) == 1
    before = world.messages
    world.run(60)
    assert world.line(1) == world.line(2) == 1
    assert world.messages > before
