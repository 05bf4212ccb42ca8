"""The keys of a WireGuard link change, or it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import CHANGE_MARGIN, CHANGE_TIME, DIAL_TIME, Change, LinkPhase, Remove
from re6st.core.wire.wireguard import Accept, Confirm, Done, End, Message, NoLink, Propose, Reason
from tests.unit.wireguard_world import SETTINGS, A, B, linked, other, told


def test_keys_change_and_nothing_else() -> None:
    world = linked(key_life=20.0)
    before = world.held(A)
    world.run(21)
    after = world.held(A)
    assert world.same()
    assert before.own.secret != after.own.secret
    assert before.own.terms.key != after.own.terms.key
    assert before.theirs.key != after.theirs.key
    assert replace(before, number=after.number, own=after.own, theirs=after.theirs) == after
    assert replace(before.own.terms, key=after.own.terms.key) == after.own.terms
    assert replace(before.theirs, key=after.theirs.key) == after.theirs
    assert not any(isinstance(action, Remove) for own in (A, B) for action in world.ends[own].done)


@pytest.mark.parametrize("kind", [Propose, Accept, Confirm, Done])
@pytest.mark.parametrize("times", [1, 2])
def test_keys_change_also_where_messages_get_lost(kind: type[Message], times: int) -> None:
    world = linked(key_life=20.0)
    before = world.link(A)
    world.lose_next(kind, times)
    world.run(24)
    assert world.same()
    assert world.link(A) not in (before, None)
    assert world.ends[A].ended() == world.ends[B].ended() == []


def test_keys_change_though_what_is_said_of_it_goes_by_the_link_itself() -> None:
    """Which carries nothing while one end has the new keys and the other one the old ones."""
    world = linked(key_life=20.0)
    before = world.link(A)
    world.in_band = True
    world.run(30)
    assert world.same()
    assert world.link(A) not in (before, None)
    assert world.ends[A].ended() == world.ends[B].ended() == []


def test_both_ends_change_their_keys_at_one_time() -> None:
    """What was sent by one with the old keys, and comes to the other when it has the new ones, is dropped."""
    world = linked(key_life=20.0)
    before = world.link(A)
    apart = 0
    while world.link(A) == before:
        world.exchange()
        world.traffic()
        world.exchange()
        world.step(0.01)
        apart += not world.is_way()
    assert world.is_way()
    assert apart <= CHANGE_MARGIN / 0.01 + 1
    assert world.now < 1000 + 20 + 1


def test_a_client_dials_with_the_new_keys_until_the_server_answers() -> None:
    world = linked(key_life=20.0)
    before = world.link(A)
    while world.link(A) == before:
        world.traffic()
        world.exchange()
        world.step(0.1)
    world.passes = False
    at = len(world.ends[A].done)
    for _ in range(17):
        world.step()
    dialled = [action for action in world.ends[A].done[at:] if isinstance(action, Change)]
    assert len(dialled) == 5
    assert world.ends[A].agreement.awaits(B)
    world.passes = True
    world.run(1)
    assert not world.ends[A].agreement.awaits(B)
    at = len(world.ends[A].done)
    world.run(10)
    assert not [action for action in world.ends[A].done[at:] if isinstance(action, Change)]
    assert world.same()


def test_a_link_stays_where_the_peer_does_not_change_keys() -> None:
    world = linked(key_life=40.0)
    before = world.link(A)
    world.lose = lambda to, _message: to == B
    world.run(60)
    assert world.link(A) == before
    assert world.same()


def test_a_server_ends_a_link_whose_keys_were_not_changed_for_long() -> None:
    """Who has no valid certificate any more cannot change them: it has no session."""
    world = linked(key_life=100.0)
    world.lose = lambda _to, _message: True
    world.run(198)
    assert world.phase(B) is LinkPhase.UP
    world.run(2)
    assert world.phase(B) is None
    assert world.reasons(B) == [Reason.OLD_KEYS]
    world.lose = lambda _to, _message: False
    world.settle()
    assert world.phase(A) is None


@pytest.mark.parametrize("own", [A, B])
def test_either_end_ends_a_link_with_old_keys_whatever_the_other_one_does(own: Prefix) -> None:
    """Also the client: its server may have no valid certificate any more, and so no session."""
    world = linked(key_life=100.0)
    world.ends[other(own)].agreement.settings = replace(SETTINGS, key_life=1e9)
    world.lose = lambda _to, _message: True
    world.run(198)
    assert world.phase(own) is LinkPhase.UP
    world.run(3)
    assert world.phase(own) is None
    assert world.reasons(own) == [Reason.OLD_KEYS]


@pytest.mark.parametrize("own", [A, B])
def test_the_keys_are_as_old_for_the_next_daemon_as_they_are(own: Prefix) -> None:
    world = linked(key_life=100.0)
    world.lose = lambda _to, _message: True
    for _ in range(4):
        world.run(45)
        world.take_over(own)
    assert world.phase(own) is LinkPhase.UP
    world.run(30)
    assert world.phase(own) is None
    assert Reason.OLD_KEYS in world.reasons(own)


def test_keys_change_though_nothing_comes_of_what_the_server_says_of_it() -> None:
    """It has changed its own; so the client does, sooner or later."""
    world = linked(key_life=20.0)
    before = world.link(A)
    world.in_band = True
    world.lose = lambda to, message: to == A and isinstance(message, Done)
    world.run(20 + CHANGE_TIME + 2)
    assert world.same()
    assert world.link(A) not in (before, None)


def test_a_link_whose_server_was_never_told_to_change_its_keys_is_ended() -> None:
    world = linked(key_life=20.0)
    world.lose = lambda to, message: to == B and isinstance(message, Confirm)
    world.run(20 + CHANGE_TIME + DIAL_TIME + 2)
    assert world.phase(A) is world.phase(B) is None
    assert world.reasons(A) == [Reason.NO_HANDSHAKE]
    assert world.same()


def test_a_client_that_starts_anew_while_keys_change_gets_a_new_link() -> None:
    for stage in range(1, 5):
        world = linked(key_life=20.0)
        while not world.flying:
            world.traffic()
            world.step()
        for _ in range(stage):
            if world.flying:
                world.deliver()
        world.start(A)
        world.attempt(A, 2)
        assert world.phase(A) is LinkPhase.UP
        assert world.same()


@pytest.mark.parametrize("kind", [NoLink, lambda number: End(number, Reason.OTHER)])
def test_a_change_that_the_peer_forgot_leaves_the_link_as_it_is_and_that_is_asked(
    kind: Callable[[int], Message],
) -> None:
    world = linked(key_life=50.0)
    before = world.held(A)
    world.lose = lambda to, _message: to == B
    world.run(51)
    change = next(message for message in world.ends[A].sent() if isinstance(message, Propose) and message.replaces)
    told(world, kind(change.number))
    world.step()
    assert world.ends[A].sent()[-1] == Confirm(before.number, before.own.terms.key, before.theirs.key)
    world.lose = lambda _to, _message: False
    world.run(40)
    assert world.link(A) == before
    assert world.same()
