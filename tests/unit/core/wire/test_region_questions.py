"""Somebody of another region is found by questions, each with one answer, in its time, of whom it was put to."""

from __future__ import annotations

import pytest

from re6st.core.prefix import Prefix
from re6st.core.wire.region_questions import ANSWER_TIME, LIMIT, RegionQuestions

REGION, ELSEWHERE = Prefix(1, 14), Prefix(2, 14)
NEAREST, OTHER, STRANGER = Prefix(4, 16), Prefix(6, 16), Prefix(9, 16)
NAME = OTHER.bits.encode()
LONGEST = 16


def test_who_greets_us_from_there_is_asked_and_whom_it_names_tells_where_it_is() -> None:
    questions = RegionQuestions()
    assert questions.ask(REGION, 0.0)
    assert not questions.ask(REGION, 1.0), "it is under way"
    assert questions.is_met(NEAREST, REGION, 1.0)
    assert not questions.is_met(OTHER, REGION, 1.0), "one is enough"
    assert questions.named(NEAREST, REGION, NAME, LONGEST, 2.0) == OTHER
    assert questions.told(NEAREST, 3.0) is None, "it was not named"
    assert questions.told(OTHER, 3.0) == REGION
    assert questions.told(OTHER, 3.0) is None
    assert questions.ask(REGION, 4.0)


def test_nothing_is_taken_that_was_not_asked_for() -> None:
    questions = RegionQuestions()
    assert not questions.is_met(NEAREST, REGION, 0.0)
    assert questions.named(NEAREST, REGION, NAME, LONGEST, 0.0) is None
    questions.ask(REGION, 0.0)
    assert questions.named(NEAREST, REGION, NAME, LONGEST, 0.0) is None, "nobody was asked yet"
    assert questions.is_met(NEAREST, REGION, 0.0)
    assert questions.named(STRANGER, REGION, NAME, LONGEST, 0.0) is None
    assert not questions.is_met(STRANGER, ELSEWHERE, 0.0)


@pytest.mark.parametrize("answer", [b"", b"x", b"\xff", STRANGER.bits.encode(), b"0" * 200, b"00000000000001"])
def test_who_is_named_is_somebody_of_that_region(answer: bytes) -> None:
    questions = RegionQuestions()
    questions.ask(REGION, 0.0)
    questions.is_met(NEAREST, REGION, 0.0)
    assert questions.named(NEAREST, REGION, answer, LONGEST, 0.0) is None


def test_who_is_named_has_an_address() -> None:
    """Else nothing could be sent there, whatever the region."""
    questions = RegionQuestions()
    questions.ask(REGION, 0.0)
    questions.is_met(NEAREST, REGION, 0.0)
    assert questions.named(NEAREST, REGION, NAME.ljust(LONGEST + 1, b"0"), LONGEST, 0.0) is None
    assert questions.named(NEAREST, REGION, NAME.ljust(128, b"0"), LONGEST, 0.0) is None
    assert questions.named(NEAREST, REGION, NAME, LONGEST, 0.0) == OTHER


def test_a_region_that_is_one_node_names_itself() -> None:
    questions = RegionQuestions()
    questions.ask(REGION, 0.0)
    questions.is_met(REGION, REGION, 0.0)
    assert questions.named(REGION, REGION, REGION.bits.encode(), LONGEST, 0.0) == REGION


def test_what_is_not_answered_is_forgotten_and_no_more_are_under_way_than_there_is_room_for() -> None:
    questions = RegionQuestions()
    asked = [questions.ask(Prefix(number, 14), 0.0) for number in range(LIMIT + 1)]
    assert asked == [True] * LIMIT + [False]
    assert not questions.is_met(NEAREST, REGION, ANSWER_TIME)
    assert questions.ask(REGION, ANSWER_TIME)
