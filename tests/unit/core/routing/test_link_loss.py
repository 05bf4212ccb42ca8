"""Links that lose packets are found by echo requests: soon where many get lost, and never where few do."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.link_loss import (
    CALM,
    COMPARE_AGAIN,
    COMPARE_LONGEST,
    COMPARED,
    EARLY,
    FEW,
    LASTING,
    LEAST,
    LIMIT,
    LOSSY,
    LOSSY_SLOWLY,
    MUTE,
    PROVE,
    PROVE_FIRST,
    PROVING,
    RECENT,
    SELDOM,
    SILENT,
    TRAIN,
    TRAINS,
    LinkLoss,
)

HOPS = [NextHop(IPv6Address(f"fe80::{number}"), f"re6stnet-wg{number}") for number in range(1, 30)]
HOP, GOOD = HOPS[0], HOPS[-1]
HOUR = 3600.0
PROVED = PROVE_FIRST + PROVING * TRAIN + 2.0
"""When it is known how often the neighbour can be asked."""
MENDING = 1.1 * SELDOM * RECENT + 5
"""Seconds after which a good link is known to be one."""
Loss = Callable[[float], float]
"""The share of packets that get lost at a moment, each way."""


def never(now: float) -> float:
    return 0.0


@dataclass
class Play:
    """One node, and links of it that are played: which packets get lost on them, and which machines stand still.

    There is a good one beside them, unless they are `alone`.
    """

    losses: dict[NextHop, Loss] = field(default_factory=lambda: {HOP: never})
    seed: int = 1
    trip: Callable[[float], float] = lambda now: 0.02
    traffic: dict[NextHop, float] = field(default_factory=lambda: {HOP: 0.02})
    """Seconds between two packets that go out."""
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """When the neighbours stand still: what comes to them waits."""
    own_stalls: list[tuple[float, float]] = field(default_factory=list)
    firewall: Callable[[float], bool] = lambda now: True
    """Whether a request that came to a neighbour passes there."""
    mute: set[NextHop] = field(default_factory=set)
    """Neighbours that answer no requests at all."""
    alone: bool = False
    hellos: bool = False
    """Whether the hellos of babel get lost too, of which there is one a second."""
    least: float = 0.01
    most: float = 0.06
    """Seconds between two looks of this machine at least, and at most, as of noded/dead_links.py."""
    avoided: set[NextHop] = field(default_factory=set)
    missed: set[NextHop] = field(default_factory=set)
    gone: set[NextHop] = field(default_factory=set)
    now: float = 0.0
    requests: dict[NextHop, int] = field(default_factory=dict)
    found: dict[NextHop, float] = field(default_factory=dict)
    """When each was found lossy first."""
    suspected: frozenset[NextHop] = frozenset()
    """Those that were when the first one was found."""

    def __post_init__(self) -> None:
        self.measured = LinkLoss()
        if not self.alone:
            self.losses.setdefault(GOOD, never)
        self.rng = Random(self.seed)
        self._coming: list[tuple[float, int, NextHop, float]] = []
        self._number = 0
        self._hello = 0.0

    def run(self, until: float, *, or_found: bool = False) -> None:
        while self.now < until and not (or_found and self.found):
            self._look()
            pause = max(self.least, min(self.measured.pause(self.now), self.most)) + self.rng.uniform(0, 0.003)
            for begin, end in self.own_stalls:
                if begin <= self.now + pause < end:
                    pause = end - self.now
            self.now += pause
            while self.stalls and self.stalls[0][1] < self.now - 5:
                del self.stalls[0]

    def _look(self) -> None:
        while self._coming and self._coming[0][0] <= self.now:
            came, number, hop, asked = heapq.heappop(self._coming)
            self.measured.answered(hop, number, came - asked, self.now)
        sent = {
            hop: int(self.now / self.traffic[hop]) if hop in self.traffic else 0
            for hop in self.losses
            if hop not in self.gone
        }
        if self.hellos and self.now >= self._hello + 1:
            self._hello = self.now
            self.missed = {hop for hop in self.losses if not self._passes(hop, self.now)}
        for hop in self.measured.look(sent, self.now, self.missed, self.avoided):
            self.requests[hop] = self.requests.get(hop, 0) + 1
            self._number += 1
            self.measured.asked(hop, self._number, self.now)
            self._send(hop, self._number)
        for hop in self.measured.lossy - self.found.keys():
            self.found[hop] = self.now
            self.suspected = self.suspected or self.measured.suspected

    def _send(self, hop: NextHop, number: int) -> None:
        there = self.now + self.trip(self.now) / 2
        for begin, end in self.stalls:
            there = end if begin <= there < end else there
        back = there + self.trip(self.now) / 2
        if hop not in self.mute and self._passes(hop, self.now) and self.firewall(there) and self._passes(hop, there):
            heapq.heappush(self._coming, (back, number, hop, self.now))

    def _passes(self, hop: NextHop, moment: float) -> bool:
        return self.rng.random() >= self.losses[hop](moment)


def from_then(moment: float, share: float) -> Loss:
    return lambda now: share if now >= moment else 0.0


def bad_weather(now: float) -> float:
    """3%, and 20% for one second of each minute."""
    return 0.2 if now % 60 < 1 else 0.03


def limited(per_second: float, burst: int) -> Callable[[float], bool]:
    """A firewall that lets so many requests pass, as `limit rate 5/second burst 5 packets` of nftables."""
    left, last = float(burst), 0.0

    def passes(now: float) -> bool:
        nonlocal left, last
        left, last = min(burst, left + (now - last) * per_second), now
        if left < 1:
            return False
        left -= 1
        return True

    return passes


def times(share: float, runs: int, least: float = 0.01) -> list[float]:
    """How long after losses begin the link is found lossy."""
    found = []
    for seed in range(runs):
        begin = PROVED + Random(seed).random()
        play = Play({HOP: from_then(begin, share)}, seed, least=least)
        play.run(begin + 120, or_found=True)
        found.append(play.found[HOP] - begin)
    return sorted(found)


@pytest.mark.parametrize(
    ("share", "median", "worst"), [(0.1, 12, 60), (0.15, 5, 15), (0.2, 3, 7), (0.3, 1.9, 3.5), (0.5, 1.7, 3)]
)
@pytest.mark.parametrize("least", [0.01, 0.05], ids=["a few links", "many links"])
def test_a_lossy_link_with_traffic_is_found_within_seconds(
    share: float, median: float, worst: float, least: float
) -> None:
    """Of 200 runs each, seconds from the first moment with losses on; and where there are so many links that a look is
    never sooner than 0.05 s after the last one:

    | lost each way | median | 90% of runs | worst | many: median | 90% | worst |
    | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
    | 10% | 8.4 | 12.3 | 20.1 | 8.6 | 13.1 | 21.2 |
    | 15% | 3.5 | 4.8 | 7.6 | 3.6 | 4.9 | 7.1 |
    | 20% | 2.3 | 2.9 | 4.4 | 2.5 | 3.2 | 4.4 |
    | 30% | 1.6 | 2.0 | 2.9 | 1.7 | 2.2 | 2.9 |
    | 50% | 1.5 | 1.7 | 2.2 | 1.5 | 1.8 | 2.7 |
    """
    found = times(share, 40, least)
    assert statistics.median(found) < median
    assert found[-1] < worst


@pytest.mark.parametrize(("seed", "least"), [(0, 0.01), (1, 0.01), (2, 0.05)])
@pytest.mark.parametrize("loss", [lambda now: 0.03, bad_weather], ids=["3%", "bad weather"])
def test_no_false_alarm_in_an_hour(loss: Loss, seed: int, least: float) -> None:
    play = Play({HOP: loss}, seed, least=least)
    play.run(HOUR)
    assert not play.found
    assert play.requests[HOP] < 20 * HOUR, "it is not one train after the other"


@pytest.mark.parametrize("loss", [lambda now: 0.03, bad_weather], ids=["3%", "bad weather"])
def test_nor_where_both_machines_stall(loss: Loss) -> None:
    """For 0.3 s, six times a minute each."""
    rng = Random(7)
    begins = [[60 * minute + rng.uniform(10 * n, 10 * n + 9) for minute in range(60) for n in range(6)] for _ in "ab"]
    stalls, own = ([(begin, begin + 0.3) for begin in each] for each in begins)
    play = Play({HOP: loss}, stalls=stalls, own_stalls=own)
    play.run(HOUR)
    assert not play.found


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.9])
def test_nor_where_everything_is_lost_for_a_moment(seconds: float) -> None:
    play = Play({HOP: lambda now: 1.0 if now > PROVED and now % 10 < seconds else 0.0})
    play.run(HOUR / 6)
    assert not play.found


def test_a_link_that_is_full_is_not_lossy() -> None:
    """A queue of up to a second, that grows and goes within seconds; nearly all gets through."""
    play = Play({HOP: lambda now: 0.02}, trip=lambda now: 0.02 + max(0.0, 1 - abs(now % 15 - 5) / 4))
    play.run(HOUR / 6)
    assert not play.found


def test_a_way_on_which_packets_overtake_each_other_is_not_lossy() -> None:
    rng = Random(1)
    play = Play(trip=lambda now: 0.02 + rng.expovariate(1 / 0.03))
    play.run(HOUR / 6)
    assert not play.found
    play.losses[HOP] = from_then(play.now, 0.3)
    play.run(play.now + 20, or_found=True)
    assert play.found


@pytest.mark.parametrize("per_second", [1, 5, 10, 20, 30, 50])
def test_a_firewall_that_lets_few_requests_pass_is_no_loss(per_second: float) -> None:
    play = Play({HOP: lambda now: 0.03}, firewall=limited(per_second, 5))
    play.run(HOUR / 6)
    assert not play.found


@pytest.mark.parametrize("busy", [1, 3, 8])
@pytest.mark.parametrize(("per_second", "burst"), [(10, 5), (10, 200), (20, 200), (40, 5), (70, 50), (100, 5)])
def test_a_firewall_with_one_limit_for_all_neighbours_is_no_loss(per_second: float, burst: int, busy: int) -> None:
    """Of eight links some have traffic. Before other links had to bear witness, one after the other was avoided."""
    traffic = dict.fromkeys(HOPS[:busy], 0.02)
    play = Play(dict.fromkeys(HOPS[:8], never), traffic=traffic, firewall=limited(per_second, burst), alone=True)
    play.run(HOUR / 12)
    assert not play.found


@pytest.mark.parametrize("bad", [HOPS[:8], HOPS[:1]], ids=["our own line", "one link"])
def test_where_most_cannot_be_asked_their_hellos_tell_our_own_line_from_a_bad_link(bad: list[NextHop]) -> None:
    found = 0
    for seed in range(10):
        losses = {hop: from_then(PROVED, 0.3) if hop in bad else never for hop in HOPS[:8]}
        play = Play(losses, seed, mute=set(HOPS[1:8]), alone=True, hellos=True)
        play.run(PROVED + 60, or_found=True)
        found += bool(play.found)
    assert found <= 2 if len(bad) > 1 else found == 10


def test_a_link_whose_losses_no_other_one_bears_witness_of_is_lossy_once_a_hello_is_missing_too() -> None:
    """Of 200 runs: 2.2 s in the median, in nine of ten at most 6.3, and in the worst 12.3."""
    found = []
    for seed in range(40):
        play = Play({HOP: from_then(PROVED, 0.3)}, seed, alone=True, hellos=True)
        play.run(PROVED + 60, or_found=True)
        found.append(play.found[HOP] - PROVED)
    assert statistics.median(found) < 4
    play = Play({HOP: never}, alone=True, hellos=True, firewall=lambda now: now < PROVED or now % 0.2 < 0.1)
    play.run(HOUR / 6)
    assert not play.found


def test_where_a_firewall_lets_some_pass_losses_are_found_although_later() -> None:
    """Where more than these get lost when it is first asked, it may count as one that answers none."""
    found = 0
    for seed in range(10):
        play = Play({HOP: from_then(PROVED, 0.3)}, seed, firewall=limited(30, 5), alone=True, hellos=True)
        play.run(PROVED + 30, or_found=True)
        found += bool(play.found)
    assert found >= 7


def test_one_that_is_lossy_from_the_beginning_is_found_within_seconds_too() -> None:
    found = []
    for seed in range(20):
        play = Play({HOP: lambda now: 0.3}, seed)
        play.run(60, or_found=True)
        found.append(play.found.get(HOP, 60.0))
    assert statistics.median(found) < 10


def test_who_answers_nothing_is_asked_seldom() -> None:
    play = Play(firewall=lambda now: False)
    play.run(HOUR)
    assert not play.found
    assert play.requests[HOP] <= 15 * PROVING
    play = Play(firewall=lambda now: now < 60)
    play.run(60)
    before = play.requests[HOP]
    play.run(HOUR)
    assert not play.found
    assert play.requests[HOP] - before <= MUTE / TRAIN + 20 * PROVING


def test_a_link_without_traffic_is_left_in_peace() -> None:
    play = Play(traffic={})
    play.run(HOUR)
    assert play.requests[HOP] == PROVING


def test_there_is_at_most_one_request_for_each_packet() -> None:
    play = Play(traffic={HOP: 1.0})
    play.run(10)
    before = play.requests[HOP]
    play.run(610)
    assert 590 <= play.requests[HOP] - before <= 610
    play = Play(traffic={HOP: 0.001})
    play.run(10)
    before = play.requests[HOP]
    play.run(610)
    assert play.requests[HOP] - before <= 600 / CALM


def test_a_hello_that_is_missed_begins_a_train_where_there_is_no_traffic() -> None:
    play = Play({HOP: from_then(PROVED, 0.3)}, traffic={})
    play.run(PROVED + 10)
    assert not play.found
    play.missed = {HOP}
    play.run(PROVED + 14)
    assert play.found
    play = Play(traffic={})
    play.run(PROVED)
    play.missed = {HOP}
    play.run(PROVED + 60)
    assert play.requests[HOP] - PROVING <= 60 * (LEAST + 4), "as while babel is muted"


def test_a_lossy_link_is_asked_seldom_until_it_is_a_good_one_again() -> None:
    play = Play({HOP: lambda now: 0.3 if PROVED <= now < 300 else 0.0})
    play.run(20)
    assert play.measured.lossy == {HOP}
    before = play.requests[HOP]
    while play.now < 300:
        play.run(play.now + 1)
        assert play.measured.lossy == {HOP}
        share = play.measured.share(HOP)
        assert share is None or 0.2 < share < 0.8
    assert play.requests[HOP] - before <= 280 / SELDOM + 1
    play.run(300 + MENDING)
    assert play.measured.lossy == frozenset()
    play.run(HOUR / 6)
    assert play.measured.lossy == frozenset()


def test_one_that_is_avoided_is_asked_although_babel_has_no_neighbour_there_any_more() -> None:
    """Else it would be tried again, and be found lossy again, again and again."""
    play = Play({HOP: from_then(PROVED, 0.3)})
    play.run(PROVED + 10)
    play.traffic, play.gone, play.avoided = {}, {HOP}, {HOP}
    play.run(HOUR / 6)
    assert play.measured.lossy == {HOP}
    play.losses[HOP] = never
    play.run(HOUR / 6 + MENDING)
    assert play.measured.lossy == frozenset()
    play.avoided = set()
    play.run(play.now + 1)
    assert play.measured.share(HOP) is None, "nobody knows it any more"


def test_one_that_is_avoided_for_another_reason_is_found_lossy_meanwhile() -> None:
    """As by hellos that were missed, over minutes."""
    play = Play({HOP: from_then(PROVED, 0.3)}, traffic={})
    play.run(PROVED)
    play.avoided = {HOP}
    play.run(PROVED + 200)
    assert play.measured.lossy == {HOP}


def test_one_that_answers_no_more_is_not_known_to_be_lossy_for_long() -> None:
    play = Play({HOP: from_then(PROVED, 0.3)})
    play.run(PROVED + 10)
    assert play.measured.lossy == {HOP}
    play.losses[HOP] = lambda now: 1.0
    play.run(play.now + SILENT + 2)
    assert play.measured.lossy == frozenset()


@pytest.mark.parametrize("seed", range(10))
def test_where_our_own_line_loses_packets_no_link_is_lossy(seed: int) -> None:
    play = Play(dict.fromkeys(HOPS[:8], from_then(PROVED + 1, 0.3)), seed, traffic={HOP: 0.02, HOPS[1]: 0.02})
    play.run(PROVED + 1)
    assert play.requests[HOPS[5]] == PROVING
    play.run(PROVED + 20)
    assert not play.found
    assert play.measured.rests_until > play.now
    play.run(play.now + 600)
    assert not play.found
    assert play.requests[HOPS[5]] < 1000, "they are asked again now and then"


@pytest.mark.parametrize("seed", range(10))
def test_where_one_link_loses_packets_others_are_not_suspected(seed: int) -> None:
    play = Play({HOP: from_then(30, 0.3), **dict.fromkeys(HOPS[1:20], lambda now: 0.01)}, seed, traffic={HOP: 0.02})
    play.run(60, or_found=True)
    assert play.found.keys() == {HOP}
    assert len(play.suspected) <= 2
    play.avoided = {HOP}
    before = sum(map(play.requests.__getitem__, HOPS[1:20]))
    play.run(play.now + HOUR / 6)
    assert sum(map(play.requests.__getitem__, HOPS[1:20])) - before < 40 * COMPARED, "then they are left in peace"


def test_there_are_few_trains_at_one_time_and_none_goes_on_for_ever() -> None:
    """As where peers lie, and leave one of ten requests without an answer."""
    losses = {hop: (lambda now: 0.06) if number < 8 else never for number, hop in enumerate(HOPS[:20])}
    play = Play(losses, traffic=dict.fromkeys(HOPS[:20], 0.02))
    play.run(PROVED + 10)
    before, since = sum(play.requests.values()), play.now
    play.run(since + 60)
    assert sum(play.requests.values()) - before < (TRAINS / TRAIN + 20 / CALM) * 60
    least = min(play.requests[hop] for hop in HOPS[:20])
    assert least > 60 / CALM / 2, "each has its turn"


@pytest.mark.parametrize("seed", range(3))
def test_a_neighbour_that_always_seems_about_to_be_lossy_costs_idle_links_little(seed: int) -> None:
    """One that lies may leave just so many requests without an answer."""
    play = Play({HOP: lambda now: 0.065, **dict.fromkeys(HOPS[1:20], never)}, seed, traffic={HOP: 0.02})
    play.run(PROVED + 10)
    before = sum(map(play.requests.__getitem__, HOPS[1:20]))
    play.run(play.now + HOUR / 4)
    asked = sum(map(play.requests.__getitem__, HOPS[1:20])) - before
    most = HOUR / 4 / COMPARE_AGAIN + 1
    assert asked <= most * COMPARED * (COMPARE_LONGEST / CALM + 1)


def test_who_cannot_be_asked_takes_nobodys_place_when_links_are_compared() -> None:
    """Of our own line that loses packets nothing would be known, and links left one after the other."""
    silent, others = HOPS[1:15], HOPS[15:23]
    play = Play(dict.fromkeys(HOPS[:23], from_then(60, 0.3)), traffic={HOP: 0.02})
    for hop in silent:
        play.losses[hop] = lambda now: 1.0
    play.run(60)
    play.run(80)
    assert not play.found
    assert all(play.requests[hop] > PROVING + 2 for hop in others)


def test_an_answer_that_was_held_back_says_nothing_of_the_round_trip() -> None:
    play = Play()
    play.run(PROVED + 1)
    play.measured.answered(HOP, 1, 900.0, play.now)
    play.losses[HOP] = lambda now: 0.3
    since = play.now
    play.run(since + 20, or_found=True)
    assert play.found[HOP] - since < 10


def test_many_links_are_bounded_and_those_that_are_gone_are_forgotten() -> None:
    measured, now = LinkLoss(), 0.0
    hops = {NextHop(IPv6Address(number), "re6stnet1"): 0 for number in range(LIMIT + 50)}
    seen: set[NextHop] = set()
    while now < 600:
        seen |= set(measured.look(hops, now))
        now += max(0.1, min(measured.pause(now), 0.2))
    assert len(seen) == LIMIT
    assert measured.look({}, now) == ()
    measured.answered(next(iter(hops)), 1, 0.1, now)
    measured.asked(next(iter(hops)), 1, now)


STEPS = st.lists(
    st.tuples(st.floats(0.001, 3), st.integers(0, 5), st.sampled_from(["answer", "lose", "late"]), st.booleans()),
    max_size=400,
)


@given(STEPS, st.booleans())
@settings(max_examples=200, deadline=None)
def test_whatever_happens_nobody_is_asked_too_often_and_only_what_was_overtaken_counts(
    steps: list[tuple[float, int, str, bool]], avoids: bool
) -> None:
    measured, now, sent, number, lost = LinkLoss(), 0.0, 0, 0, 0
    late: list[tuple[int, float]] = []
    asked: list[float] = []
    for pause, went, fate, missed in steps:
        now += pause if pause > 0.5 else min(measured.pause(now), 1.0) if pause > 0.2 else pause / 10
        sent += went
        avoided = {HOP} & measured.lossy if avoids else frozenset[NextHop]()
        wanted = measured.look({HOP: sent}, now, {HOP} if missed else frozenset(), avoided)
        assert set(wanted) <= {HOP}
        assert not wanted or not asked or now - asked[-1] >= len(wanted) * (PROVE - EARLY) - EARLY
        for _ in wanted:
            asked.append(now)
            number += 1
            measured.asked(HOP, number, now)
            if fate == "answer":
                measured.answered(HOP, number, 0.01, now)
            elif fate == "late":
                late.append((number, now))
            else:
                lost += 1
        for each in [each for each in late if now - each[1] > 0.1]:
            late.remove(each)
            measured.answered(HOP, each[0], now - each[1], now)
        assert measured.pause(now) >= 0
        if HOP in measured.lossy:
            assert lost >= LOSSY_SLOWLY, "what is late, or never was sent, is no loss"
        if not avoids and not went and not missed:
            assert measured.suspected <= {HOP}


@given(st.lists(st.floats(0.005, 0.3), min_size=50, max_size=300))
@settings(max_examples=100, deadline=None)
def test_a_neighbour_that_says_nothing_at_all_is_dead_and_not_lossy(pauses: list[float]) -> None:
    measured, now, number = LinkLoss(), 0.0, 0
    while now < PROVED:
        now += TRAIN
        for _ in measured.look({HOP: int(now * 50)}, now):
            number += 1
            measured.asked(HOP, number, now)
            measured.answered(HOP, number, 0.01, now)
    for pause in pauses:
        now += pause
        for _ in measured.look({HOP: int(now * 50)}, now, {HOP}):
            number += 1
            measured.asked(HOP, number, now)
        assert not measured.lossy


def test_a_second_of_losses_is_outlasted() -> None:
    """However many get lost in it: the score grows by LASTING at most."""
    assert FEW + 1 + LASTING < LOSSY - 3
    for share in (0.2, 0.5, 0.9):
        play = Play({HOP: lambda now, share=share: share if 10 <= now < 11 else 0.0})  # type: ignore[misc]
        play.run(60)
        assert not play.found
