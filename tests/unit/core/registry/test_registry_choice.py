"""Which registry a node asks: it keeps to one that works, leaves one that does not, and comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from re6st.core.registry.registry_choice import LIMIT, PAUSE_FIRST, PAUSE_LAST, STAY, RegistryChoice

A, B, C, D = (f"http://{name}.example.com/" for name in "abcd")


def test_the_first_one_is_asked_first() -> None:
    choice = RegistryChoice([A, B, C])
    assert choice.present == A
    assert choice.order(1e6) == [A, B, C]
    assert not choice.answered(A, 1e6), "nothing changed"


def test_a_node_stays_with_the_one_that_answered_and_comes_back_after_an_hour() -> None:
    choice = RegistryChoice([A, B, C])
    assert choice.failed(A, "refused", 100)
    assert choice.answered(B, 100)
    assert choice.present == B
    later = 100 + PAUSE_FIRST + 1
    assert choice.order(later) == [B, A, C], "A may be back, but nothing is wrong with B"
    assert not choice.answered(B, later)
    assert choice.order(100 + STAY) == [A, B, C]
    assert choice.answered(A, 100 + STAY), "it is asked from now on"
    assert choice.order(100 + STAY) == [A, B, C]


def test_who_finds_the_first_one_still_away_stays_another_hour() -> None:
    choice = RegistryChoice([A, B])
    choice.failed(A, "refused", 0)
    choice.answered(B, 0)
    assert not choice.failed(A, "refused", STAY), "that is no news"
    choice.answered(B, STAY)
    assert choice.order(2 * STAY - 1) == [B, A]
    assert choice.order(2 * STAY) == [A, B]


def test_one_that_failed_is_asked_last_for_longer_and_longer() -> None:
    choice, now, pauses = RegistryChoice([A, B]), 0.0, []
    for _ in range(9):
        choice.failed(A, "refused", now)
        start = now
        while choice.order(now)[0] != A:
            now += 30
        pauses.append(now - start)
    assert pauses[:3] == [PAUSE_FIRST, 2 * PAUSE_FIRST, 4 * PAUSE_FIRST]
    assert pauses[-1] == PAUSE_LAST
    choice.answered(A, now)
    choice.failed(A, "refused", now)
    assert choice.order(now + PAUSE_FIRST)[0] == A, "it had worked again"


def test_where_all_fail_each_is_asked_the_one_that_failed_longest_ago_first() -> None:
    choice = RegistryChoice([A, B, C])
    for when, url in enumerate((B, C, A)):
        choice.failed(url, "no route", when)
    assert choice.order(10) == [B, C, A]


def test_another_reason_is_news() -> None:
    choice = RegistryChoice([A, B])
    assert choice.failed(A, "refused", 0)
    assert not choice.failed(A, "refused", 1)
    assert choice.failed(A, "no route", 2)
    choice.answered(A, 3)
    assert choice.failed(A, "no route", 4), "it had worked in between"


def test_what_the_parameters_name_is_asked_after_what_this_machine_was_given() -> None:
    choice = RegistryChoice([B])
    assert choice.learn([A, B, C, A]) == ([A, C], [])
    assert choice.order(0) == [B, A, C]
    assert choice.learn([C, D]) == ([D], [A])
    assert choice.order(0) == [B, C, D]
    assert choice.learn([]) == ([], [C, D])
    assert choice.order(0) == [B]


def test_one_that_is_no_longer_named_is_left_at_once_and_one_that_stays_keeps_its_failures() -> None:
    choice = RegistryChoice([A])
    choice.learn([B, C])
    choice.failed(A, "refused", 0)
    choice.failed(C, "refused", 0)
    choice.answered(B, 0)
    choice.learn([C, D])
    assert choice.present == A
    assert choice.order(1) == [D, A, C]
    assert not choice.answered(B, 1), "an answer that came too late"
    assert not choice.failed(B, "refused", 1)


def test_their_number_is_limited() -> None:
    many = [f"http://{number}.example.com/" for number in range(100)]
    choice = RegistryChoice(many[:50])
    choice.learn(many)
    assert choice.order(0) == many[: 2 * LIMIT]


EVENTS = st.lists(st.tuples(st.sampled_from([A, B, C, D]), st.booleans(), st.floats(0, 2 * STAY)), max_size=60)


@given(EVENTS, st.lists(st.sampled_from([B, C, D]), max_size=4))
def test_none_is_ever_left_out_and_one_that_just_answered_is_asked_next(
    events: list[tuple[str, bool, float]], learned: list[str]
) -> None:
    choice, now = RegistryChoice([A, B]), 0.0
    for number, (url, answers, pause) in enumerate(events):
        if number == len(events) // 2:
            choice.learn(learned)
        known = [each.url for each in choice.all]
        assert sorted(choice.order(now)) == sorted(set(known))
        if answers:
            choice.answered(url, now)
            if url in known:
                assert choice.present == url
                assert choice.order(now)[0] == url
        else:
            choice.failed(url, "refused", now)
            good = [each.url for each in choice.all if now >= each.avoided_until]
            assert choice.order(now)[: len(good)] == good or choice.order(now)[0] in good
        now += pause
