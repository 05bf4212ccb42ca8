"""The states of babel's keys (wire.md 5.4), and which one a node uses when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from re6st.core.routing.babel_keys import ROTATION_TIME, SWITCH_TIME, KeyState, key_in_use, next_state

OLD, NEW, OTHER = (letter * 16 for letter in (b"o", b"n", b"x"))
NOW = 1e9

STABLE = KeyState((OLD, None, None))


def test_a_rotation_goes_through_the_states_of_the_table() -> None:
    one = next_state(STABLE, NEW, NOW, nodes=0)
    assert (one.keys, one.sign, one.accept, one.valid_until) == ((OLD, NEW, None), OLD, NEW, NOW + ROTATION_TIME)
    two = next_state(one, OTHER, NOW, nodes=0)
    assert (two.keys, two.sign, two.accept, two.valid_until) == ((None, NEW, OLD), NEW, OLD, None)
    three = next_state(two, OTHER, NOW, nodes=0)
    assert (three.keys, three.sign, three.accept, three.valid_until) == ((NEW, None, None), NEW, None, None)


def test_a_network_without_keys_gets_one_and_lets_the_unsigned_in_meanwhile() -> None:
    none = KeyState((None, None, None))
    assert (none.sign, none.accept) == (None, None)
    first = next_state(none, NEW, NOW, nodes=0)
    assert (first.keys, first.sign, first.accept) == ((None, NEW, b""), NEW, b"")
    assert next_state(first, OTHER, NOW, nodes=0).keys == (NEW, None, None)


def test_nodes_change_keys_at_one_time_that_leaves_time_to_tell_them() -> None:
    one = next_state(STABLE, NEW, NOW, nodes=0)
    assert one.switch_time is None
    small, large = (next_state(one, OTHER, NOW, nodes) for nodes in (3, 100_000))
    assert small.switch_time is not None
    assert large.switch_time is not None
    assert NOW + SWITCH_TIME <= small.switch_time < NOW + SWITCH_TIME + 1
    assert large.switch_time >= NOW + 300
    # Who hears of the last step only still waits with the others.
    assert next_state(large, OTHER, NOW + 1, 100_000).switch_time == large.switch_time


def test_until_that_time_the_older_key_signs() -> None:
    assert key_in_use(NEW, OLD, NOW, NOW - 0.1) == OLD
    assert key_in_use(NEW, OLD, NOW, NOW) == NEW
    assert key_in_use(NEW, None, NOW, NOW - 0.1) == NEW, "who never knew the older key"


def test_without_a_time_a_node_changes_at_once() -> None:
    """As a registry of the older software has it."""
    assert key_in_use(NEW, OLD, None, NOW) == NEW
    assert key_in_use(NEW, b"", NOW + 1, NOW) == NEW
    assert key_in_use(None, None, None, NOW) is None


@given(present=st.tuples(st.booleans(), st.booleans(), st.booleans()), steps=st.integers(3, 5))
def test_whatever_the_database_holds_a_rotation_ends_well(present: tuple[bool, bool, bool], steps: int) -> None:
    keys = tuple(key if there else None for key, there in zip((OLD, NEW, OTHER), present, strict=True))
    state = KeyState((keys[0], keys[1], keys[2]))
    seen = []
    for _ in range(steps):
        state = next_state(state, b"r" * 16, NOW, nodes=3)
        assert state.sign
        seen.append(state)
    assert any(each.accept is None for each in seen), "it comes to rest"
