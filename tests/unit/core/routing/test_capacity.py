"""What a link costs by its capacity, and that this does not change for nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.routing.babel_lines import INFINITY
from re6st.core.routing.capacity import (
    CLASSES,
    HOLD,
    NEUTRAL,
    PASSED_FOR,
    Capacities,
    class_of,
    cost,
    mbits,
)

RATES = st.floats(0.0, 1e6)


@pytest.mark.parametrize(
    ("rate", "expected"), [(10_000, 256), (1000, 256), (500, 512), (100, 2048), (30, 8192), (10, 16384), (0, 16384)]
)
def test_half_the_capacity_is_twice_the_cost(rate: float, expected: int) -> None:
    assert cost(class_of(rate)) == expected


@given(RATES, RATES)
def test_what_carries_more_costs_no_more(one: float, other: float) -> None:
    assert cost(class_of(max(one, other))) <= cost(class_of(min(one, other)))


def test_three_hops_of_the_slowest_links_are_still_a_way() -> None:
    slowest = cost(CLASSES - 1)
    assert 3 * slowest < INFINITY
    assert class_of(mbits(CLASSES - 1)) == CLASSES - 1


def test_the_cost_of_a_link_is_what_its_opener_says() -> None:
    """With link-quality babel divides the product of both ends' costs by 256, where one of them is 256 at least."""
    for each in range(CLASSES):
        assert cost(each) * NEUTRAL // 256 == cost(each) >= 256


def known(*names: str) -> Capacities[str]:
    capacities: Capacities[str] = Capacities()
    capacities.follow(names)
    return capacities


def test_what_was_measured_first_counts_at_once_and_what_is_measured_later_after_a_while() -> None:
    links = known("a")
    assert links.classes(0) == {}
    links.measured("a", 500)
    assert links.classes(1) == {"a": 1}
    links.measured("a", 60)
    assert links.classes(2) == {"a": 1}
    assert links.classes(1 + HOLD) == {"a": 4}


@given(st.integers(0, CLASSES - 1), st.lists(st.floats(0.65, 1.55), max_size=20))
def test_a_measurement_that_varies_changes_nothing(first: int, factors: list[float]) -> None:
    links, now = known("a"), 0.0
    links.measured("a", mbits(first))
    assert links.classes(now) == {"a": first}
    for factor in factors:
        now += HOLD
        links.measured("a", factor * mbits(first))
        assert links.classes(now) == {"a": first}


@given(st.lists(st.tuples(st.floats(0, 100), RATES), max_size=50))
def test_a_class_changes_seldom(measured: list[tuple[float, float]]) -> None:
    links, now, changes, before = known("a"), 0.0, 0, None
    for pause, rate in measured:
        now += pause
        links.measured("a", rate)
        after = links.classes(now).get("a")
        changes += before is not None and after != before
        before = after
    assert changes <= now / HOLD


def test_what_has_passed_shows_that_a_link_is_no_slower() -> None:
    links = known("a", "b")
    links.passed("a", 400, 0)
    links.passed("b", 20, 0)
    assert links.classes(0) == {"a": 1}, "20 Mbit/s say nothing of what b could carry"
    links.measured("b", 10)
    links.passed("b", 900, 1)
    assert links.of("b", 1) == 900
    assert links.of("b", 1 + PASSED_FOR) == 10
    links.passed("b", 30, 1 + PASSED_FOR)
    assert links.of("b", 1 + PASSED_FOR) == 30


def test_a_link_that_comes_back_is_another_one() -> None:
    links = known("a")
    links.measured("a", 1000)
    links.follow(())
    links.follow(("a",))
    assert links.of("a", 0) is None
    links.measured("gone", 1000)
    links.passed("gone", 1000, 0)
    assert links.of("gone", 0) is None


def test_what_is_said_of_a_link_counts_and_what_is_known_besides_is_kept() -> None:
    capacities: Capacities[str] = Capacities()
    capacities.follow(["a"])
    capacities.measured("a", 500.0)
    capacities.passed("a", 900.0, 0.0)
    capacities.said("a", 20.0)
    assert capacities.of("a", 1.0) == 20.0
    capacities.said("a", None)
    assert capacities.of("a", 1.0) == 900.0
    capacities.said("b", 20.0)
    assert capacities.of("b", 1.0) is None, "a link that is not there"
