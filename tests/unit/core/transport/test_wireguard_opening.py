"""Two nodes agree on a WireGuard link: one opens, both do, messages get lost, interfaces are not made."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import DIAL_TIME, MAKE_TIME, PROPOSE_TIME, Dial, LinkPhase, Send
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.wireguard import Accept, Confirm, Done, Message, Propose, Reason
from tests.unit.wireguard_world import SETTINGS, A, B, World, other


@pytest.fixture
def world() -> World:
    return World()


def test_one_opens_a_link_and_both_have_it_at_once(world: World) -> None:
    world.open(A)
    world.exchange()
    world.traffic()
    world.exchange()
    assert world.is_linked()
    one, two = world.held(A), world.held(B)
    assert (one.role, one.interface) == (Role.CLIENT, "re6stnet1")
    assert (two.role, two.interface) == (Role.SERVER, "re6stnet11")
    said = [type(message) for own in (A, B) for message in world.ends[own].sent()]
    assert said == [Propose, Confirm, Accept, Done]


def test_a_link_has_the_mtu_that_both_ends_can_have(world: World) -> None:
    world.ends[B].agreement.settings = replace(SETTINGS, mtu=1380)
    world.attempt(A, 1)
    assert world.same()
    assert [world.ends[own].interfaces[name].mtu for own, name in ((A, "re6stnet1"), (B, "re6stnet11"))] == [1380, 1380]


@pytest.mark.parametrize("first", [A, B])
@pytest.mark.parametrize("late", [A, B])
def test_two_that_open_at_once_get_one_link(first: Prefix, late: Prefix) -> None:
    """Whoever was first, and whoever hears of the other one late: the later number stays."""
    world = World()
    world.open(first)
    world.open(other(first))
    world.flying.sort(key=lambda each: each[1] == late)
    world.run(2)
    assert world.is_linked()
    assert world.reasons(first) == [Reason.YIELDED]
    assert world.ends[other(first)].ended() == []


@pytest.mark.parametrize("kind", [Propose, Accept, Confirm, Done])
def test_what_is_lost_is_said_again(kind: type[Message]) -> None:
    world = World()
    world.lose_next(kind, 2)
    world.attempt(A, 3)
    assert world.is_linked()


def test_a_peer_that_does_not_answer_is_left_alone_for_a_while(world: World) -> None:
    world.lose = lambda to, _message: to == B
    world.attempt(A, PROPOSE_TIME + 1)
    assert world.reasons(A) == [Reason.NO_ANSWER]
    assert world.ends[A].agreement.paused(B, world.now) is Reason.NO_ANSWER
    world.open(A)
    assert world.phase(A) is None
    world.step(60)
    world.lose = lambda _to, _message: False
    world.attempt(A, 1)
    assert world.same()


def test_a_firewall_costs_five_seconds_and_is_remembered(world: World) -> None:
    world.passes = False
    world.attempt(A, DIAL_TIME + 0.5)
    assert world.phase(A) is world.phase(B) is None
    assert world.same()
    assert world.reasons(A) == [Reason.NO_HANDSHAKE]
    assert world.ends[A].agreement.paused(B, world.now) is Reason.NO_HANDSHAKE
    dialled = [action.attempt for action in world.ends[A].done if isinstance(action, Dial)]
    assert dialled == [0, 1, 2, 3], "each time by another address of the peer"


def test_each_handshake_gets_twice_the_time_of_the_last_one(world: World) -> None:
    """Who dials begins a new one: on a way of 600 ms there and back, none would ever be done within half a second."""
    world.passes = False
    world.open(A)
    moments: list[float] = []
    while world.phase(A) is not None or not moments:
        world.exchange()
        dialled = sum(isinstance(action, Dial) for action in world.ends[A].done)
        moments += [world.now] * (dialled - len(moments))
        world.step()
    assert [later - earlier for earlier, later in pairwise(moments)] == [0.5, 1.0, 2.0]


def test_a_server_waits_until_its_interface_is_there(world: World) -> None:
    world.makes_at_once = False
    world.open(A)
    world.exchange()
    world.step(1)
    world.exchange()
    assert world.ends[B].sent() == []
    world.make(B, "re6stnet11")
    world.exchange()
    world.make(A, "re6stnet1")
    world.run(1)
    assert world.same()


def test_an_interface_that_is_never_made_ends_the_attempt(world: World) -> None:
    world.makes_at_once = False
    world.open(A)
    world.exchange()
    world.lose = lambda _to, _message: True  # nor does the server hear that the client has given up
    world.run(MAKE_TIME + 1)
    assert world.phase(A) is world.phase(B) is None
    assert world.reasons(B) == [Reason.UNAVAILABLE]
    assert world.ends[B].making == {}


def test_an_interface_that_cannot_be_made_ends_the_attempt_at_both_ends_and_its_port_is_avoided() -> None:
    for own in (A, B):
        world = World()
        world.makes_at_once = False
        world.open(A)
        world.exchange()
        if own == A:
            world.make(B, "re6stnet11")
            world.exchange()
        (link,) = world.ends[own].making.values()
        world.carry(own, world.ends[own].agreement.failed(other(own), link.number, world.now, port_taken=True))
        world.exchange()
        assert world.phase(A) is world.phase(B) is None
        assert world.same()
        world.open(own)
        assert world.ends[own].agreement.phase(other(own)) is (None if own == A else LinkPhase.PROPOSED)
        if own == B:
            assert [m.terms.port for m in world.ends[B].sent() if isinstance(m, Propose)] == [51821]


def test_who_has_no_room_says_so(world: World) -> None:
    world.ends[B].agreement.settings = replace(SETTINGS, interfaces=())
    world.attempt(A, 1)
    assert world.reasons(A) == [Reason.FULL]
    world.ends[B].agreement.settings = replace(SETTINGS, ports=())
    world.step(60)
    world.attempt(A, 1)
    assert world.reasons(A) == [Reason.FULL, Reason.FULL]
    assert world.ends[B].done == [Send(A, message) for message in world.ends[B].sent()], "nothing was made"


def test_a_client_gets_the_interface_that_is_unused_for_longest(world: World) -> None:
    """One that was given back a moment ago may still be there, if its client was one that comes and goes."""
    given = []
    for _ in range(4):
        world.attempt(A, 1)
        given.append(world.held(B).interface)
        world.close(A)
        world.run(1)
    assert given == ["re6stnet11", "re6stnet12"] * 2


def test_two_links_with_one_peer_that_are_agreed_on_apart_have_other_ports_and_no_key_of_ours() -> None:
    first, second = World(), World()
    one, other = first.ends[A].agreement, second.ends[A].agreement
    other._beside = lambda: [one]
    first.attempt(A, 1)
    second.attempt(A, 1)
    assert first.is_linked()
    assert second.is_linked()
    ports = {agreement.links[B].own.terms.port for agreement in (one, other)}
    assert len(ports) == 2
    assert other._is_ours(one.links[B].own.terms)
    assert not one._is_ours(replace(one.links[B].theirs, key=b"x" * 32))
