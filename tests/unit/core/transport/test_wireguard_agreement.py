"""Two nodes agree on a WireGuard link: one opens, both do, messages get lost, nodes start anew, peers lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address
from itertools import pairwise
from random import Random

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport import wireguard_links
from re6st.core.transport.records import RecordError
from re6st.core.transport.wireguard_endings import ENDINGS
from re6st.core.transport.wireguard_state import (
    CHANGE_MARGIN,
    CHANGE_TIME,
    CHECK_AGAIN,
    CHECK_TIME,
    DEAD_TIME,
    DIAL_TIME,
    KEY_LIFE,
    MAKE_TIME,
    NEXT,
    PEERS_LIMIT,
    PROPOSALS,
    PROPOSE_TIME,
    Change,
    Dial,
    Entry,
    LinkPhase,
    LinkSettings,
    Make,
    Remove,
    Send,
)
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.wireguard import (
    NUMBER_LIMIT,
    Accept,
    Confirm,
    Done,
    End,
    Message,
    NoLink,
    Propose,
    Reason,
    Refuse,
    Terms,
)
from tests.unit.wireguard_world import A, B, World, other

SETTINGS = LinkSettings(range(51820, 51830), ("re6stnet11", "re6stnet12"))


@pytest.fixture
def world() -> World:
    return World()


def linked(settings: LinkSettings = SETTINGS) -> World:
    """Two nodes that have a link, opened by A."""
    world = World(settings=settings)
    world.open(A)
    world.run(1)
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert world.same()
    return world


# --- opening ---


def test_one_opens_a_link_and_both_have_it_at_once(world: World) -> None:
    world.open(A)
    world.exchange()
    world.traffic()
    world.exchange()
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert world.same()
    one, two = world.link(A), world.link(B)
    assert one is not None
    assert two is not None
    assert (one.role, one.interface) == (Role.CLIENT, "re6stnet1")
    assert (two.role, two.interface) == (Role.SERVER, "re6stnet11")
    said = [type(message) for own in (A, B) for message in world.ends[own].sent()]
    assert said == [Propose, Confirm, Accept, Done]


def test_a_link_has_the_mtu_that_both_ends_can_have(world: World) -> None:
    world.ends[B].agreement.settings = replace(SETTINGS, mtu=1380)
    world.open(A)
    world.run(1)
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
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert world.same()
    assert [ended.reason for ended in world.ends[first].ended()] == [Reason.YIELDED]
    assert world.ends[other(first)].ended() == []


@pytest.mark.parametrize("kind", [Propose, Accept, Confirm, Done])
def test_what_is_lost_is_said_again(kind: type[Message]) -> None:
    world = World()
    lost = iter([True, True])
    world.lose = lambda _to, message: isinstance(message, kind) and next(lost, False)
    world.open(A)
    world.run(3)
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert world.same()


def test_a_peer_that_does_not_answer_is_left_alone_for_a_while(world: World) -> None:
    world.lose = lambda to, _message: to == B
    world.open(A)
    world.run(PROPOSE_TIME + 1)
    assert [ended.reason for ended in world.ends[A].ended()] == [Reason.NO_ANSWER]
    assert world.ends[A].agreement.paused(B, world.now) is Reason.NO_ANSWER
    world.open(A)
    assert world.phase(A) is None
    world.step(60)
    world.lose = lambda _to, _message: False
    world.open(A)
    world.run(1)
    assert world.same()


def test_a_firewall_costs_five_seconds_and_is_remembered(world: World) -> None:
    world.passes = False
    world.open(A)
    world.run(DIAL_TIME + 0.5)
    assert world.phase(A) is world.phase(B) is None
    assert world.same()
    assert [ended.reason for ended in world.ends[A].ended()] == [Reason.NO_HANDSHAKE]
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
    assert [ended.reason for ended in world.ends[B].ended()] == [Reason.UNAVAILABLE]
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
    world.open(A)
    world.run(1)
    assert [ended.reason for ended in world.ends[A].ended()] == [Reason.FULL]
    world.ends[B].agreement.settings = replace(SETTINGS, ports=())
    world.step(60)
    world.open(A)
    world.run(1)
    assert [ended.reason for ended in world.ends[A].ended()] == [Reason.FULL, Reason.FULL]
    assert world.ends[B].done == [Send(A, message) for message in world.ends[B].sent()], "nothing was made"


# --- ends that start anew ---


def test_a_client_gets_the_interface_that_is_unused_for_longest(world: World) -> None:
    """One that was given back a moment ago may still be there, if its client was one that comes and goes."""
    given = []
    for _ in range(4):
        world.open(A)
        world.run(1)
        link = world.link(B)
        assert link is not None
        given.append(link.interface)
        world.close(A)
        world.run(1)
    assert given == ["re6stnet11", "re6stnet12"] * 2


def test_a_server_that_starts_anew_is_found_to_have_no_link(world: World) -> None:
    world = linked()
    world.start(B)
    world.run(CHECK_TIME + 1)
    assert world.phase(A) is None
    assert [ended.reason for ended in world.ends[A].ended()] == [Reason.UNKNOWN]
    world.open(A)
    world.run(1)
    assert world.same(), "a link that was up leaves no pause behind"
    assert world.phase(A) is LinkPhase.UP


def test_that_is_found_at_once_where_its_new_session_is_seen() -> None:
    world = linked()
    world.start(B)
    world.carry(A, world.ends[A].agreement.met(B, world.now))
    world.exchange()
    assert world.phase(A) is None
    assert [ended.reason for ended in world.ends[A].ended()] == [Reason.UNKNOWN]
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
    world = linked(replace(SETTINGS, ports=(51820,), interfaces=("re6stnet11",)))
    world.start(A)
    world.open(A)
    world.run(1)
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert world.same()


def test_a_client_that_starts_anew_gets_a_new_link_at_once() -> None:
    world = linked()
    world.start(A)
    world.open(A)
    world.run(1)
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert world.same()
    assert [ended.reason for ended in world.ends[B].ended()] == [Reason.REPLACED]


def test_also_with_a_clock_that_is_late() -> None:
    world = linked()
    world.clock -= 10_000_000
    world.start(A)
    world.open(A)
    world.run(1)
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert world.same()


def test_a_server_that_starts_anew_may_be_the_one_that_opens() -> None:
    world = linked()
    world.start(B)
    world.open(B)
    world.run(1)
    assert world.phase(A) is world.phase(B) is LinkPhase.UP
    assert world.same()
    link = world.link(B)
    assert link is not None
    assert link.role is Role.CLIENT


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


# --- a link that is up ---


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
    lost = iter([True, True])
    world.lose = lambda _to, message: isinstance(message, End) and next(lost, False)
    world.close(own)
    world.run(3)
    assert world.phase(A) is world.phase(B) is None
    assert [ended.reason for ended in world.ends[other(own)].ended()] == [Reason.CLOSED]
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


# --- other keys ---


def test_keys_change_and_nothing_else() -> None:
    world = linked(replace(SETTINGS, key_life=20.0))
    before = world.link(A)
    world.run(21)
    after = world.link(A)
    assert before is not None
    assert after is not None
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
    world = linked(replace(SETTINGS, key_life=20.0))
    before = world.link(A)
    lost = iter([True] * times)
    world.lose = lambda _to, message: isinstance(message, kind) and next(lost, False)
    world.run(24)
    assert world.same()
    assert world.link(A) not in (before, None)
    assert world.ends[A].ended() == world.ends[B].ended() == []


def test_keys_change_though_what_is_said_of_it_goes_by_the_link_itself() -> None:
    """Which carries nothing while one end has the new keys and the other one the old ones."""
    world = linked(replace(SETTINGS, key_life=20.0))
    before = world.link(A)
    world.in_band = True
    world.run(30)
    assert world.same()
    assert world.link(A) not in (before, None)
    assert world.ends[A].ended() == world.ends[B].ended() == []


def test_both_ends_change_their_keys_at_one_time() -> None:
    """What was sent by one with the old keys, and comes to the other when it has the new ones, is dropped."""
    world = linked(replace(SETTINGS, key_life=20.0))
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
    world = linked(replace(SETTINGS, key_life=20.0))
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
    world = linked(replace(SETTINGS, key_life=40.0))
    before = world.link(A)
    world.lose = lambda to, _message: to == B
    world.run(60)
    assert world.link(A) == before
    assert world.same()


def test_a_server_ends_a_link_whose_keys_were_not_changed_for_long() -> None:
    """Who has no valid certificate any more cannot change them: it has no session."""
    world = linked(replace(SETTINGS, key_life=100.0))
    world.lose = lambda _to, _message: True
    world.run(198)
    assert world.phase(B) is LinkPhase.UP
    world.run(2)
    assert world.phase(B) is None
    assert [ended.reason for ended in world.ends[B].ended()] == [Reason.OLD_KEYS]
    world.lose = lambda _to, _message: False
    world.settle()
    assert world.phase(A) is None


@pytest.mark.parametrize("own", [A, B])
def test_either_end_ends_a_link_with_old_keys_whatever_the_other_one_does(own: Prefix) -> None:
    """Also the client: its server may have no valid certificate any more, and so no session."""
    world = linked(replace(SETTINGS, key_life=100.0))
    world.ends[other(own)].agreement.settings = replace(SETTINGS, key_life=1e9)
    world.lose = lambda _to, _message: True
    world.run(198)
    assert world.phase(own) is LinkPhase.UP
    world.run(3)
    assert world.phase(own) is None
    assert [ended.reason for ended in world.ends[own].ended()] == [Reason.OLD_KEYS]


@pytest.mark.parametrize("own", [A, B])
def test_the_keys_are_as_old_for_the_next_daemon_as_they_are(own: Prefix) -> None:
    world = linked(replace(SETTINGS, key_life=100.0))
    world.lose = lambda _to, _message: True
    for _ in range(4):
        world.run(45)
        world.take_over(own)
    assert world.phase(own) is LinkPhase.UP
    world.run(30)
    assert world.phase(own) is None
    assert Reason.OLD_KEYS in [ended.reason for ended in world.ends[own].ended()]


def test_keys_change_though_nothing_comes_of_what_the_server_says_of_it() -> None:
    """It has changed its own; so the client does, sooner or later."""
    world = linked(replace(SETTINGS, key_life=20.0))
    before = world.link(A)
    world.in_band = True
    world.lose = lambda to, message: to == A and isinstance(message, Done)
    world.run(20 + CHANGE_TIME + 2)
    assert world.same()
    assert world.link(A) not in (before, None)


def test_a_link_whose_server_was_never_told_to_change_its_keys_is_ended() -> None:
    world = linked(replace(SETTINGS, key_life=20.0))
    world.lose = lambda to, message: to == B and isinstance(message, Confirm)
    world.run(20 + CHANGE_TIME + DIAL_TIME + 2)
    assert world.phase(A) is world.phase(B) is None
    assert [ended.reason for ended in world.ends[A].ended()] == [Reason.NO_HANDSHAKE]
    assert world.same()


def test_a_client_that_starts_anew_while_keys_change_gets_a_new_link() -> None:
    for stage in range(1, 5):
        world = linked(replace(SETTINGS, key_life=20.0))
        while not world.flying:
            world.traffic()
            world.step()
        for _ in range(stage):
            if world.flying:
                world.deliver()
        world.start(A)
        world.open(A)
        world.run(2)
        assert world.phase(A) is LinkPhase.UP
        assert world.same()


@pytest.mark.parametrize("kind", [NoLink, lambda number: End(number, Reason.OTHER)])
def test_a_change_that_the_peer_forgot_leaves_the_link_as_it_is_and_that_is_asked(
    kind: Callable[[int], Message],
) -> None:
    world = linked(replace(SETTINGS, key_life=50.0))
    before = world.link(A)
    world.lose = lambda to, _message: to == B
    world.run(51)
    change = next(message for message in world.ends[A].sent() if isinstance(message, Propose) and message.replaces)
    told(world, kind(change.number))
    world.step()
    assert before is not None
    assert world.ends[A].sent()[-1] == Confirm(before.number, before.own.terms.key, before.theirs.key)
    world.lose = lambda _to, _message: False
    world.run(40)
    assert world.link(A) == before
    assert world.same()


# --- peers that lie ---


def proposal(world: World, number: int = 0, replaces: int = 0) -> Propose:
    """One of B's, as A takes it."""
    terms = replace(world.fresh().own.terms, port=40000, mtu=1420)
    return Propose(number or (world.clock << 1 | 1), replaces, terms)


