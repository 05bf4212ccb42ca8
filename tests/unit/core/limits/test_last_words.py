"""What is the same again and again is said once of each."""

from __future__ import annotations

from re6st.core.limits.said import LIMIT, LastWords


def test_the_same_is_said_once_and_something_else_at_once() -> None:
    said = LastWords()
    assert [said.are_new("a", "no"), said.are_new("a", "no"), said.are_new("b", "no")] == [True, False, True]
    assert [said.are_new("a", "why"), said.are_new("a", "no")] == [True, True]


def test_those_of_whom_nothing_was_said_for_long_are_forgotten() -> None:
    said = LastWords()
    for number in range(LIMIT + 1):
        said.are_new(number, "no")
    assert said.are_new(0, "no")
    assert not said.are_new(LIMIT, "no")
