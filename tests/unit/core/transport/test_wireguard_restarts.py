"""An end of a WireGuard link starts anew, or a daemon goes on with the link of the last one."""

from __future__ import annotations

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import CHECK_TIME, KEY_LIFE, LinkPhase
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.wireguard import Reason
from tests.unit.wireguard_world import A, B, linked, other


def test_a_server_that_starts_anew_is_found_to_have_no_link() -> None:
    world = linked()
    world.start(B)
    world.run(CHECK_TIME + 1)
    assert world.phase(A) is None
    assert world.reasons(A) == [Reason.UNKNOWN]
    world.attempt(A, 1)
    assert world.same(), "a link that was up leaves no pause behind"
    assert world.phase(A) is LinkPhase.UP


def test_that_is_found_at_once_where_its_new_session_is_seen() -> None:
    world = linked()
    world.start(B)
    world.carry(A, world.ends[A].agreement.met(B, world.now))
    world.exchange()
    assert world.phase(A) is None
    assert world.reasons(A) == [Reason.UNKNOWN]
    assert world.ends[A].agreement.met(B, world.now) == []


def test_a_new_session_with_a_peer_that_ran_on_changes_nothing() -> None:
    world = linked()
    before = world.link(A)
    for own in (A, B):
        world.carry(own, world.ends[own].agreement.met(other(own), world.now))
    world.run(60)
    assert world.link(A) == before
    assert world.same()


def test_also_where_the_server_has_one_port_and_one_interface() -> None:
    """Those of the link that is replaced are free once it is gone, and the new one is made only then."""
    world = linked(ports=(51820,), interfaces=("re6stnet11",))
    world.start(A)
    world.attempt(A, 1)
    assert world.is_linked()


def test_a_client_that_starts_anew_gets_a_new_link_at_once() -> None:
    world = linked()
    world.start(A)
    world.attempt(A, 1)
    assert world.is_linked()
    assert world.reasons(B) == [Reason.REPLACED]


def test_also_with_a_clock_that_is_late() -> None:
    world = linked()
    world.clock -= 10_000_000
    world.start(A)
    world.attempt(A, 1)
    assert world.is_linked()


def test_a_server_that_starts_anew_may_be_the_one_that_opens() -> None:
    world = linked()
    world.start(B)
    world.attempt(B, 1)
    assert world.is_linked()
    assert world.held(B).role is Role.CLIENT


@pytest.mark.parametrize("own", [A, B])
def test_the_next_daemon_goes_on_with_a_link(own: Prefix) -> None:
    world = linked()
    before = world.link(own)
    world.take_over(own)
    world.run(KEY_LIFE / 1000)
    assert world.link(own) == before
    assert world.same()
    assert world.ends[other(own)].ended() == []


def test_the_next_daemon_ends_a_link_that_the_peer_has_no_more() -> None:
    world = linked()
    world.start(B)
    world.take_over(A)
    world.run(1)
    assert world.phase(A) is None
    assert world.same()
