"""When babeld is to forget all that it knew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_restart import (
    ALONE_PAUSE,
    ASLEEP,
    PATIENCE,
    PAUSE_FIRST,
    PAUSE_LAST,
    SPREAD,
    BabelRestartPolicy,
    Start,
)
from re6st.core.routing.survey import Survey

B, C = Prefix(2, 16), Prefix(3, 16)
MET = Survey(peers=frozenset({B, C}), alone=False)
ALONE = Survey(alone=True)
STARVED = Survey(peers=frozenset({C}), alone=False, starved=frozenset({B}))
AWAY = Survey(running=False)
HELLO = 0.25


def times(renewal: BabelRestartPolicy, seen: Survey, since: int, until: int) -> list[int]:
    """The seconds in which it is due, looked at once a second."""
    return [now for now in range(since, until) if renewal.due(seen, float(now), HELLO)]


def test_who_never_had_a_neighbour_has_nothing_to_forget() -> None:
    assert not times(BabelRestartPolicy(Random(1)), ALONE, 100, 200)


def test_it_is_due_once_when_all_neighbours_are_gone() -> None:
    renewal = BabelRestartPolicy(Random(1))
    assert not renewal.due(MET, 100, HELLO)
    assert renewal.due(ALONE, 101, HELLO) == Start("all its neighbours are gone")
    assert not times(renewal, AWAY, 101, 103)
    assert not times(renewal, ALONE, 103, 200)


def test_a_network_that_comes_and_goes_costs_a_start_now_and_then() -> None:
    renewal = BabelRestartPolicy(Random(1))
    found = [now for now in range(100, 200) if renewal.due((MET, ALONE, AWAY, ALONE)[now % 4], float(now), HELLO)]
    assert 5 <= len(found) <= 100 / ALONE_PAUSE + 1


def test_after_a_start_it_counts_from_the_first_neighbour_on() -> None:
    renewal = BabelRestartPolicy(Random(1))
    assert not renewal.due(MET, 100, HELLO)
    assert not renewal.due(AWAY, 101, HELLO)
    assert not renewal.due(ALONE, 102, HELLO), "the new babeld has not met anybody yet"


def beside(*peers: Prefix) -> Survey:
    return Survey(peers=frozenset(peers), alone=False, neighbours=dict.fromkeys(peers, ()))


NO_WAY = Survey(alone=False)


def test_who_lost_all_ways_and_found_others_is_due_at_once() -> None:
    """Between two looks that are a second apart."""
    renewal = BabelRestartPolicy(Random(1))
    assert not renewal.note(beside(B), 100.0)
    assert not renewal.note(NO_WAY, 100.2)
    assert not renewal.note(replace(NO_WAY, peers=frozenset({C})), 100.3), "whose way it is we do not know yet"
    assert renewal.note(beside(C), 100.4) == Start("all its neighbours are others than before")
    assert not renewal.note(AWAY, 100.5)
    assert not renewal.note(beside(C), 101.0)


@pytest.mark.parametrize(
    "surveys",
    [
        (beside(B), beside(B, C), beside(C), NO_WAY, NO_WAY, beside(C), beside(C, B)),
        (beside(B, C), beside(C), NO_WAY, beside(B)),
        (NO_WAY, beside(B), NO_WAY, AWAY, NO_WAY, beside(C)),
        (beside(B), NO_WAY, replace(NO_WAY, generation=1), replace(beside(C), generation=1)),
    ],
    ids=["the same", "another one of them, all being lost one by one", "no babeld", "another babeld, seen too late"],
)
def test_who_lost_none_or_found_one_of_them_again_is_not(surveys: Sequence[Survey]) -> None:
    renewal = BabelRestartPolicy(Random(1))
    for step, seen in enumerate(surveys):
        assert not renewal.note(seen, float(step))


def test_one_reason_is_enough() -> None:
    """Whatever the last survey of the babeld that is ended says, and the first of the next one."""
    renewal = BabelRestartPolicy(Random(1))
    assert not renewal.due(MET, 100.0, HELLO)
    assert not renewal.note(beside(B), 100.0)
    assert renewal.due(ALONE, 101.0, HELLO)
    assert not renewal.note(beside(C), 101.5)
    assert not renewal.note(replace(NO_WAY, generation=1), 102.0)
    assert not renewal.note(replace(beside(C), generation=1), 115.0)
    assert not renewal.note(NO_WAY, 120.0)
    assert renewal.note(beside(B), 120.1) is None
    assert not renewal.due(ALONE, 120.2, HELLO)


def test_neighbours_that_come_and_go_cost_a_start_now_and_then() -> None:
    renewal = BabelRestartPolicy(Random(1))
    found = 0
    for now in range(100, 200):
        found += renewal.note(beside(Prefix(now, 16)), float(now)) is not None
        renewal.note(NO_WAY, now + 0.5)
    assert 5 <= found <= 100 / ALONE_PAUSE + 1


def test_ways_that_are_not_taken_for_some_seconds() -> None:
    for seed in range(20):
        (first, *_) = times(BabelRestartPolicy(Random(seed)), STARVED, 1000, 1030)
        assert PATIENCE <= first - 1000 <= 2 * PATIENCE + 1


def test_rare_hellos_need_more_patience() -> None:
    """A link that is drained loses its routes while they are missed."""
    for hello, least in ((0.25, 1.0), (0.5, 2.0), (3.0, 4.0), (15.0, 4.0)):
        found = []
        for seed in range(50):
            renewal = BabelRestartPolicy(Random(seed))
            found.append(next(step / 10 for step in range(200) if renewal.due(STARVED, 1000 + step / 10, hello)))
        assert least <= min(found) <= least + 0.5
        assert 2 * least - 0.5 <= max(found) <= 2 * least + 0.5


def test_not_all_do_it_at_once() -> None:
    def first(renewal: BabelRestartPolicy) -> int:
        """In tenths of a second."""
        return next(step for step in range(100) if renewal.due(STARVED, 1000 + step / 10, HELLO))

    assert len({first(BabelRestartPolicy(Random(seed))) for seed in range(20)}) > 5


def test_in_a_large_network_few_do_it_before_the_others_have_been_helped() -> None:
    """A babeld that is new passes questions on, so that all get an answer some seconds after the first start."""
    seen = Survey(peers=frozenset(Prefix(number, 16) for number in range(500)), alone=False, starved=frozenset({B}))
    first = sorted(times(BabelRestartPolicy(Random(seed)), seen, 1000, 1040)[0] for seed in range(100))
    assert sum(each <= first[0] + 2 for each in first) < 40
    assert first[-1] <= 1000 + 2 * PATIENCE + 500 * SPREAD + 1


def test_what_passes_by_itself_is_left_alone() -> None:
    renewal = BabelRestartPolicy(Random(1))
    for start in range(1000, 1100, 5):
        assert not times(renewal, STARVED, start, start + int(PATIENCE))
        assert not renewal.due(MET, start + PATIENCE, HELLO)


def test_it_is_tried_less_and_less_often_where_it_does_not_help() -> None:
    renewal = BabelRestartPolicy(Random(1))
    found = times(renewal, STARVED, 1000, 10_000)
    pauses = [b - a for a, b in pairwise(found)]
    assert pauses == sorted(pauses)
    assert PAUSE_FIRST <= pauses[0] <= PAUSE_FIRST + 2
    assert PAUSE_LAST <= pauses[-1] <= PAUSE_LAST + 2
    assert not times(renewal, MET, 10_000, 10_000 + int(PAUSE_LAST))
    since = 10_000 + int(PAUSE_LAST)
    again = times(renewal, STARVED, since, since + 60)
    assert PAUSE_FIRST <= again[1] - again[0] <= PAUSE_FIRST + 2, "after a calm it is patient no more"


def test_who_lacks_another_way_soon_after_is_helped_as_well() -> None:
    renewal = BabelRestartPolicy(Random(1))
    first = next(now for now in range(1000, 1010) if renewal.due(STARVED, float(now), HELLO))
    assert not times(renewal, AWAY, first + 1, first + 2)
    assert not times(renewal, MET, first + 2, first + 8)
    other = Survey(peers=frozenset({B}), alone=False, starved=frozenset({C}))
    (second, *_) = times(renewal, other, first + 8, first + 20)
    assert second <= first + 8 + 2 * PATIENCE + 1


def test_a_machine_that_slept_has_been_given_up_by_its_neighbours() -> None:
    renewal = BabelRestartPolicy(Random(1))
    assert not times(renewal, MET, 100, 110)
    assert not renewal.due(MET, 109 + ASLEEP + 15, HELLO), "babeld has not told yet what it sees now"
    assert renewal.due(MET, 130, HELLO) == Start("this machine slept for 20 s", stale=True)
    assert not times(renewal, AWAY, 131, 133)
    assert not times(renewal, MET, 133, 200)


def test_while_its_news_are_not_read_nothing_is_decided_and_nothing_forgotten() -> None:
    """A machine that wakes up reads slowly: babeld closes its connection."""
    late = replace(MET, running=False, late=True)
    renewal = BabelRestartPolicy(Random(1))
    assert not times(renewal, MET, 100, 110)
    assert not times(renewal, replace(late, alone=True), 110, 115)
    assert renewal.due(ALONE, 116, HELLO) == Start("all its neighbours are gone")
    renewal = BabelRestartPolicy(Random(1))
    assert not times(renewal, MET, 100, 110)
    assert not times(renewal, late, 150, 155)
    assert renewal.due(MET, 156, HELLO) == Start("this machine slept for 41 s", stale=True)


def test_if_we_alone_did_not_run_babeld_has_the_neighbours_that_it_had() -> None:
    renewal, steady = BabelRestartPolicy(Random(1)), replace(MET, steady=True)
    assert not times(renewal, steady, 100, 110)
    assert not times(renewal, steady, 130, 200)


def test_rare_hellos_give_a_machine_more_time() -> None:
    renewal = BabelRestartPolicy(Random(1))
    assert not renewal.due(MET, 100, 15)
    assert not renewal.due(MET, 150, 15), "fifty seconds are but three hellos"


def test_what_was_seen_some_time_ago_does_not_decide() -> None:
    """A large table is read now and then: what lacked a way then may have one by now."""
    renewal = BabelRestartPolicy(Random(1))
    assert not renewal.doubts
    for now in range(100, 110):
        assert not renewal.due(STARVED, float(now), HELLO, age=now - 100.0)
        assert renewal.doubts, "it is to be read"
    assert renewal.due(STARVED, 110.0, HELLO)
    renewal = BabelRestartPolicy(Random(1))
    assert not renewal.due(STARVED, 100.0, HELLO)
    assert not renewal.due(MET, 101.0, HELLO)
    assert not renewal.doubts


def test_who_slept_looks_at_what_babeld_sees_since() -> None:
    renewal = BabelRestartPolicy(Random(1))
    assert not times(renewal, MET, 100, 110)
    assert not renewal.due(MET, 130.0, HELLO, age=21.0)
    assert not renewal.due(MET, 131.0, HELLO, age=22.0)
    assert renewal.doubts
    assert renewal.due(MET, 132.0, HELLO, age=0.1) == Start("this machine slept for 21 s", stale=True)


@pytest.mark.parametrize("age", [1.1, 1.9])
def test_what_babeld_knew_after_the_sleep_counts_though_it_was_a_look_ago(age: float) -> None:
    """Between two looks, a large table is read, and takes its time to be looked at."""
    renewal = BabelRestartPolicy(Random(1))
    assert not times(renewal, MET, 100, 110)
    assert not renewal.due(MET, 130.0, HELLO, age=21.0)
    assert not renewal.due(MET, 132.0, HELLO, age=2.1), "that was before"
    assert renewal.due(MET, 132.0, HELLO, age=age) == Start("this machine slept for 21 s", stale=True)


def test_it_says_which_and_how_many() -> None:
    renewal = BabelRestartPolicy(Random(1))
    both = Survey(alone=False, starved=frozenset({B, C}))
    (said,) = {start.reason for now in range(8) if (start := renewal.due(both, 100.0 + now, HELLO))}
    assert said == "it uses none of the routes that lead to 2/16 and 1 more"