def told(world: World, message: Message) -> None:
    """A is told this by B, and B does not hear what A says."""
    world.carry(A, world.ends[A].agreement.received(B, message, world.now))
    world.flying.clear()


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
    assert [ended.reason for ended in world.ends[A].ended()] == [Reason.BAD_VALUES]
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
    world.open(B)
    world.run(1)
    link = world.link(A)
    assert link is not None
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
    assert [ended.reason for ended in world.ends[A].ended()][1:] == [Reason.STALE]


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


# --- states and notes ---


def test_phases_follow_each_other_as_the_table_says() -> None:
    own = World().fresh().own
    for before in NEXT:
        for after in LinkPhase:
            entry = Entry(B, 2, Role.CLIENT, "re6stnet1", own, phase=before)
            if after in NEXT[before]:
                entry.go(after, 0, 0)
                assert entry.phase is after
            else:
                with pytest.raises(RuntimeError):
                    entry.go(after, 0, 0)


def test_a_note_of_a_link_is_read_as_it_was_written_and_the_secret_is_nowhere_else() -> None:
    world = linked()
    for link in (world.link(A), world.link(B)):
        assert link is not None
        assert wireguard_links.decode(wireguard_links.encode(link)) == link
        assert repr(link.own.secret) not in repr(link)
        assert link.own.secret.hex() not in repr(link)


def test_a_note_that_was_damaged_is_refused() -> None:
    world, rng = linked(), Random(5)
    link = world.link(A)
    assert link is not None
    note = wireguard_links.encode(link)
    absurd = (
        note.replace(b'"port": 51820', b'"port": 53'),
        note.replace(b'"port": 51820', b'"port": "51820"'),
        note.replace(b"1420", b"70000"),
        note.replace(b"fe80::", b"2001:db8::"),
        note.replace(b"re6stnet1", b"eth0"),
        note.replace(b"client", b"king"),
        note.replace(link.own.secret.hex().encode(), b"00"),
        note.replace(str(link.number).encode(), b"-1"),
        note.replace(str(link.number).encode(), b"1e400"),
        b"[" * 100_000,
        b"null",
        b"",
    )
    for text in absurd:
        assert text != note
        with pytest.raises(RecordError) as error:
            wireguard_links.decode(text)
        assert link.own.secret.hex() not in str(error.value)
    for _ in range(300):
        changed = bytearray(note)
        changed[rng.randrange(len(note))] = rng.randrange(256)
        try:
            read = wireguard_links.decode(bytes(changed))
        except RecordError:
            continue
        assert isinstance(read.theirs, Terms)
