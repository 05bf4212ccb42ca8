"""Whatever happens, in any order: the policy keeps to its limits, and sleeps until something is due."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from re6st.core.mesh.avoiding import SPACING
from re6st.core.mesh.opening import ENDPOINTS_DIALLED, HOSTS_DIALLED
from re6st.core.mesh.policy import (
    HEARTBEAT,
    Action,
    AllowClose,
    AskAddress,
    AskBootstrap,
    AvoidLink,
    BootstrapAnswered,
    CloseTunnel,
    DrainTunnel,
    EnsureSession,
    Event,
    Mesh,
    OpenTunnel,
    Phase,
    Resumed,
    Settings,
    SettingsChanged,
    Surveyed,
    TrustLink,
    TunnelDown,
)
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey
from re6st.sim.names import endpoints, name
from tests.unit.core.mesh.any_events import CLOSE_TIME, HAPPENINGS, OWN, PEERS, SETTINGS

AT_ONCE = 60
"""Actions that one event may have, with a dozen peers: a few for each."""
WAKES = 60
"""Looks at the time in a minute, at most, where nothing happens: as often as if it were asked every second."""


class Node:
    """One policy, its deadlines, and what it has decided."""

    def __init__(self, given: Settings, resumed: int, seed: int) -> None:
        self.now = 5000.0
        self.mesh = Mesh(given, {peer: endpoints(peer) for peer in PEERS[::2]}, Random(seed))
        self.story: list[tuple[float, Action]] = []
        self.wakes: list[float] = []
        self.limit = given.client_count
        """Tunnels that it may have: fewer are allowed later, but none is cut for it."""
        if resumed:
            self.limit = max(self.limit, resumed)
            self.tell(Resumed(tuple((peer, name(peer)) for peer in PEERS[:resumed])))

    def live(self, happening: Event | float) -> None:
        """An event, or a while in which nothing happens."""
        if isinstance(happening, float):
            self.wait(happening)
        elif isinstance(happening, SettingsChanged):
            self.limit = max(len(self.mesh.tunnels), happening.settings.client_count)
            self.tell(happening)
        else:
            self.tell(happening)

    def tell(self, event: Event) -> None:
        self._decided(self.mesh.handle(event, self.now))

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self._deadline()) <= end:
            self.now = due
            self.wakes.append(due)
            self._decided(self.mesh.tick(due))
            assert self._deadline() > due, "what was due is done: it would never sleep"
        self.now = end

    def _deadline(self) -> float:
        due = self.mesh.next_deadline(self.now)
        assert self.now <= due <= self.now + HEARTBEAT
        assert self.mesh.next_deadline(self.now) == due, "asking changes nothing"
        return due

    def _decided(self, actions: list[Action]) -> None:
        self.story += [(self.now, action) for action in actions if not isinstance(action, EnsureSession)]
        assert len(actions) <= AT_ONCE
        assert len(self.mesh.tunnels) <= self.limit
        self.limit = max(len(self.mesh.tunnels), self.mesh.settings.client_count)
        assert OWN not in self.mesh.tunnels
        assert not any(isinstance(action, AvoidLink) and action.peer == OWN for action in actions)
        again = Counter(action for action in actions if not isinstance(action, EnsureSession))
        assert all(times == 1 for times in again.values()), "nothing is decided twice at one time"
        for action in actions:
            self._check(action)

    def _check(self, action: Action) -> None:
        tunnels = self.mesh.tunnels
        match action:
            case OpenTunnel(peer, places):
                assert tunnels[peer].phase is Phase.OPENING
                assert peer not in self.mesh.clients
                assert 0 < len(places) <= ENDPOINTS_DIALLED
                assert len({place.host for place in places}) <= HOSTS_DIALLED
                assert not {place.protocol.served for place in places} & self.mesh.settings.disabled_protocols
            case CloseTunnel(peer):
                assert tunnels[peer].phase is Phase.CLOSING
            case DrainTunnel(peer):
                assert tunnels[peer].phase is Phase.DRAINING
                assert self.mesh.settings.drains
            case AskAddress(peer):
                assert peer not in {OWN, *tunnels, *self.mesh.clients}
            case AllowClose(peer):
                assert peer in self.mesh.clients
            case _:
                pass


@settings(max_examples=200, deadline=None)
@given(SETTINGS, st.integers(0, 5), HAPPENINGS, st.integers(0, 3))
def test_whatever_happens_it_keeps_to_its_limits(
    given: Settings, resumed: int, happenings: list[Event | float], seed: int
) -> None:
    node = Node(given, resumed, seed)
    for happening in happenings:
        node.live(happening)
    asked = [moment for moment, action in node.story if isinstance(action, AskBootstrap)]
    answered = sum(isinstance(happening, BootstrapAnswered) for happening in happenings)
    assert len(asked) <= answered + 1, "the registry is asked again once it has answered"
    avoided = [moment for moment, action in node.story if isinstance(action, AvoidLink)]
    assert all(later - earlier >= SPACING for earlier, later in pairwise(avoided)) or ends_early(node)


def ends_early(node: Node) -> bool:
    """Whether a link was trusted again within the time that keeps the next one from being avoided."""
    return any(isinstance(action, TrustLink) for _, action in node.story)


@settings(max_examples=100, deadline=None)
@given(SETTINGS, HAPPENINGS)
def test_once_nothing_happens_any_more_nothing_stays_half_way_and_it_comes_to_rest(
    given: Settings, happenings: list[Event | float]
) -> None:
    node = Node(given, 0, 1)
    for happening in happenings:
        node.live(happening)
    for _ in range(3):
        node.wait(CLOSE_TIME + 2)
        for peer, tunnel in list(node.mesh.tunnels.items()):
            if tunnel.phase in (Phase.CLOSING, Phase.OPENING):
                node.tell(TunnelDown(peer))
    node.tell(Surveyed(Survey()))
    node.wait(1)
    assert all(tunnel.phase in (Phase.UP, Phase.OPENING) for tunnel in node.mesh.tunnels.values())
    node.wakes.clear()
    node.wait(600)
    in_a_minute = Counter(int(moment - node.now) // 60 for moment in node.wakes)
    assert max(in_a_minute.values()) <= WAKES


def test_an_idle_node_looks_at_the_time_no_more_often_than_its_heart_beats() -> None:
    """With all the tunnels that it wants: twelve times a minute, where it was sixty."""
    held: frozenset[Prefix] = frozenset(PEERS[:3])
    node = Node(Settings(OWN, PEERS[0], 3, 300.0, CLOSE_TIME, drain_time=0.0), 3, 1)
    node.tell(Surveyed(Survey(peers=held, alive=frozenset(map(name, held)))))
    node.wait(30)
    node.wakes.clear()
    node.wait(600)
    assert len(node.wakes) <= 600 / HEARTBEAT + 4, "and when a tunnel could be replaced, if there were a better one"
