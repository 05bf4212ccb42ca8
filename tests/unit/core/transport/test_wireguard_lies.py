"""Peers lie when they speak of WireGuard links, or say too much."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import PEERS_LIMIT, PROPOSALS, LinkPhase, Make
from re6st.core.wire.wireguard import NUMBER_LIMIT, Accept, Confirm, Done, End, NoLink, Propose, Reason, Refuse
from tests.unit.wireguard_world import SETTINGS, A, B, World, linked, told


@pytest.fixture
def world() -> World:
    return World()


def proposal(world: World, number: int = 0, replaces: int = 0) -> Propose:
    """One of B's, as A takes it."""
    terms = replace(world.fresh().own.terms, port=40000, mtu=1420)
    return Propose(number or (world.clock << 1 | 1), replaces, terms)


def test_a_thousand_proposals_a_second_cost_little_and_leave_room_for_others(world: World) -> None:
    agreement, made = world.ends[A].agreement, 0
    for count in range(3000):
        message = proposal(world, world.clock + count + 2000 << 1 | 1)
        actions = agreement.received(B, message, world.now + count / 1000)
        made += sum(isinstance(action, Make) for action in actions)
        agreement.tick(world.now + count / 1000)
    assert made <= PROPOSALS[1] + 3 * PROPOSALS[0]
    third = Prefix(3, 16)
    assert any(isinstance(each, Make) for each in agreement.received(third, proposal(world), world.now + 3))


def test_neither_our_key_nor_our_address_is_a_peers() -> None:
    world = linked()
    own = world.ends[A].interfaces["re6stnet1"].own.terms
    for key, address in ((own.key, IPv6Address("fe80::7")), (b"k" * 32, own.address)):
        message = proposal(world)
        told(world, replace(message, terms=replace(message.terms, key=key, address=address)))
        assert world.ends[A].sent()[-1] == Refuse(message.number, Reason.BAD_VALUES)
    assert world.same(), "the link that there is stays"


@pytest.mark.parametrize("absurd", ["key", "address", "mtu"])
def test_nor_when_it_accepts(absurd: str) -> None:
    world = World()
    world.open(A)
    (sent,) = world.ends[A].sent()
    assert isinstance(sent, Propose)
    terms = replace(proposal(world).terms, **{absurd: {"mtu": 9000}.get(absurd, getattr(sent.terms, absurd))})
    world.flying.clear()
    told(world, Accept(sent.number, terms))
    assert world.phase(A) is None
    assert world.reasons(A) == [Reason.BAD_VALUES]
    assert world.ends[A].interfaces == {}


def test_a_proposal_that_comes_again_with_another_key_changes_nothing(world: World) -> None:
    message = proposal(world)
    told(world, message)
    before = world.ends[A].interfaces["re6stnet11"]
    told(world, replace(message, terms=replace(message.terms, key=b"k" * 32)))
    assert world.ends[A].sent()[-1] == Refuse(message.number, Reason.STALE, message.number)
    assert world.ends[A].interfaces == {"re6stnet11": before}


def test_a_proposal_with_a_number_of_ours_is_none(world: World) -> None:
    told(world, proposal(world, world.clock << 1))
    assert world.ends[A].done == []


@pytest.mark.parametrize("field", ["port", "mtu", "address"])
def test_with_its_keys_a_peer_changes_nothing_else(field: str) -> None:
    world = World()
    world.attempt(B, 1)
    link = world.held(A)
    terms = {
        "port": replace(link.theirs, key=b"k" * 32, port=40001),
        "mtu": replace(link.theirs, key=b"k" * 32, mtu=1300),
        "address": replace(link.theirs, key=b"k" * 32, address=IPv6Address("fe80::7")),
    }[field]
    told(world, Propose(link.number + 2, link.number, terms))
    assert world.ends[A].sent()[-1] == Refuse(link.number + 2, Reason.BAD_VALUES)
    told(world, Propose(link.number + 4, link.number, link.theirs))
    assert world.ends[A].sent()[-1] == Refuse(link.number + 4, Reason.BAD_VALUES), "the same key is no change"
    assert world.link(A) == link


def test_a_link_with_other_keys_than_ours_is_none(world: World) -> None:
    """A peer that started anew took an old proposal for a new one, say."""
    message = proposal(world)
    for accepted in (False, True):
        told(world, message)
        if accepted:
            world.carry(A, world.ends[A].agreement.heard(B, world.now))
        told(world, Confirm(message.number, message.terms.key, b"k" * 32))
        assert world.phase(A) is None
        assert world.ends[A].sent()[-1] == NoLink(message.number)


def test_a_number_that_is_nearly_the_last_does_not_stop_us() -> None:
    world = World()
    told(world, proposal(world, NUMBER_LIMIT - 1))
    assert world.phase(A) is LinkPhase.ACCEPTED
    told(world, End(NUMBER_LIMIT - 1, Reason.CLOSED))
    world.open(A)
    (sent,) = (message for message in world.ends[A].sent() if isinstance(message, Propose))
    told(world, Refuse(sent.number, Reason.STALE, NUMBER_LIMIT - 1))
    assert world.phase(A) is None
    assert world.reasons(A)[1:] == [Reason.STALE]


def test_what_a_stranger_says_of_links_that_there_are_not_is_answered_and_forgotten(world: World) -> None:
    key = b"k" * 32
    for message in (Accept(7, proposal(world).terms), Confirm(7, key, key), Done(7, key, key), End(7, Reason.CLOSED)):
        told(world, message)
        assert world.ends[A].sent()[-1] == NoLink(7)
    said = len(world.ends[A].sent())
    for quiet in (NoLink(7), Refuse(7, Reason.FULL)):
        told(world, quiet)
    assert len(world.ends[A].sent()) == said
    assert world.ends[A].agreement.deadline() == float("inf"), "nothing is kept"


def test_what_is_remembered_of_peers_is_bounded(world: World) -> None:
    agreement = world.ends[A].agreement
    agreement.settings = replace(SETTINGS, ports=())
    for number in range(2, PEERS_LIMIT + 100):
        agreement.open(Prefix(number, 16), "re6stnet1", world.now)
    assert sum(agreement.paused(Prefix(n, 16), world.now) is not None for n in range(PEERS_LIMIT + 100)) == PEERS_LIMIT
