"""Both ends of a link find it dead: an answer comes back only once the other end leads around the link too.

Two nodes are played on one clock, each with counters and looks of its own. One asks, the other one answers, by the
link until it finds it dead, and else by another way.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Address
from random import Random
from statistics import median, quantiles

import pytest

from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.liveness import Liveness, Packets

HOP = NextHop(IPv6Address("fe80::1"), "re6stnet1")
NEVER = float("inf")
HALF_AN_HOUR = 1800.0
Trip = Callable[[Random], float]
"""How long a packet takes, one way."""


@dataclass
class End:
    """One of the two nodes."""

    index: int
    liveness: Liveness = field(default_factory=Liveness)
    received: int = 0
    sent: int = 0
    dead: float = NEVER
    alarms: int = 0
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """When this machine stands still: neither does it look, nor does it take what comes."""

    def awake(self, now: float) -> float:
        """When what is to happen now happens."""
        while self.stalls and self.stalls[0][1] <= now:
            del self.stalls[0]
        return self.stalls[0][1] if self.stalls and self.stalls[0][0] <= now else now


@dataclass
class Link:
    """A link between two nodes, the first of which asks `every` so many seconds, while it is to."""

    seed: int
    trip: Trip = lambda rng: 0.002
    every: float = 0.02
    hello: float = 0.25
    cut: float = NEVER
    loss: Callable[[float], float] = lambda now: 0.0
    turnaround: float = 0.001
    """Until an answer goes out: it comes from a machine behind the node."""
    late: float = 0.004
    """How much later than it wants to a node looks, at most."""
    way_around: float = 0.01
    one_of: int = 1
    """One of so many packets is answered, as TCP acknowledges many at once; 0: none is."""
    answered: list[float] = field(default_factory=list)
    """When an answer came, by the link or around it."""

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.now = 0.0
        self.ends = (End(0), End(1))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = self._unanswered = 0
        for end in self.ends:
            self._at(self.rng.random() * 0.1, partial(self._look, end))
            self._at(self.rng.random() * self.hello, partial(self._hello, end))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def ask(self, begin: float, until: float) -> None:
        """Let the first end ask between these moments."""
        self._at(begin, partial(self._ask, until))

    @property
    def alarms(self) -> int:
        return sum(end.alarms for end in self.ends)

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, event))

    def _ask(self, until: float) -> None:
        self._carry(self.ends[0], self._asked)
        if self.now + self.every < until:
            self._at(self.now + self.every, partial(self._ask, until))

    def _asked(self) -> None:
        self._unanswered += 1
        if self._unanswered != self.one_of:
            return
        self._unanswered = 0
        self._at(self.now + self.turnaround, partial(self._carry, self.ends[1], self._answer))

    def _answer(self) -> None:
        self.answered.append(self.now)

    def _carry(self, end: End, then: Callable[[], None]) -> None:
        """Payload leaves an end: by the link, or around it where that is known dead."""
        if end.dead <= self.now:
            self._at(self.now + self.way_around, then)
        else:
            end.sent += 1
            self._send(end, then)

    def _send(self, end: End, then: Callable[[], None]) -> None:
        if self.now < self.cut and self.rng.random() >= self.loss(self.now):
            self._at(self.now + self.trip(self.rng), partial(self._arrive, self.ends[1 - end.index], then))

    def _arrive(self, end: End, then: Callable[[], None]) -> None:
        if (awake := end.awake(self.now)) > self.now:
            self._at(awake, partial(self._arrive, end, then))
            return
        end.received += 1
        then()

    def _hello(self, end: End) -> None:
        if (awake := end.awake(self.now)) > self.now:
            self._at(awake, partial(self._hello, end))
            return
        self._send(end, lambda: None)
        self._at(self.now + self.hello * self.rng.uniform(0.9, 1.1), partial(self._hello, end))

    def _look(self, end: End) -> None:
        if (awake := end.awake(self.now)) > self.now:
            self._at(awake + self.rng.uniform(0, self.late), partial(self._look, end))
            return
        found = end.liveness.look({HOP: Packets(end.received, end.sent)}, self.now)
        for _ in found.probe:
            self._send(end, partial(self._echo, end, self.now))
        if found.died:
            end.dead, end.alarms = self.now, end.alarms + 1
        if found.revived:
            end.dead = NEVER
        late = self.rng.uniform(0.0005, self.late)
        self._at(self.now + end.liveness.pause(self.now) + late, partial(self._look, end))

    def _echo(self, end: End, asked: float) -> None:
        self._send(self.ends[1 - end.index], lambda: end.liveness.answered(HOP, self.now - asked))


def outage(link: Link, after: float = 4.0, begin: float = 0.3) -> float:
    """Seconds from the cut until an answer comes again, where the questions `begin` then."""
    link.ask(begin, link.cut + after)
    link.run(link.cut + after)
    return min((moment for moment in link.answered if moment > link.cut + 0.1), default=NEVER) - link.cut


@pytest.mark.parametrize("turnaround", [0.0002, 0.015])
@pytest.mark.parametrize("hello", [0.25, 1.0])
def test_answers_come_again_within_half_a_second_and_nearly_always_within_eight_tenths(
    turnaround: float, hello: float
) -> None:
    found = []
    for seed in range(200):
        cut = 6 + Random(seed).random()
        found.append(outage(Link(seed, cut=cut, hello=hello, turnaround=turnaround)))
    assert median(found) < 0.5
    assert quantiles(found, n=100)[98] < 0.8, max(found)


@pytest.mark.parametrize("every", [0.1, 0.2])
def test_answers_come_again_soon_where_a_hello_is_the_last_that_is_heard(every: float) -> None:
    """It answers nothing: the other end has to miss the questions although it is owed none."""
    found = [outage(Link(seed, cut=6 + Random(seed).random(), every=every)) for seed in range(200)]
    assert median(found) < 0.6
    assert quantiles(found, n=100)[98] < 0.8, max(found)


def test_a_round_trip_that_was_long_by_a_stall_does_not_make_the_next_cut_last() -> None:
    """It is measured each half minute only: one that was long would count for minutes."""
    found = []
    for seed in range(40):
        link = Link(seed, cut=42 + Random(seed).random())
        # The third measurement after the first ones comes half a minute after those.
        link.ends[1].stalls += [(begin / 10, begin / 10 + 0.29) for begin in range(340, 370, 8)]
        found.append(outage(link, begin=40))
    assert max(found) < 0.8


def test_a_machine_that_looks_late_still_finds_dead_links() -> None:
    """Time in which it does not look is left out, and the rest counts."""
    found = []
    for seed in range(100):
        link = Link(seed, cut=6 + Random(seed).random())
        link.ends[seed % 2].stalls.append((link.cut + 0.25, link.cut + 0.45))
        found.append(outage(link))
    assert max(found) < 0.9


def bad_weather(now: float) -> float:
    """3%, and 20% for one second of each minute."""
    return 0.2 if now % 60 < 1 else 0.03


def changing(rng: Random) -> float:
    return rng.uniform(0.005, 0.15)


def short(rng: Random) -> float:
    return 0.01


@pytest.mark.parametrize(
    ("trip", "one_of", "every", "stalls"),
    [
        (short, 1, 0.05, False),
        (short, 20, 0.05, False),
        (short, 0, 0.05, False),
        (short, 1, 0.05, True),
        (short, 0, 0.05, True),
        (changing, 1, 0.1, False),
        (changing, 10, 0.1, False),
        (short, 1, 0.7, False),
    ],
)
def test_no_end_raises_a_false_alarm_in_bad_weather(
    trip: Callable[[Random], float], one_of: int, every: float, stalls: bool
) -> None:
    """Questions with answers, with few of them as TCP acknowledges, with none; round trips of 10 to 300 ms."""
    link = Link(11, trip, every, 1.0, loss=bad_weather, one_of=one_of)
    if stalls:
        for end in link.ends:
            begin = 0.0
            while (begin := begin + link.rng.uniform(1, 9)) < HALF_AN_HOUR:
                end.stalls.append((begin, begin + 0.3))
    link.ask(0.3, HALF_AN_HOUR)
    link.run(HALF_AN_HOUR)
    assert link.alarms == 0
