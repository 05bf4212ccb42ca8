"""Which links are silent, by what one babeld after another says."""

from __future__ import annotations

from re6st.core.transport.met_links import LEARNS, LOST_TIME, MEET_TIME, MetLinks

BOTH = {"one", "two"}


def silent(links: MetLinks) -> set[str]:
    """Of two links that came up long ago."""
    return {name for name in BOTH if links.is_silent(name, 0.0)}


def test_a_link_is_silent_once_babel_has_said_so_for_some_seconds() -> None:
    links = MetLinks()
    links.look(1, 1000.0, BOTH, BOTH)
    links.look(1, 1001.0, BOTH, {"one"})
    assert links.is_lost("two")
    assert not silent(links)
    links.look(1, 1001.0 + LOST_TIME, BOTH, {"one"})
    assert silent(links) == {"two"}
    links.look(1, 1002.0 + LOST_TIME, BOTH, BOTH)
    assert not silent(links)
    assert not links.is_lost("two")


def test_a_table_that_is_read_now_and_then_says_nothing_of_the_time_since() -> None:
    """Each of our looks finds the same one, until babel is asked again."""
    links = MetLinks()
    links.look(1, 1000.0, BOTH, BOTH)
    for _ in range(10):
        links.look(1, 1010.0, BOTH, {"one"})
        assert not silent(links)
    links.look(1, 1020.0, BOTH, BOTH)
    assert not silent(links)


def test_who_comes_up_has_time_to_be_met() -> None:
    links = MetLinks()
    links.look(1, 1000.0, {"one"}, {"one"})
    links.look(1, 1000.0 + MEET_TIME, BOTH, {"one"})
    assert not links.is_silent("two", 1010.0)
    assert not links.is_lost("two"), "it was never met"
    links.look(1, 1010.0 + MEET_TIME, BOTH, {"one"})
    assert links.is_silent("two", 1010.0)


def test_another_babeld_has_time_to_meet_them_all() -> None:
    links = MetLinks()
    links.look(1, 1000.0, BOTH, BOTH)
    links.look(None, 1001.0, BOTH, set())
    assert not silent(links)
    links.look(2, 1002.0, BOTH, {"one"})
    links.look(2, 1001.0 + MEET_TIME, BOTH, {"one"})
    assert not silent(links)
    links.look(2, 1002.0 + MEET_TIME, BOTH, {"one"})
    assert silent(links) == {"two"}
    links.look(3, 1003.0 + MEET_TIME, BOTH, {"one"})
    assert not silent(links), "though nobody saw that there was none in between"


def test_a_babeld_knows_the_network_after_a_while() -> None:
    links = MetLinks()
    assert not links.is_settled(1000.0)
    links.look(1, 1000.0, BOTH, BOTH)
    assert not links.is_settled(1000.0)
    assert links.is_settled(1000.0 + LEARNS)
    links.look(None, 1100.0, BOTH, set())
    assert not links.is_settled(1200.0)
    links.look(2, 1200.0, BOTH, set())
    assert not links.is_settled(1201.0)
    assert links.is_settled(1200.0 + LEARNS)
