"""When a WireGuard link takes the place of a tunnel: only once routes come by it at both ends, and never for good."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv6Address

import pytest

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey
from re6st.core.transport.upgrades import (
    ASK_AGAIN,
    AT_ONCE,
    EMPTY_TIME,
    LATE,
    LOST_PAUSE,
    MEET_TIME,
    NOBODY_MET,
    NOT_MOVED,
    PAUSE,
    PAUSES_LIMIT,
    SETTLED,
    SLOW_PAUSE,
    Action,
    Ask,
    CloseLink,
    Held,
    Move,
    Mute,
    OpenLink,
    Retire,
    Step,
    Unmute,
    Upgrades,
    has_moved,
    is_met,
)

PEER, OTHER = Prefix(1, 16), Prefix(2, 16)
OLD, LINK = "re6stnet1", "re6stnet-wg1"
HELLO = 0.25


def seen(links: dict[str, Collection[Prefix]], *, running: bool = True, alive: Collection[str] | None = None) -> Survey:
    """Babel has the peer as neighbour on these interfaces, by which these destinations are reached."""
    hops = tuple(
        LinkUse(NextHop(IPv6Address("fe80::1"), name), frozenset(carried), frozenset())
        for name, carried in links.items()
    )
    return Survey(
        neighbours={PEER: hops} if hops else {},
        alive=frozenset(links if alive is None else alive),
        running=running,
    )


BEFORE = seen({OLD: [PEER]})
BOTH = seen({OLD: [PEER], LINK: []})
AFTER = seen({OLD: [], LINK: [PEER]})


class Play:
    def __init__(self) -> None:
        self.upgrades = Upgrades()
        self.now = 100.0
        self.held = {PEER: Held(OLD, self.now, ready=True)}
        self.survey = BEFORE

    def after(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.upgrades.tick(self.held, self.survey, HELLO, self.now)

    def opened(self) -> None:
        assert self.after(SETTLED) == [OpenLink(PEER)]
        self.upgrades.up(PEER, LINK, self.now)

    def met(self) -> None:
        self.opened()
        self.survey = BOTH
        assert self.after(0.1) == [Ask(PEER, moved=False)]
        self.upgrades.answered(PEER, moved=False)
        assert self.after(0.1) == [Move(PEER, LINK), Mute(OLD)]
        assert self.upgrades.carries(PEER)

    def done(self) -> None:
        self.met()
        self.survey = AFTER
        self.upgrades.answered(PEER, moved=True)
        self.after(0.1)
        assert self.after(EMPTY_TIME) == [Retire(PEER)]
        del self.held[PEER]


@pytest.fixture
def play() -> Play:
    return Play()


def test_a_tunnel_that_just_came_up_is_left_alone(play: Play) -> None:
    assert play.after(SETTLED - 0.1) == []
    assert play.after(0.1) == [OpenLink(PEER)]
    assert play.after(10) == [], "it is opened once"
    assert play.upgrades.busy


def test_one_that_others_want_something_of_is_too(play: Play) -> None:
    play.held = {PEER: Held(OLD, 0, ready=False)}
    assert play.after(100) == []


def test_few_are_opened_at_one_time(play: Play) -> None:
    play.held = {Prefix(number, 16): Held(f"re6stnet{number}", 0, ready=True) for number in range(10)}
    assert len(play.after(1)) == AT_ONCE
    assert play.after(1) == []
    play.upgrades.ended(Prefix(0, 16), "", play.now, was_up=False)
    assert len(play.after(1)) == 1


def test_routes_move_only_when_the_link_is_met_at_both_ends(play: Play) -> None:
    play.opened()
    assert play.after(0.1) == [], "babel has met nobody on it yet"
    play.survey = BOTH
    assert play.after(0.1) == [Ask(PEER, moved=False)]
    assert play.after(0.1) == []
    assert play.after(ASK_AGAIN) == [Ask(PEER, moved=False)]
    assert not play.upgrades.carries(PEER)
    play.upgrades.answered(PEER, moved=False)
    assert play.after(0.1) == [Move(PEER, LINK), Mute(OLD)]


def test_the_old_tunnel_ends_when_nothing_goes_through_it_from_either_end(play: Play) -> None:
    play.met()
    play.survey = AFTER
    assert play.after(ASK_AGAIN) == [Ask(PEER, moved=True)]
    assert play.after(2 * HELLO) == [Ask(PEER, moved=True)], "the peer may still use it"
    play.upgrades.answered(PEER, moved=True)
    assert Retire(PEER) not in play.after(0.1)
    assert play.after(EMPTY_TIME) == [Retire(PEER)]
    assert play.upgrades.step(PEER) is Step.DONE
    assert not play.upgrades.busy
    del play.held[PEER]
    assert play.after(1000) == []


def test_what_the_peer_sent_last_has_time_to_come_before_the_old_tunnel_ends(play: Play) -> None:
    """It may wait in the peer's OpenVPN, though the peer sends nothing more through it, and we do not for long."""
    play.met()
    play.survey = AFTER
    for _ in range(3):
        play.after(0.4)
    play.upgrades.answered(PEER, moved=True)
    assert Retire(PEER) not in play.after(0.1)
    play.upgrades.answered(PEER, moved=False)
    assert Retire(PEER) not in play.after(0.1), "it uses it again"
    play.upgrades.answered(PEER, moved=True)
    assert Retire(PEER) not in play.after(0.1)
    assert Retire(PEER) not in play.after(EMPTY_TIME - 0.1)
    assert play.after(0.1) == [Retire(PEER)]


