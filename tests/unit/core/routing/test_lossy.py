"""Whether packets get lost on a tunnel, by what TCP sent again and by the hellos that were missed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix
from re6st.core.routing.lossy import AGAIN_LEAST, LONGEST, MOMENTS, Retransmissions, Sent, is_patchy

P, Q = Prefix(1, 16), Prefix(2, 16)
NOTHING: frozenset[Prefix] = frozenset()


def played(share: float, *, seconds: float = 5.0, per_second: int = 50, silent: float = 0.02) -> frozenset[Prefix]:
    """What is said of a connection on which this share of all segments are sent again."""
    seen, chance, segments, again = Retransmissions(), Random(1), 1000, 10
    for step in range(int(seconds * 4)):
        for _ in range(per_second // 4):
            segments += 1
            while chance.random() < share:
                segments, again = segments + 1, again + 1
        seen.note({P: Sent(segments, again, silent)}, 100 + step / 4)
    return seen.lossy


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.1])
def test_a_way_as_others(share: float) -> None:
    assert played(share) == NOTHING


@pytest.mark.parametrize("per_second", [8, 50, 1000])
def test_a_way_that_loses_every_third_packet(per_second: int) -> None:
    assert played(0.3, per_second=per_second) == {P}


def test_it_is_seen_after_a_second_where_there_is_traffic() -> None:
    seen = Retransmissions()
    for step in range(12):
        seen.note({P: Sent(12 * step, 0, 0)}, step / 4)
    for step in range(12, 12 + MOMENTS):
        seen.note({P: Sent(12 * step, 4 * (step - 11), 0)}, step / 4)
    assert seen.lossy == {P}


def test_where_something_was_sent_again_of_late_moments_count() -> None:
    seen = Retransmissions()
    doubtful = []
    for step in range(12):
        seen.note({P: Sent(12 * step, int(step >= 4), 0), Q: Sent(12 * step, 3, 0)}, float(step))
        doubtful.append(seen.doubtful)
    assert doubtful == [False] * 4 + [True] * int(LONGEST) + [False] * 5


def test_it_is_seen_a_second_later_where_nothing_was_sent_again_before() -> None:
    """As looks are rare then, until the first segments are sent again."""
    seen, again, now, looks = Retransmissions(), 0, 0.0, 0
    while not seen.lossy:
        now += 0.25 if seen.doubtful else 1.0
        looks += 1
        again = int(8 * max(0.0, now - 3.5))
        seen.note({P: Sent(int(24 * now), again, 0)}, now)
    assert now <= 3.5 + 2
    assert looks < 10


@pytest.mark.parametrize("seconds", [0.25, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("per_second", [8, 40])
def test_a_moment_in_which_nothing_got_through_is_no_loss(seconds: float, per_second: int) -> None:
    """What was lost meanwhile is sent again at once: after 0.2, 0.6, 1.4 and 3 s one each, then all the rest."""
    seen, segments, again = Retransmissions(), 1000, 0
    for step in range(40):
        time = step / 4 - 2
        if 0 < time <= seconds:
            again += sum(time - 0.25 < timer <= time for timer in (0.2, 0.6, 1.4, 3.0))
            segments += 1
        elif seconds < time <= seconds + 0.25:
            lost = int(per_second * seconds)
            segments, again = segments + 2 * lost, again + lost
        else:
            segments += per_second // 4
        seen.note({P: Sent(segments, again, max(0.0, min(time, seconds)) if time <= seconds else 0.0)}, 100 + time)
        assert seen.lossy == NOTHING, time


def test_a_way_that_is_cut_is_another_matter() -> None:
    assert played(0.9, per_second=4, silent=2.0) == NOTHING


def steps(seen: Retransmissions, since: float, count: int, **more: tuple[int, int]) -> float:
    """Looks at which each has sent so many segments more, so many again."""
    for step in range(count):
        sent = {
            peer: Sent(seen_before[0] + step * more[name][0], seen_before[1] + step * more[name][1], 0.0)
            for name, peer, seen_before in (("p", P, (100, 0)), ("q", Q, (500, 50)))
            if name in more
        }
        seen.note(sent, since + step / 4)
    return since + count / 4


def test_it_is_forgotten_when_it_is_over() -> None:
    seen = Retransmissions()
    now = steps(seen, 1, MOMENTS + 2, p=(10, 3))
    assert seen.lossy == {P}
    for second in range(2 + int(LONGEST)):
        seen.note({P: Sent(1000 + second, 3 * MOMENTS + 3, 0)}, now + second)
    assert seen.lossy == NOTHING


def test_each_connection_counts_for_itself_and_a_new_one_from_its_beginning() -> None:
    seen = Retransmissions()
    now = steps(seen, 1, AGAIN_LEAST, p=(10, 0), q=(10, 5))
    assert seen.lossy == {Q}
    seen.note({P: Sent(200, 0, 0), Q: Sent(20, 5, 0)}, now)
    assert seen.lossy == NOTHING, "it is another one"
    now = steps(seen, now + 10, AGAIN_LEAST, p=(10, 5), q=(10, 0))
    assert seen.lossy == {P}
    seen.note({}, now)
    assert seen.lossy == NOTHING


@pytest.mark.parametrize(
    "reach",
    [
        *(0xFFFF, 0x7FFF, 0xF7FF, 0x0FFF, 0x003F, 0x0000),
        *(0x8000, 0xFF00, 0xA800),  # has just come
        0b1111_0000_0111_1111,  # was away for a moment
        0b1101_1011_1111_1111,
    ],
)
def test_histories_that_say_nothing(reach: int) -> None:
    assert not is_patchy(reach)


@pytest.mark.parametrize("reach", [0b1011_0111_0101_1111, 0b0110_1101_1110_1111, 0b1010_1010_1010_1010])
def test_histories_with_holes(reach: int) -> None:
    assert is_patchy(reach)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_only_the_last_sixteen_count(reach: int, older: int) -> None:
    assert is_patchy(reach) == is_patchy(older << 16 | reach)


def test_thirty_percent_are_seen_soon_and_two_are_not() -> None:
    def share(loss: float) -> float:
        chance = Random(1)
        histories = [sum((chance.random() >= loss) << bit for bit in range(16)) for _ in range(2000)]
        return sum(map(is_patchy, histories)) / 2000

    assert share(0.3) > 0.4
    assert share(0.02) < 0.001
