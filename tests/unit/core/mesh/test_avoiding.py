"""Links on which packets get lost are avoided, as far as others are better, and never given up."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address
from random import Random

import pytest

from re6st.core.mesh.avoiding import FORGETS, SPACING, TIME_FIRST, TIME_LAST, Avoiding
from re6st.core.mesh.events import Action, AvoidLink, LossSign, Settings, TrustLink
from re6st.core.mesh.phases import Phase
from re6st.core.mesh.state import State, Tunnel
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey

P, Q, R, S, T = PEERS = [Prefix(number, 16) for number in range(5, 10)]
HOPS = {
    peer: NextHop(IPv6Address(f"fe80::{number}"), f"re6stnet{number}" if number < 3 else "re6stnet-tcp")
    for number, peer in enumerate(PEERS)
}
OURS = Settings(own=Prefix(4, 16), registry=Prefix(0, 16), client_count=10, tunnel_refresh=300.0, close_time=45.0)


class World:
    """A node with tunnels to P, Q and R, of whose servers S and T are clients; the clock is by the second."""

    def __init__(self) -> None:
        self.state = State(OURS, lambda host: "")
        self.state.tunnels = {peer: Tunnel(peer, Phase.UP, 0.0, HOPS[peer].interface) for peer in (P, Q, R)}
        self.state.clients = {S: 1, T: 1}
        self.carry()
        self.avoiding = Avoiding(self.state, Random(1))
        self.now = 1000.0

    @property
    def survey(self) -> Survey:
        """What the node sees."""
        return self._survey

    @survey.setter
    def survey(self, seen: Survey) -> None:
        self._survey = self.state.survey = seen

    def carry(self, *used: Prefix, patchy: tuple[Prefix, ...] = ()) -> None:
        """Traffic goes over the links with these; hellos of those have holes."""
        self.survey = Survey(
            peers=frozenset(PEERS),
            neighbours={
                peer: (LinkUse(hop, frozenset({peer} if peer in used else ()), frozenset()),)
                for peer, hop in HOPS.items()
            },
            patchy=frozenset(HOPS[peer] for peer in patchy),
            alone=False,
        )

    def lose(self, *peers: Prefix) -> None:
        self.state.lossy = frozenset(peers)

    def leave_unanswered(self, *peers: Prefix, suspected: tuple[Prefix, ...] = ()) -> None:
        """Echo requests on the links with these, or some of those on others."""
        self.state.lossy_links = frozenset(HOPS[peer] for peer in peers)
        self.state.suspected_links = frozenset(HOPS[peer] for peer in suspected)

    def sign(self, peer: Prefix) -> LossSign | None:
        return self.avoiding.sign(peer, HOPS[peer].interface)

    def meet(self, peer: Prefix, hop: NextHop) -> None:
        """Babel hears a peer there, and nowhere else."""
        links = (LinkUse(hop, frozenset(), frozenset()),)
        self.survey = replace(self.survey, neighbours={**self.survey.neighbours, peer: links})

    def wait(self, seconds: float) -> list[Action]:
        found: list[Action] = []
        for _ in range(int(seconds)):
            self.now += 1
            found += self.avoiding.advance(self.now)
        return found


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("peer", [P, S])
def test_one_that_has_to_send_much_again_is_avoided_at_once_at_both_ends(world: World, peer: Prefix) -> None:
    assert world.wait(60) == []
    world.lose(peer)
    assert world.wait(1) == [AvoidLink(peer, HOPS[peer])]
    assert world.avoiding.peers == {peer}
    assert world.wait(TIME_FIRST - 2) == [], "that it is still lossy says nothing new"


def test_one_whose_hellos_have_holes(world: World) -> None:
    world.carry(patchy=(Q,))
    assert world.wait(1) == [AvoidLink(Q, HOPS[Q])]


@pytest.mark.parametrize("peer", [P, S])
def test_one_on_which_echo_requests_get_lost(world: World, peer: Prefix) -> None:
    world.leave_unanswered(peer)
    assert world.wait(1) == [AvoidLink(peer, HOPS[peer])]
    assert world.sign(peer) == LossSign.REQUESTS
    assert world.avoiding.hops == {HOPS[peer]}


def test_each_is_avoided_for_what_was_seen(world: World) -> None:
    world.lose(P)
    world.carry(patchy=(Q,))
    world.wait(SPACING + 1)
    assert (world.sign(P), world.sign(Q), world.sign(R)) == (LossSign.SENT_AGAIN, LossSign.HELLOS, None)


def test_one_that_leaves_requests_unanswered_is_not_tried(world: World) -> None:
    world.leave_unanswered(P)
    assert world.wait(5 * TIME_FIRST) == [AvoidLink(P, HOPS[P])]
    world.leave_unanswered()
    assert world.wait(8 * TIME_FIRST) == [TrustLink(P, HOPS[P])]
    assert world.wait(TIME_FIRST) == []


def test_one_that_does_so_again_once_it_is_tried_is_avoided_at_once_and_for_longer(world: World) -> None:
    """Missed hellos may be those that we dropped; echo requests were not."""
    world.leave_unanswered(P)
    world.wait(1)
    world.leave_unanswered()
    while not world.wait(1):
        pass
    world.leave_unanswered(P)
    assert world.wait(1) == [AvoidLink(P, HOPS[P])]
    world.leave_unanswered()
    assert world.wait(2 * TIME_FIRST - 1) == []


def test_where_others_are_suspected_it_is_our_own_line(world: World) -> None:
    world.leave_unanswered(P, suspected=(Q, S))
    assert world.wait(600) == []
    world.leave_unanswered(P, suspected=(Q,))
    assert world.wait(1) == [AvoidLink(P, HOPS[P])]


def test_one_that_is_seen_to_lose_still_is_not_tried(world: World) -> None:
    world.lose(P)
    assert world.wait(5 * TIME_FIRST) == [AvoidLink(P, HOPS[P])]
    world.lose()
    assert world.wait(8 * TIME_FIRST) == [TrustLink(P, HOPS[P])]
    assert world.wait(TIME_FIRST) == []


def test_one_whose_losses_are_not_seen_meanwhile_is_tried_later_and_later(world: World) -> None:
    lengths = []
    for _ in range(12):
        world.carry(patchy=(P,))
        while not (found := world.wait(1)):
            pass
        assert found == [AvoidLink(P, HOPS[P])]
        since = world.now
        world.carry()
        while not (found := world.wait(1)):
            pass
        assert found == [TrustLink(P, HOPS[P])]
        lengths.append(world.now - since)
    assert TIME_FIRST <= lengths[0] <= 2 * TIME_FIRST + 1
    assert lengths[1] > lengths[0]
    assert TIME_LAST <= lengths[-1] <= 2 * TIME_LAST + 1


def test_our_own_dropping_is_not_taken_for_loss(world: World) -> None:
    world.carry(patchy=(P,))
    assert world.wait(1) == [AvoidLink(P, HOPS[P])]
    while not (found := world.wait(1)):
        pass
    assert found == [TrustLink(P, HOPS[P])]
    assert world.wait(FORGETS - 1) == [], "the holes are those that we made"


def test_where_most_lose_it_is_our_own_line(world: World) -> None:
    world.lose(P, Q, S)
    assert world.wait(600) == []
    world.lose(P, Q)
    assert world.wait(1) == [AvoidLink(P, HOPS[P])]
    assert world.wait(SPACING) == [AvoidLink(Q, HOPS[Q])], "one after the other"
    world.lose(P, Q, R, S, T)
    assert world.wait(10) == []


def test_the_only_link_is_not_avoided(world: World) -> None:
    world.state.tunnels = {P: world.state.tunnels[P]}
    world.state.clients.clear()
    neighbours = {P: world.survey.neighbours[P]}
    world.survey = replace(world.survey, neighbours=neighbours)
    world.lose(P)
    assert world.wait(600) == []


def test_of_two_links_to_one_peer_it_is_not_known_which(world: World) -> None:
    both = (*world.survey.neighbours[P], *world.survey.neighbours[S])
    world.survey = replace(world.survey, neighbours={**world.survey.neighbours, P: both})
    world.lose(P)
    assert world.wait(60) == []


def test_a_babeld_that_has_just_begun_does_not_say_whom_nobody_reaches(world: World) -> None:
    world.lose(P)
    assert world.wait(20) == [AvoidLink(P, HOPS[P])]
    whole = world.survey
    world.survey = replace(whole, running=False)
    assert world.wait(2) == []
    world.survey = replace(whole, peers=frozenset({Q}))
    assert world.wait(5) == []
    world.survey = whole
    assert world.wait(20) == []


def test_a_network_that_can_drain_nothing_any_more(world: World) -> None:
    world.lose(P)
    assert world.wait(20) == [AvoidLink(P, HOPS[P])]
    world.state.settings = replace(world.state.settings, drains=False)
    assert world.wait(5) == [TrustLink(P, HOPS[P])]


def test_months_of_loss(world: World) -> None:
    world.lose(P)
    assert world.wait(1) == [AvoidLink(P, HOPS[P])]
    for _ in range(2000):
        world.now += 2 * TIME_LAST
        assert world.wait(1) == []


def test_who_has_no_better_way_uses_it_as_before(world: World) -> None:
    world.carry(P)
    world.lose(P)
    assert world.wait(1) == [AvoidLink(P, HOPS[P])]
    assert world.wait(OURS.drain_time - 1) == [], "the routes are leaving"
    assert world.wait(1) == [TrustLink(P, HOPS[P])], "before babel takes it for lost"
    assert world.wait(TIME_FIRST - 1) == [], "it is not tried again at once"
    assert world.wait(TIME_FIRST + 2)[0] == AvoidLink(P, HOPS[P])


def test_one_that_becomes_needed_later(world: World) -> None:
    world.lose(P)
    world.wait(30)
    world.survey = replace(world.survey, peers=frozenset(PEERS) - {P})
    assert world.wait(1) == [TrustLink(P, HOPS[P])]


def test_one_whose_peer_has_left(world: World) -> None:
    world.lose(S)
    assert world.wait(1) == [AvoidLink(S, HOPS[S])]
    world.state.clients.pop(S)
    assert world.wait(1) == [TrustLink(S, HOPS[S])]
    assert world.avoiding.peers == frozenset()
    assert world.wait(20) == []


def test_its_next_tunnel_leads_the_same_way(world: World) -> None:
    world.lose(S)
    assert world.wait(1) == [AvoidLink(S, HOPS[S])]
    clients, world.state.clients = world.state.clients, {T: 1}
    world.lose()
    assert world.wait(10) == [TrustLink(S, HOPS[S])]
    world.state.clients = clients
    assert world.wait(1) == [AvoidLink(S, HOPS[S])]
    assert world.wait(3 * TIME_FIRST) == [TrustLink(S, HOPS[S])]
    assert world.wait(3 * TIME_FIRST) == []


def test_a_client_that_moves_to_a_link_of_its_own_is_no_longer_avoided_where_it_was(world: World) -> None:
    """It goes the same way, so the rest of the time counts for the link, and is told of that."""
    world.lose(S)
    assert world.wait(1) == [AvoidLink(S, HOPS[S])]
    world.lose()
    link = NextHop(IPv6Address("fe80::77"), "re6stnet-wg7")
    world.meet(S, link)
    assert world.wait(1) == [TrustLink(S, HOPS[S]), AvoidLink(S, link)]
    assert (world.avoiding.sign(S, link.interface), world.sign(S)) == (LossSign.SENT_AGAIN, None)
    assert world.avoiding.hops == {link}
    assert world.wait(3 * TIME_FIRST) == [TrustLink(S, link)]


def test_a_client_that_is_not_heard_at_all_is_avoided_still(world: World) -> None:
    world.lose(S)
    assert world.wait(1) == [AvoidLink(S, HOPS[S])]
    world.lose()
    neighbours = {peer: links for peer, links in world.survey.neighbours.items() if peer != S}
    world.survey = replace(world.survey, neighbours=neighbours)
    assert world.wait(TIME_FIRST - 2) == []


def test_nothing_is_decided_while_babeld_is_away_nor_where_nothing_can_be_drained(world: World) -> None:
    world.lose(P)
    world.survey = replace(world.survey, running=False)
    assert world.wait(10) == []
    world.carry()
    world.state.settings = replace(world.state.settings, drains=False)
    assert world.wait(10) == []


def test_a_lan_is_not_ours_to_mute(world: World) -> None:
    world.state.settings = replace(world.state.settings, lan=frozenset({HOPS[P].interface}))
    world.lose(P)
    assert world.wait(10) == []
