"""When the network's hellos change: at once for an older node, back only when none was there for a day."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.registry.hello_choice import LENGTHEN_INTERVAL, SHORTEN_AFTER, Hellos, choose, read

NOW = 1_800_000_000.0
DAY = 86400.0


def test_a_new_network_has_what_its_nodes_need() -> None:
    assert choose(None, False, NOW).short
    assert not choose(None, True, NOW).short


def test_the_hellos_become_long_at_once_and_short_after_a_day_without_older_nodes() -> None:
    hellos = choose(choose(None, False, NOW), True, NOW + 1)
    assert not hellos.short
    hellos = choose(hellos, True, NOW + DAY)
    assert not choose(hellos, False, NOW + 2 * DAY - 1).short
    assert hellos.short_from == NOW + 2 * DAY
    assert choose(hellos, False, NOW + 2 * DAY).short


def test_after_the_operators_word_they_stay_short_for_a_while() -> None:
    hellos = choose(choose(None, False, NOW), True, NOW + 1)
    shortened = Hellos(True, hellos.lengthened, hellos.older)
    assert choose(shortened, True, NOW + LENGTHEN_INTERVAL).short
    assert not choose(shortened, True, NOW + 1 + LENGTHEN_INTERVAL).short


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 7200.0)), max_size=200))
def test_members_change_them_twice_a_day_at_most(calls: list[tuple[bool, float]]) -> None:
    now, hellos, changes = NOW, choose(None, False, NOW), []
    for older, wait in calls:
        now += wait
        before, hellos = hellos, choose(hellos, older, now)
        if before.short != hellos.short:
            changes.append(now)
    assert all(
        later - first >= SHORTEN_AFTER - LENGTHEN_INTERVAL for first, later in zip(changes, changes[2:], strict=False)
    )


@given(st.booleans(), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_what_is_kept_is_read_again(short: bool, lengthened: int, older: int) -> None:
    hellos = Hellos(short, float(lengthened), float(older))
    assert read(hellos.text()) == hellos


@pytest.mark.parametrize(
    "text", [None, 3, b"short 0 0", "", "short", "short 0 x", "medium 0 0", "long -1 0", "long 0 0 0"]
)
def test_anything_else_is_nothing(text: object) -> None:
    assert read(text) is None
