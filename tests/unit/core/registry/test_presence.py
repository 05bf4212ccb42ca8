"""Since when nodes are online or offline, from look to look."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix
from re6st.core.registry.presence import ABSENCE, Presence, Stay

A, B, C = (Prefix(number, 16) for number in range(3))


def look(presence: Presence, now: float, *there: Prefix, patience: float = ABSENCE) -> None:
    presence.look(there, now, lambda prefix: patience)


def test_a_stay_begins_when_the_node_is_seen_and_ends_when_it_was_seen_last() -> None:
    presence = Presence()
    look(presence, 1000, A)
    look(presence, 1060, A, B)
    assert (presence.since(A), presence.since(B), presence.since(C)) == (1000, 1060, None)
    look(presence, 1120, A)
    assert (presence.since(B), presence.seen(B)) == (None, 1060), "missed, and perhaps back in a moment"
    assert presence.take_news() == [Stay(A, True, 1000), Stay(B, True, 1060)]
    look(presence, 1180, A)
    assert (presence.since(B), presence.seen(B)) == (None, None)
    assert presence.take_news() == [Stay(B, False, 1060)]
    assert presence.take_news() == []


def test_a_short_absence_does_not_end_a_stay() -> None:
    presence = Presence()
    look(presence, 1000, A, B)
    look(presence, 1030, A)
    look(presence, 1089, A, B)
    assert presence.since(B) == 1000
    look(presence, 1090, A)
    look(presence, 1149, A)
    look(presence, 1150, A, B)
    assert presence.since(B) == 1000, "each absence counts for itself"


def test_stays_go_on_over_a_restart() -> None:
    before = [Stay(A, True, 100), Stay(B, True, 200), Stay(C, False, 150)]
    presence = Presence(before, looked=5000)
    look(presence, 9000)
    assert (presence.seen(A), presence.seen(B)) == (5000, 5000), "its node has just started: nobody is gone"
    look(presence, 9030, A, C)
    assert (presence.since(A), presence.since(C)) == (100, 9030)
    look(presence, 9060, A, C)
    assert presence.take_news() == [Stay(C, True, 9030), Stay(B, False, 5000)]


def test_a_clock_that_was_set_back_makes_no_time_of_the_future() -> None:
    presence = Presence([Stay(A, True, 100)], looked=9000)
    look(presence, 1000)
    assert presence.seen(A) == 1000


def test_what_could_not_be_stored_is_told_again() -> None:
    presence = Presence()
    look(presence, 1000, A, B)
    news = presence.take_news()
    look(presence, 1001, A, patience=0)
    presence.give_back(news)
    assert sorted(presence.take_news(), key=lambda stay: stay.prefix) == [Stay(A, True, 1000), Stay(B, False, 1000)]


def test_another_node_with_the_prefix_of_one_that_was_revoked_begins_anew() -> None:
    presence = Presence()
    look(presence, 1000, A)
    presence.forget(A)
    look(presence, 1010, A)
    assert presence.since(A) == 1010


@given(st.lists(st.tuples(st.integers(0, 300), st.sets(st.sampled_from((A, B, C)))), min_size=1))
def test_who_is_there_is_online_since_no_later_and_what_is_stored_agrees(looks: list[tuple[int, set[Prefix]]]) -> None:
    presence, now, stored = Presence(), 1000, dict[Prefix, Stay]()
    for passed, there in looks:
        now += passed
        look(presence, now, *there)
        stored |= {stay.prefix: stay for stay in presence.take_news()}
        for prefix in (A, B, C):
            since = presence.since(prefix)
            assert (since is not None) == (prefix in there)
            assert since is None or since <= now
            if since is not None:
                assert stored[prefix] == Stay(prefix, True, since)
            elif prefix in stored and presence.seen(prefix) is None:
                assert not stored[prefix].online