def test_where_the_peer_says_no_more_it_ends_when_babel_has_lost_it_anyway(play: Play) -> None:
    play.met()
    play.survey = AFTER
    actions = [action for _ in range(int((LATE + 1) / HELLO)) for action in play.after(HELLO)]
    assert Retire(PEER) in actions


@pytest.mark.parametrize("lost", [True, False], ids=["the link is lost", "routes stay"])
def test_back_to_the_old_tunnel_it_goes_where_the_link_does_not_serve(play: Play, lost: bool) -> None:
    play.met()
    if lost:
        play.survey = BEFORE
    looks = int((SLOW_PAUSE - 1) / HELLO)
    actions = [action for _ in range(looks) for action in play.after(HELLO) if not isinstance(action, Ask)]
    assert actions == [Unmute(OLD), Move(PEER, OLD), CloseLink(PEER, NOT_MOVED)]
    assert not play.upgrades.carries(PEER)
    assert play.upgrades.why_not(PEER, play.now) == NOT_MOVED
    play.survey = BEFORE
    assert play.after(SLOW_PAUSE) == [OpenLink(PEER)]


def test_routes_may_take_longer_to_move_on_a_slow_machine(play: Play) -> None:
    play.met()
    for _ in range(int((LATE - 1) / HELLO)):
        play.upgrades.answered(PEER, moved=False)
        assert all(isinstance(action, Ask) for action in play.after(HELLO))
    play.survey = AFTER
    play.after(HELLO)
    play.upgrades.answered(PEER, moved=True)
    play.after(HELLO)
    assert play.after(EMPTY_TIME) == [Retire(PEER)]


def test_a_link_that_babel_meets_nobody_on_is_closed_and_not_tried_again_for_a_while(play: Play) -> None:
    play.opened()
    assert play.after(MEET_TIME + 1) == [CloseLink(PEER, NOBODY_MET)]
    assert play.after(PAUSE - 1) == []
    assert play.upgrades.why_not(PEER, play.now) == NOBODY_MET
    assert play.after(1) == [OpenLink(PEER)]


def test_a_tunnel_that_is_given_up_meanwhile_takes_the_link_along(play: Play) -> None:
    for held in ({}, {PEER: Held(OLD, 0, ready=False)}):
        play = Play()
        play.opened()
        play.held = held
        assert play.after(0.1) == [CloseLink(PEER, "")]
        assert play.upgrades.why_not(PEER, play.now) == ""


def test_an_old_tunnel_that_ends_by_itself_while_it_is_drained_leaves_all_to_the_link(play: Play) -> None:
    play.met()
    del play.held[PEER]
    assert play.after(0.1) == []
    assert play.upgrades.step(PEER) is Step.DONE
    assert play.upgrades.carries(PEER)


def test_a_link_that_ends_while_the_old_tunnel_is_drained_leaves_all_to_that(play: Play) -> None:
    play.met()
    assert play.upgrades.ended(PEER, "it was closed", play.now, was_up=True) == [Unmute(OLD), Move(PEER, OLD)]
    assert not play.upgrades.carries(PEER)


def test_after_a_link_was_lost_the_next_tunnel_rests(play: Play) -> None:
    play.done()
    assert play.upgrades.ended(PEER, "nothing has come in", play.now, was_up=True) == []
    play.held, play.survey = {PEER: Held(OLD, play.now, ready=True)}, BEFORE
    assert play.after(LOST_PAUSE - 1) == []
    assert play.after(1) == [OpenLink(PEER)]


def test_a_link_that_ends_before_it_served_is_not_tried_again_soon(play: Play) -> None:
    """Its path may swallow all but small packets, which is found each time when it is up."""
    play.opened()
    assert play.upgrades.ended(PEER, "it does not serve", play.now, was_up=True) == []
    assert play.after(PAUSE - 1) == []
    assert play.after(1) == [OpenLink(PEER)]


def test_nothing_is_decided_while_babel_does_not_run(play: Play) -> None:
    play.met()
    play.survey = seen({}, running=False)
    assert play.after(1000) == []


def test_a_link_of_an_earlier_daemon_is_the_tunnel(play: Play) -> None:
    play.held = {}
    play.upgrades.resume(PEER, LINK, play.now)
    assert play.upgrades.carries(PEER)
    assert play.after(1) == []
    play.upgrades.forget(PEER)
    assert not play.upgrades.carries(PEER)


def test_what_is_said_of_unknown_links_changes_nothing(play: Play) -> None:
    play.upgrades.up(OTHER, LINK, play.now)
    play.upgrades.answered(OTHER, moved=True)
    assert play.upgrades.ended(OTHER, "", play.now, was_up=True) == []
    assert play.upgrades.step(OTHER) is None


def test_pauses_are_bounded(play: Play) -> None:
    for number in range(PAUSES_LIMIT + 1):
        peer = Prefix(number, 16)
        play.upgrades.resume(peer, LINK, 0)
        play.upgrades.ended(peer, "x", play.now, was_up=True)
    assert play.upgrades.why_not(Prefix(0, 16), play.now) == ""
    assert play.upgrades.why_not(Prefix(1, 16), play.now) == "x"


def test_a_peer_is_met_on_an_interface_by_its_own_routes_there() -> None:
    assert is_met(BOTH, PEER, LINK)
    assert not is_met(BOTH, OTHER, LINK)
    assert not is_met(seen({OLD: [], LINK: []}, alive=[OLD]), PEER, LINK), "one that babel cannot reach"
    assert not has_moved(BEFORE, PEER, frozenset({LINK}))
    assert has_moved(AFTER, PEER, frozenset({LINK}))
