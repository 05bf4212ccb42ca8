"""What a node does about links that lose packets, from the echo requests to the decision: soon, once, and not for ever.

Packets and time are played; the measurement and the policy are real.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest

from re6st.core.mesh.avoiding import RECENT, TIME_FIRST, Avoiding
from re6st.core.mesh.events import AvoidLink, Settings, TrustLink
from re6st.core.mesh.phases import Phase
from re6st.core.mesh.state import State, Tunnel
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import LinkUse, Survey
from tests.unit.core.routing.test_link_loss import HOPS, HOUR, MENDING, Loss, Play, from_then, never

PEERS = [Prefix(number, 16) for number in range(10, 18)]
LINKS = dict(zip(PEERS, HOPS, strict=False))
OURS = Settings(own=Prefix(4, 16), registry=Prefix(0, 16), client_count=10, tunnel_refresh=300.0, close_time=45.0)
BEGINS = 20.0
"""When losses begin: neighbours have been asked in a train by then."""


class Node:
    """Eight WireGuard links. Traffic goes by the first three that are used at each moment."""

    def __init__(self, losses: Mapping[Prefix, Loss], seed: int = 1) -> None:
        self.play = Play({LINKS[peer]: losses.get(peer, never) for peer in PEERS}, seed, traffic={}, most=0.2)
        self.state = State(OURS, lambda host: "")
        self.state.tunnels = {peer: Tunnel(peer, Phase.UP, 0.0, LINKS[peer].interface) for peer in PEERS}
        self.avoiding = Avoiding(self.state, Random(seed))
        self.decided: list[tuple[float, AvoidLink | TrustLink]] = []

    def run(self, until: float) -> None:
        while self.play.now < until:
            avoided = self.avoiding.peers
            used = [peer for peer in PEERS if peer not in avoided]
            self.play.avoided = set(self.avoiding.hops)
            self.play.gone = self.play.avoided  # babel forgets them, soon
            self.play.traffic = {LINKS[peer]: 0.02 for peer in used[:3]}
            self.play.run(self.play.now + 0.1)
            measured = self.play.measured
            self.state.lossy_links = measured.lossy
            self.state.suspected_links = measured.suspected if measured.lossy else frozenset()
            self.state.survey = Survey(
                peers=frozenset(PEERS),
                neighbours={peer: (LinkUse(LINKS[peer], frozenset(), frozenset()),) for peer in used},
                alone=False,
            )
            for action in self.avoiding.advance(self.play.now):
                assert isinstance(action, AvoidLink | TrustLink)
                self.decided.append((self.play.now, action))

    @property
    def actions(self) -> list[AvoidLink | TrustLink]:
        return [action for _, action in self.decided]


FIRST = PEERS[0], LINKS[PEERS[0]]


@pytest.mark.parametrize("seed", range(2))
def test_one_that_loses_packets_for_an_hour_is_left_once(seed: int) -> None:
    node = Node({PEERS[0]: from_then(BEGINS, 0.3)}, seed)
    node.run(HOUR)
    assert node.actions == [AvoidLink(*FIRST)]
    assert node.decided[0][0] - BEGINS < 4


def test_it_comes_back_when_it_loses_none_any_more() -> None:
    node = Node({PEERS[0]: lambda now: 0.3 if BEGINS <= now < 300 else 0.0})
    node.run(HOUR)
    assert node.actions == [AvoidLink(*FIRST), TrustLink(*FIRST)]
    assert node.decided[1][0] - 300 < MENDING + 2 * RECENT


def test_one_that_loses_packets_every_other_minute_rests_longer_each_time() -> None:
    node = Node({PEERS[0]: lambda now: 0.3 if now > BEGINS and now % 240 < 120 else 0.0})
    node.run(4 * HOUR)
    assert len(node.decided) < 20
    rests = [back - left for (left, _), (back, _) in zip(node.decided[::2], node.decided[1::2], strict=False)]
    assert max(rests) > 10 * TIME_FIRST


@pytest.mark.parametrize("seed", range(10))
def test_where_our_own_line_loses_packets_no_link_is_better_and_none_is_left(seed: int) -> None:
    node = Node(dict.fromkeys(PEERS, from_then(BEGINS, 0.3)), seed)
    node.run(HOUR / 6)
    assert node.actions == []


def test_three_of_eight_are_left_one_after_the_other() -> None:
    node = Node(dict.fromkeys(PEERS[:3], from_then(BEGINS, 0.3)))
    node.run(HOUR / 6)
    assert {action.peer for action in node.actions} == set(PEERS[:3])
    assert len(node.actions) == 3
    assert node.decided[-1][0] - BEGINS < 15
