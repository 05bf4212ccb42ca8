"""Links are found dead by the packets that go over them: soon where they are, and never where they are not."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.liveness import (
    BUSY,
    EARLY,
    FLIGHT,
    GREETINGS,
    IDLE,
    IN_FLIGHT,
    LEAST,
    LIMIT,
    MEASURE,
    PROBES,
    PROBES_AT_ONCE,
    QUIET,
    RESENT,
    SILENCE,
    STALLED,
    WARY,
    Liveness,
    LivenessFindings,
    Packets,
)

HOP = NextHop(IPv6Address("fe80::1"), "re6stnet1")
HOUR = 3600.0
ASKING = 0.2
"""Seconds that PROBES take at least."""

Loss = Callable[[float], float]
"""The share of packets that get lost at a moment, each way."""


@dataclass
class Play:
    """One node, and a link of it that is played: what goes out, what comes back, and when this machine looks."""

    loss: Loss = lambda now: 0.0
    seed: int = 1
    trip: float = 0.02
    hello: float = 0.25
    """Between two packets of the neighbour's babel."""
    answers: bool = True
    """Whether the neighbour answers echo requests."""
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """When the neighbour stands still: what comes to it waits."""
    own_stalls: list[tuple[float, float]] = field(default_factory=list)
    own_lateness: float = 0.0
    """Seconds by which this machine looks late, at most: each time by another part of them."""
    over_tcp: bool = False
    now: float = 0.0
    received: int = 0
    sent: int = 0
    probes: int = 0
    findings: list[tuple[float, LivenessFindings]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.liveness = Liveness()
        self.rng = Random(self.seed)
        self._coming: list[tuple[float, int, float | None]] = []
        self._number = 0
        self._out = self._hello = 0.0
        self.looked = 0.0

    def run(self, until: float, pace: float = 0.0, replies: bool = True, asks: float = 0.0) -> None:
        """A packet goes out every `pace` seconds (0: none), with a reply or without; or the neighbour sends them."""
        while self.now < until:
            if pace:
                self._flow(pace, replies, asks)
            while self._hello <= self.now:
                self._come(self._hello)
                self._hello += self.hello
            self._look()
            self.stalls = [stall for stall in self.stalls if stall[1] > self.now]
            self.own_stalls = [stall for stall in self.own_stalls if stall[1] > self.now]
            self.now += self._stalled(self.liveness.pause(self.now))

    def _flow(self, pace: float, replies: bool, asks: float) -> None:
        self._out = max(self._out, self.now - 1)
        while self._out <= self.now:
            if asks:
                if self._passes(self._out):
                    self._come_at(self._out, None)
                    self.sent += 1
            else:
                self.sent += 1
                if replies and self._passes(self._out):
                    self._come(self._out + self.trip)
            self._out += pace

    def _passes(self, moment: float) -> bool:
        return self.rng.random() >= self.loss(moment)

    def _come(self, moment: float, asked: float | None = None) -> None:
        """Something leaves the neighbour so that it is here at a moment."""
        if self._passes(moment):
            self._come_at(moment, asked)

    def _come_at(self, moment: float, asked: float | None) -> None:
        for begin, end in self.stalls:
            moment = end if begin <= moment < end else moment
        self._number += 1
        heapq.heappush(self._coming, (moment, self._number, asked))

    def _look(self) -> None:
        while self._coming and self._coming[0][0] <= self.now:
            moment, _, asked = heapq.heappop(self._coming)
            self.received += 1
            if asked is not None:
                self.liveness.answered(HOP, moment - asked)
        over_tcp = {HOP} if self.over_tcp else set()
        found = self.liveness.look({HOP: Packets(self.received, self.sent)}, self.now, over_tcp)
        self.looked = self.now
        for _ in found.probe:
            self.probes += 1
            if self.answers and self._passes(self.now):
                self._come(self.now + self.trip, self.now)
        if found.died or found.revived:
            self.findings.append((self.now, found))

    def _stalled(self, pause: float) -> float:
        pause += self.rng.uniform(0, self.own_lateness)
        for begin, end in self.own_stalls:
            if begin <= self.now + pause < end:
                return end - self.now
        return pause

    @property
    def deaths(self) -> list[float]:
        return [now for now, found in self.findings if found.died]

    @property
    def returns(self) -> list[float]:
        return [now for now, found in self.findings if found.revived]


def cut_at(moment: float, until: float = float("inf")) -> Loss:
    return lambda now: 1.0 if moment <= now < until else 0.0


def bad_weather(now: float) -> float:
    """3%, and 20% for one second of each minute."""
    return 0.2 if now % 60 < 1 else 0.03


@pytest.mark.parametrize("seed", range(20))
def test_a_link_with_traffic_is_dead_within_half_a_second(seed: int) -> None:
    cut = 3 + Random(seed).random()
    play = Play(cut_at(cut), seed)
    play.run(6, pace=0.02)
    (died,) = play.deaths
    assert died - cut < 0.5


def test_it_is_known_at_both_ends_although_one_only_answers() -> None:
    play = Play(cut_at(3.21))
    play.run(6, pace=0.02, asks=1)
    (died,) = play.deaths
    assert died - 3.21 < 0.5


def test_a_flow_that_nobody_answers_finds_it_too() -> None:
    play = Play(cut_at(3.21))
    play.run(6, pace=0.02, replies=False)
    (died,) = play.deaths
    assert died - 3.21 < 0.75  # a probe may just have been answered


def test_an_idle_link_that_died_is_found_half_a_second_after_traffic_came() -> None:
    play = Play(cut_at(3))
    play.run(20)
    assert play.deaths == []
    play.run(22, pace=0.02)
    (died,) = play.deaths
    assert died - 20 < 0.45 + QUIET


def test_the_time_is_longer_where_the_round_trip_is() -> None:
    play = Play(cut_at(3.21), trip=0.3)
    play.run(6, pace=0.02)
    (died,) = play.deaths
    assert 0.6 < died - 3.21 < 1.5


def test_a_slow_link_is_not_taken_for_dead() -> None:
    play = Play(trip=0.7, hello=15)
    play.run(60, pace=0.02)
    assert play.deaths == []


def test_a_link_is_alive_again_once_it_is_heard_for_a_while() -> None:
    play = Play(cut_at(3, 5))
    play.run(10, pace=0.02)
    assert len(play.deaths) == 1
    (back,) = play.returns
    assert 5.3 < back < 6


def test_it_is_heard_again_although_nothing_but_probes_goes_by_it() -> None:
    play = Play(cut_at(3, 5), hello=15)
    play.run(3.6, pace=0.02)
    play.run(12)
    assert len(play.deaths) == 1
    assert len(play.returns) == 1


def test_a_dead_link_is_probed_seldom() -> None:
    play = Play(cut_at(3))
    play.run(4, pace=0.02)
    before = play.probes
    play.run(104, pace=0.02)
    assert play.probes - before < 130


def test_a_neighbour_that_answers_no_probe_is_not_judged_by_its_silence() -> None:
    play = Play(answers=False, hello=15)
    play.run(60, pace=0.02, replies=False)
    assert play.deaths == []
    assert play.probes <= GREETINGS + 1


def test_one_that_ceases_to_answer_is_judged_once() -> None:
    play = Play(hello=0.45)
    play.run(5, pace=0.02, replies=False)
    play.answers = False
    play.run(60, pace=0.02, replies=False)
    assert len(play.deaths) <= 1


def test_a_link_without_traffic_is_left_in_peace() -> None:
    play = Play(bad_weather)
    play.run(5)
    before = play.probes
    play.run(605)
    assert play.probes - before <= 600 / MEASURE + GREETINGS


def test_answers_that_come_late_after_a_cut_are_no_round_trips() -> None:
    """As TCP brings them: all that was sent meanwhile."""
    play = Play(cut_at(12.21), stalls=[(3, 6)])
    play.run(16, pace=0.02)
    assert len(play.deaths) == 2
    assert play.deaths[1] - 12.21 < 0.5


def test_a_round_trip_that_was_long_once_is_forgotten() -> None:
    play = Play(cut_at(10.21), trip=0.6)
    play.run(1.5, pace=0.02)
    play.trip = 0.02
    play.run(12, pace=0.02)
    (died,) = play.deaths
    assert died - 10.21 < 0.6


def test_a_flow_that_nobody_answers_costs_a_few_probes_a_second() -> None:
    play = Play(hello=15)
    play.run(100, pace=0.001, replies=False)
    assert play.probes / 100 < 12


@pytest.mark.parametrize("flow", ["two ways", "one way", "asked"])
@pytest.mark.parametrize("hello", [0.25, 1.0])
def test_no_false_alarm_in_an_hour_of_losses(flow: str, hello: float) -> None:
    play = Play(bad_weather, hello=hello)
    play.run(HOUR, pace=0.05, replies=flow == "two ways", asks=flow == "asked")
    assert play.deaths == []


@pytest.mark.parametrize("flow", ["two ways", "one way"])
def test_no_false_alarm_in_an_hour_with_stalls_of_both_machines(flow: str) -> None:
    rng = Random(7)
    stalls: list[tuple[float, float]] = []
    own: list[tuple[float, float]] = []
    for minute in range(60):
        for found in (stalls, own):
            for _ in range(10):
                begin = 60 * minute + rng.uniform(0, 59)
                found.append((begin, begin + 0.3))
        # One right after the other, and both at once.
        stalls += [(60 * minute + 30, 60 * minute + 30.3), (60 * minute + 40, 60 * minute + 40.3)]
        own += [(60 * minute + 29.7, 60 * minute + 30), (60 * minute + 40, 60 * minute + 40.3)]
    stalls = [each for each in stalls if not any(_touch(each, other) for other in stalls if other != each)]
    play = Play(lambda now: 0.03, stalls=sorted(stalls), own_stalls=sorted(own))
    play.run(HOUR, pace=0.05, replies=flow == "two ways")
    assert play.deaths == []


def _touch(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] + 0.1 and other[0] < one[1] + 0.1


@pytest.mark.parametrize(("late", "least", "most"), [(0.2, SILENCE + ASKING - IDLE, 0.5), (5.0, RESENT, RESENT + 0.2)])
def test_time_in_which_nobody_looked_is_left_out(late: float, least: float, most: float) -> None:
    """Where that was long, the machine may have too much to do: what carries the link may be as late as we were."""
    liveness = Liveness()
    liveness.look({HOP: Packets(1, 1)}, 0.0)
    liveness.answered(HOP, 0.01)
    liveness.look({HOP: Packets(1, 5)}, 0.1)
    now = 0.1 + IDLE + late
    began, died = now, None
    liveness.look({HOP: Packets(1, 9)}, now)
    while died is None:
        now += liveness.pause(now)
        if liveness.look({HOP: Packets(1, 9)}, now).died:
            died = now
    assert least < died - began < most


def test_counters_that_begin_anew_are_no_sign_of_life() -> None:
    """As where the packet filter's table is made anew in the middle of a silence."""
    liveness, now, died = Liveness(), 0.0, None
    liveness.look({HOP: Packets(50, 50)}, now)
    liveness.answered(HOP, 0.01)
    while died is None:
        now += liveness.pause(now)
        count = Packets(51, 50 + int(now * 50)) if now < 0.3 else Packets(0, int(now * 50))
        if liveness.look({HOP: count}, now).died:
            died = now
    assert died < 0.8, "0.54 after the last sign of life, which was heard of at 0.2"


def test_an_answer_is_a_sign_of_life_although_nothing_is_counted() -> None:
    """As between the moments at which another program removes the packet filter's table, and at which it is back."""
    liveness, now, found = Liveness(), 0.0, LivenessFindings()
    liveness.look({HOP: Packets(50, 50)}, now)
    while now < 5:
        now += liveness.pause(now)
        if found.probe:
            liveness.answered(HOP, 0.01)
        found = liveness.look({HOP: Packets(0, 50 + int(now * 50))}, now)
        assert not found.died


def test_packets_of_babel_that_were_lost_on_the_way_to_the_tunnel_hide_others_for_a_moment_only() -> None:
    play = Play(cut_at(5 + FLIGHT + 0.2))
    play.run(5)
    play.sent -= IN_FLIGHT
    play.run(5 + FLIGHT + 0.2)
    play.run(7, pace=0.1, replies=False)
    (died,) = play.deaths
    assert died < 5 + FLIGHT + 0.9


@pytest.mark.parametrize(("over_tcp", "wait"), [(True, RESENT), (False, STALLED + WARY)])
def test_over_tcp_it_waits_for_packets_to_be_sent_again_once_one_was(over_tcp: bool, wait: float) -> None:
    """After 0.2 s, and once more after 0.4 s. What carries links otherwise loses packets, and brings the next ones."""
    play = Play(stalls=[(3, 3.25)], over_tcp=over_tcp)
    play.run(10, pace=0.02)
    play.stalls.append((10, 10.65))
    play.run(20, pace=0.02)
    assert len(play.deaths) == (0 if over_tcp else 1)
    other = Play(cut_at(20), stalls=[(3, 3.25)], over_tcp=over_tcp)
    other.run(23, pace=0.02)
    (died,) = other.deaths
    assert wait < died - 20 < wait + 0.2
    unwarned = Play(stalls=[(10, 10.65)], over_tcp=over_tcp)
    unwarned.run(20, pace=0.02)
    assert len(unwarned.deaths) == 1


@pytest.mark.parametrize("took", [0.7, 1.0, 1.5])
def test_a_false_alarm_is_not_raised_again_for_the_same_reason(took: float) -> None:
    """As where the neighbour's machine has much to do: it stands still again and again."""
    play = Play(stalls=[(10.0 * number, 10.0 * number + took) for number in range(1, 12)])
    play.run(120, pace=0.02)
    assert len(play.deaths) == 1
    play.run(300, pace=0.02)
    play.loss = cut_at(play.now)
    play.run(303, pace=0.02)
    assert play.deaths[1] - 300 < 0.5, "it is forgotten after minutes"


@pytest.mark.parametrize("lateness", [0.08, 0.5, 1.0])
@pytest.mark.parametrize("over_tcp", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_where_every_program_is_late_there_is_one_false_alarm_in_two_minutes_at_most(
    lateness: float, over_tcp: bool, seed: int
) -> None:
    """The one that looks, and those that carry the link, each for itself: it comes on and off, by turns."""
    rng = Random(seed)
    stalls, moment = [], 0.0
    while moment < 120:
        begin = moment + rng.uniform(0, 0.1)
        moment = begin + rng.uniform(0, lateness)
        stalls.append((begin, moment))
    play = Play(bad_weather, seed, stalls=stalls, own_lateness=lateness, over_tcp=over_tcp)
    play.run(120, pace=0.05)
    assert len(play.deaths) <= 1


def test_a_neighbour_is_doubted_only_once_its_answer_is_overdue() -> None:
    """A flow that nobody answers asks again and again: ways around other links that lead by it must not come and go."""
    play = Play()
    for _ in range(100):
        play.run(play.now + 0.05, pace=0.02, replies=False)
        assert play.liveness.doubtful == frozenset()
    play.loss = cut_at(play.now)
    play.run(play.now + 0.25, pace=0.02, replies=False)
    assert play.liveness.doubtful == {HOP}
    assert play.liveness.dead == frozenset()


def test_what_babel_sends_is_no_traffic_although_it_is_counted_as_its_own_first() -> None:
    """The two counters are not read at one moment, and a tunnel's counts what the program at its end has read."""
    play = Play()
    play.run(5)
    before, now = play.probes, play.now
    for step in range(200):
        now += play.liveness.pause(now)
        play.received += step % 3 == 0
        sent = play.sent - (1 if step % 2 else 0)
        play.probes += len(play.liveness.look({HOP: Packets(play.received, sent)}, now).probe)
    assert play.probes - before <= 4, "the greetings and measurements that were due anyway"


def test_links_that_are_gone_are_forgotten_and_many_are_bounded() -> None:
    liveness = Liveness()
    hops = {NextHop(IPv6Address(number), "re6stnet-tcp"): Packets(0, 0) for number in range(LIMIT + 50)}
    found = liveness.look(hops, 0.0)
    assert len(found.probe) == PROBES_AT_ONCE
    assert liveness.look({}, 0.1) == LivenessFindings()
    assert liveness.dead == frozenset()


def test_looks_are_frequent_only_while_something_goes_on() -> None:
    play = Play()
    play.run(15)
    assert play.liveness.pause(play.looked) == pytest.approx(QUIET)
    play.run(16, pace=0.02)
    assert play.liveness.pause(play.looked) <= BUSY + EARLY
    play.run(18)
    assert play.liveness.pause(play.looked) == pytest.approx(IDLE)
    play.run(28)
    assert play.liveness.pause(play.looked) == pytest.approx(QUIET)


EVENT = st.tuples(st.floats(0.001, 0.5), st.integers(0, 3), st.integers(0, 3), st.booleans())


@given(st.lists(EVENT, max_size=200))
@settings(max_examples=200, deadline=None)
def test_a_death_is_never_told_before_its_time(events: list[tuple[float, int, int, bool]]) -> None:
    """Whatever comes when: nothing came for long, PROBES went out, and a dead link does not die again."""
    liveness, now, received, sent = Liveness(), 0.0, 0, 0
    last, probes, dead = 0.0, 0, False
    for gap, came, went, answered in events:
        now += gap
        received, sent = received + came, sent + went
        if came:
            last, probes = now, 0
            if answered:
                liveness.answered(HOP, 0.01)
        found = liveness.look({HOP: Packets(received, sent)}, now)
        assert set(found.probe) | set(found.died) | set(found.revived) <= {HOP}
        if found.died:
            assert not dead
            assert now - last >= SILENCE + ASKING
            assert found.died[HOP] <= now - last + 1e-9
            assert probes >= PROBES
            dead = True
        if found.revived:
            assert dead
            dead = False
        probes += len(found.probe)
        assert liveness.dead == ({HOP} if dead else set())
        assert LEAST <= liveness.pause(now) <= QUIET
