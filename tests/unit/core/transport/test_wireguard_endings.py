"""A WireGuard link is up until one end closes it, or nothing comes by it any more."""

from __future__ import annotations

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_endings import ENDINGS
from re6st.core.transport.wireguard_state import CHECK_AGAIN, DEAD_TIME, LinkPhase
from re6st.core.wire.wireguard import Confirm, End, Reason
from tests.unit.wireguard_world import A, B, linked, other


def test_nothing_is_said_of_a_link_that_carries_packets() -> None:
    world = linked()
    before = len(world.ends[A].done), len(world.ends[B].done)
    world.run(600)
    assert (len(world.ends[A].done), len(world.ends[B].done)) == before


def test_a_link_that_falls_silent_is_asked_about_and_ended() -> None:
    world = linked()
    world.passes = False
    world.run(DEAD_TIME - CHECK_AGAIN)
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert any(isinstance(message, Confirm) for message in world.ends[B].sent())
    world.run(2 * CHECK_AGAIN)
    assert world.phase(A) is world.phase(B) is None
    assert {ended.reason for own in (A, B) for ended in world.ends[own].ended()} == {Reason.SILENT}


@pytest.mark.parametrize("own", [A, B])
def test_either_end_closes_a_link_and_the_other_one_knows(own: Prefix) -> None:
    world = linked()
    world.lose_next(End, 2)
    world.close(own)
    world.run(3)
    assert world.phase(A) is world.phase(B) is None
    assert world.reasons(other(own)) == [Reason.CLOSED]
    ends = [message for message in world.ends[own].sent() if isinstance(message, End)]
    assert len(ends) == ENDINGS
    world.run(60)
    assert [message for message in world.ends[own].sent() if isinstance(message, End)] == ends


def test_an_end_that_was_heard_is_not_told_again() -> None:
    world = linked()
    world.close(A)
    world.run(10)
    assert [type(message) for message in world.ends[A].sent()].count(End) == 1


def test_a_revoked_peer_gets_no_word() -> None:
    world = linked()
    said = len(world.ends[A].sent())
    world.carry(A, world.ends[A].agreement.close(B, world.now, tell=False))
    world.step(30)
    assert len(world.ends[A].sent()) == said
    assert world.ends[A].interfaces == {}
