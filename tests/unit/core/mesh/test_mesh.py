"""The policy of the mesh: one node's decisions, event by event; then whole networks in memory (re6st/sim)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re6st.core.mesh.closing import DEAD_TIME, LAN_TIME, MOVED_TIME
from re6st.core.mesh.opening import ASK_TIME, BOOTSTRAP_LAST, FIRST_TUNNELS, NAMED_AGAIN
from re6st.core.mesh.policy import (
    AddressLearned,
    AllowClose,
    AskAddress,
    AskBootstrap,
    AskClose,
    AvoidLink,
    BootstrapAnswered,
    ClientDown,
    ClientUp,
    CloseAllowed,
    CloseAsked,
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
    TunnelsLossy,
    TunnelsOutdated,
    TunnelUp,
    UndrainTunnel,
    UplinkUp,
)
from re6st.core.mesh.state import MODEST
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import Link, Survey
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.sim.names import endpoints, name
from re6st.sim.network import Network

REGISTRY, OWN = Prefix(0, 16), Prefix(7, 16)
PEERS = [Prefix(n, 16) for n in range(20, 60)]
P, Q, R = PEERS[:3]
CLOSE_TIME, REFRESH = 45.0, 300.0


class Driver:
    """One `Mesh`, on a clock that the test moves."""

    def __init__(self, memory: tuple[Prefix, ...] = (), seed: int = 1, **more: Any) -> None:
        self.now = 5000.0
        self.memory = {peer: endpoints(peer) for peer in memory}
        given = {
            "own": OWN,
            "registry": REGISTRY,
            "client_count": 10,
            "tunnel_refresh": REFRESH,
            "close_time": CLOSE_TIME,
            "drain_time": 0.0,
        }
        self.mesh = Mesh(Settings(**{**given, **more}), self.memory, Random(seed))

    def tell(self, event: Event) -> list[Any]:
        return [a for a in self.mesh.handle(event, self.now) if not isinstance(a, EnsureSession)]

    def wait(self, seconds: float) -> list[Any]:
        """Let time pass, second by second; everything that was to be done meanwhile."""
        actions = []
        for _ in range(round(seconds)):
            self.now += 1
            actions += self.mesh.tick(self.now)
        return [a for a in actions if not isinstance(a, EnsureSession)]

    def sees(self, *peers: Prefix, **more: Any) -> list[Any]:
        """The routing table holds these peers, all far, and whatever the survey is told more."""
        return self.tell(Surveyed(Survey(peers=frozenset(peers), **more)))

    def settle(self) -> None:
        """Be connected, next to the registry's node, with a client of ours."""
        self.sees(REGISTRY, **near(REGISTRY))
        self.tell(ClientUp(Prefix(9999, 16)))

    def up(self, *peers: Prefix) -> None:
        """Client tunnels to these peers are there, and babel is at home on them."""
        self.tell(ClientUp(Prefix(9999, 16)))
        for peer in peers:
            self.tell(BootstrapAnswered(peer, endpoints(peer)))
            self.tell(TunnelUp(peer, name(peer)))

    def phase(self, peer: Prefix) -> Phase | None:
        tunnel = self.mesh.tunnels.get(peer)
        return tunnel.phase if tunnel else None


def near(*peers: Prefix, carried: int = 1, sole: frozenset[Prefix] = frozenset()) -> dict[str, Any]:
    """The part of a survey that says who is next to us, over tunnels of ours that carry something."""
    links = {
        peer: (Link(NextHop(IPv6Address("fe80::1"), name(peer)), frozenset([peer, *PEERS[-carried:]][:carried]), sole),)
        for peer in peers
    }
    return {"neighbours": links, "alive": frozenset(map(name, peers))}


def opened(actions: list[Any]) -> list[Prefix]:
    return [action.peer for action in actions if isinstance(action, OpenTunnel)]


def asked(actions: list[Any]) -> list[Prefix]:
    return [action.peer for action in actions if isinstance(action, AskAddress)]


# --- a first peer ---


def test_a_new_node_asks_the_registry_at_once_and_opens_what_it_names() -> None:
    node = Driver()
    assert node.wait(1) == [AskBootstrap()]
    assert node.tell(BootstrapAnswered(P, endpoints(P))) == [OpenTunnel(P, endpoints(P))]
    assert node.phase(P) is Phase.OPENING


def test_registry_and_memory_are_tried_at_the_same_time() -> None:
    node = Driver(memory=(P, Q, R, *PEERS[3:]))
    actions = node.wait(1)
    assert AskBootstrap() in actions
    assert len(opened(actions)) == FIRST_TUNNELS


def test_a_registry_that_is_silent_is_asked_again_and_again_but_not_often() -> None:
    node = Driver()
    times = []
    for _ in range(900):
        if AskBootstrap() in node.wait(1):
            times.append(node.now)
            node.tell(BootstrapAnswered(None))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] <= 3
    assert max(gaps) <= BOOTSTRAP_LAST * 1.2 + 1
    assert len(times) < 30
    assert sum(gap > 40 for gap in gaps) > 5


def test_whoever_is_turned_away_by_all_that_the_registry_names_is_soon_told_of_others() -> None:
    """In a network that is just forming the first nodes are full, and others are there within seconds."""
    node = Driver()
    times = []
    for _ in range(300):
        if AskBootstrap() in node.wait(1):
            times.append(node.now)
            peer = PEERS[len(times) % 20]
            if OpenTunnel(peer, endpoints(peer)) in node.tell(BootstrapAnswered(peer, endpoints(peer))):
                node.tell(TunnelDown(peer))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) <= 2 * NAMED_AGAIN + 1
    assert sum(gaps) / len(gaps) > NAMED_AGAIN


def test_the_registry_is_not_asked_while_it_has_not_answered() -> None:
    node = Driver()
    assert node.wait(300).count(AskBootstrap()) == 1


def test_the_registrys_own_node_asks_nobody() -> None:
    node = Driver(own=REGISTRY)
    assert node.wait(100) == []
    node.sees(P)
    assert node.mesh.connected
    assert EnsureSession(REGISTRY) not in node.mesh.tick(node.now)


def test_without_client_tunnels_nothing_is_opened() -> None:
    node = Driver(memory=(P, Q), client_count=0)
    assert node.wait(100) == []
    assert node.sees(REGISTRY, P, Q) == []


def test_a_session_with_the_registrys_node_is_kept() -> None:
    node = Driver()
    node.sees(REGISTRY)
    assert EnsureSession(REGISTRY) in node.mesh.tick(node.now)


def test_an_unusable_first_peer_is_no_reason_to_ask_at_once_again() -> None:
    node = Driver(disabled_protocols=frozenset({TunnelProtocol.TCP}), memory=(Q,))
    count = 0
    for _ in range(60):
        actions = node.wait(1)
        assert opened(actions) == []
        if AskBootstrap() in actions:
            count += 1
            node.tell(BootstrapAnswered(P, endpoints(P)))
    assert count < 10


# --- meeting others ---


def test_far_peers_are_asked_for_their_address_and_opened_when_they_answer() -> None:
    node = Driver(client_count=3)
    node.tell(ClientUp(R))
    actions = node.sees(REGISTRY, P, Q)
    assert set(asked(actions)) == {REGISTRY, P, Q}
    assert node.tell(AddressLearned(P, endpoints(P))) == [OpenTunnel(P, endpoints(P))]
    assert node.wait(3) == []


def test_an_address_in_memory_saves_the_question() -> None:
    node = Driver(memory=(P,))
    node.settle()
    actions = node.sees(REGISTRY, P)
    assert opened(actions) == [P]
    assert asked(actions) == [REGISTRY]


def test_an_address_nobody_asked_for_opens_nothing() -> None:
    node = Driver()
    node.sees(REGISTRY)
    assert node.tell(AddressLearned(P, endpoints(P))) == []


def test_an_address_that_did_not_work_is_asked_for_next_time() -> None:
    """The peer may have moved (wire.md 10.4: an address in the cache is used while it was not tried)."""
    node = Driver(memory=(P,), client_count=1)
    node.settle()
    assert opened(node.sees(REGISTRY, P, **near(REGISTRY))) == [P]
    assert node.tell(TunnelDown(P)) == []
    actions = node.wait(5)
    assert opened(actions) == []
    assert asked(actions) == [P]
    moved = (Endpoint("192.0.2.9", 443, TunnelProtocol.TCP),)
    assert node.tell(AddressLearned(P, moved)) == [OpenTunnel(P, moved)]


def test_whoever_cannot_be_reached_is_left_alone_longer_and_longer() -> None:
    node = Driver(client_count=1)
    node.tell(ClientUp(R))
    node.sees(REGISTRY, P, **near(REGISTRY))
    times = []
    for _ in range(4000):
        if asked(node.wait(1)):
            times.append(node.now)
            node.tell(AddressLearned(P, endpoints(P)))
        elif node.phase(P) is Phase.OPENING:
            node.tell(TunnelDown(P))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] <= 6
    assert gaps[-1] > 300
    assert len(times) < 20


def test_who_is_no_client_and_asks_to_leave_makes_no_work() -> None:
    node = Driver(memory=(P,))
    node.settle()
    node.now += 1
    assert node.tell(CloseAsked(Q)) == []
    assert node.mesh.tunnels == {}, "nothing was decided"
    node.wait(1)
    assert node.tell(CloseAsked(Prefix(9999, 16))) == [AllowClose(Prefix(9999, 16))]


def test_whoever_ends_tunnels_soon_after_they_are_up_is_left_alone_longer_and_longer() -> None:
    """Each costs a process, a change in babel and lines in the log; nothing would bound it, as it did work."""
    node = Driver(memory=(P,), client_count=1)
    node.settle()
    times: list[float] = []
    for _ in range(4000):
        node.sees(REGISTRY, P, **near(REGISTRY))
        actions = node.wait(1)
        for peer in asked(actions):
            node.tell(AddressLearned(peer, endpoints(peer)))
        if node.phase(P) is Phase.OPENING:
            times.append(node.now)
            node.tell(TunnelUp(P, name(P)))
            node.sees(REGISTRY, P, **near(REGISTRY, P))
            node.wait(3)
            node.tell(TunnelDown(P))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] <= 6, "once is nothing"
    assert gaps[-1] > 300
    assert len(times) < 20


def test_whoever_tells_unasked_where_it_is_gets_another_try_but_not_many() -> None:
    node = Driver(memory=(P,), client_count=1)
    node.settle()
    node.sees(REGISTRY, P, **near(REGISTRY))
    for _ in range(8):
        node.wait(1000)
        node.tell(TunnelDown(P))
        node.tell(AddressLearned(P, endpoints(P)))
        node.tell(TunnelDown(P))
    moved = (Endpoint("192.0.2.9", 443, TunnelProtocol.TCP),)
    node.wait(100)
    opens = 0
    for _ in range(30):
        actions = [*node.tell(AddressLearned(P, moved)), *node.wait(1)]
        opens += len(opened(actions))
        node.tell(TunnelDown(P))
    assert opens <= 1


def test_when_a_link_comes_back_everything_is_tried_at_once() -> None:
    node = Driver(memory=(P, R))
    node.wait(1)
    for _ in range(200):
        node.tell(BootstrapAnswered(None))
        for peer in list(node.mesh.tunnels):
            node.tell(TunnelDown(peer))
        node.wait(1)
    node.tell(BootstrapAnswered(None))
    for peer in list(node.mesh.tunnels):
        node.tell(TunnelDown(peer))
    actions = [*node.tell(UplinkUp()), *node.wait(2)]
    assert set(opened(actions)) == {P, R}
    assert AskBootstrap() in actions


def test_a_link_that_flaps_does_not_flood_the_registry() -> None:
    node = Driver()
    questions = 0
    for _ in range(300):
        node.now += 0.2
        questions += node.tell(UplinkUp()).count(AskBootstrap())
        node.tell(BootstrapAnswered(None))
    assert questions <= 75


def test_failures_for_years_are_only_failures() -> None:
    node = Driver(memory=(P,))
    for _ in range(3000):
        node.now += 700
        node.wait(1)
        node.tell(TunnelDown(P))
    node.now += 700
    assert opened(node.wait(1)) == [P]


@pytest.mark.parametrize("answer", [(), (Endpoint("10.0.0.1", 1194, TunnelProtocol.UDP),), None])
def test_whoever_has_no_address_for_us_is_not_asked_all_the_time(answer: tuple[Endpoint, ...] | None) -> None:
    node = Driver(client_count=1, disabled_protocols=frozenset({TunnelProtocol.UDP}))
    node.tell(ClientUp(R))
    node.sees(REGISTRY, P, **near(REGISTRY))
    count = 0
    for _ in range(300):
        actions = node.wait(1)
        assert opened(actions) == []
        count += len(asked(actions))
        if asked(actions) and answer is not None:
            node.tell(AddressLearned(P, answer))
    assert count < 12


def test_a_node_that_nobody_connects_to_stays_modest() -> None:
    node = Driver(memory=tuple(PEERS))
    node.sees(REGISTRY, *PEERS)
    for _ in range(100):
        for action in node.wait(1):
            if isinstance(action, OpenTunnel):
                node.tell(TunnelUp(action.peer, name(action.peer)))
    assert len(node.mesh.tunnels) == MODEST
    node.tell(ClientUp(Prefix(9999, 16)))
    assert len(node.mesh.tunnels) == 10, "and gives as soon as it is of use"


def test_modest_also_before_the_registry_is_seen() -> None:
    """Routes come one by one: half a table must not make a node that is of no use take ten tunnels."""
    node = Driver(memory=tuple(PEERS))
    node.wait(1)
    for peer in list(node.mesh.tunnels):
        node.tell(TunnelUp(peer, name(peer)))
    node.sees(*PEERS)
    node.wait(2)
    assert len(node.mesh.tunnels) <= FIRST_TUNNELS + 1


def test_wanted_neighbours_come_first_and_are_never_replaced() -> None:
    node = Driver(memory=tuple(PEERS), client_count=2, neighbours=frozenset({R}))
    node.settle()
    assert opened(node.sees(REGISTRY, *PEERS))[0] == R
    node = Driver(client_count=2, neighbours=frozenset({R}))
    node.up(P, R)
    node.sees(REGISTRY, P, Q, R, **near(P, R, carried=3))
    actions = node.wait(REFRESH + 1)
    assert actions[0] == DrainTunnel(P)


def test_no_tunnel_to_neighbours_clients_or_ourselves() -> None:
    node = Driver(memory=(OWN, P, Q, R), client_count=5)
    node.tell(ClientUp(P))
    node.sees(REGISTRY, OWN, P, Q, **near(Q, REGISTRY))
    assert node.wait(10) == []
    assert node.tell(BootstrapAnswered(OWN, endpoints(OWN))) == []
    assert node.tell(BootstrapAnswered(P, endpoints(P))) == []


def test_a_first_peer_does_not_break_the_limit() -> None:
    node = Driver(client_count=2)
    node.up(P, Q)
    node.sees(P, Q, **near(P, Q))
    assert opened(node.tell(BootstrapAnswered(R, endpoints(R)))) == []
    assert set(node.mesh.tunnels) == {P, Q}


def test_fewer_tunnels_may_be_wanted_later() -> None:
    node = Driver(client_count=4)
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, R, *PEERS[3:9], **near(P, Q, REGISTRY))
    node.tell(SettingsChanged(replace(node.mesh.settings, client_count=1)))
    assert opened(node.wait(30)) == []


# --- tunnels that do not live ---


def test_a_tunnel_without_babel_is_given_up_and_its_peer_left_alone_for_a_while() -> None:
    node = Driver(client_count=1, memory=(P,))
    node.settle()
    node.sees(REGISTRY, P, **near(REGISTRY))
    for _ in range(8):
        while node.phase(P) is not Phase.OPENING:
            node.wait(1)
            if P in node.mesh._opening._asked:
                node.tell(AddressLearned(P, endpoints(P)))
        node.tell(TunnelUp(P, name(P)))
        assert node.wait(45) == [], "an older node says hello every 15 s, and needs three"
        actions = node.wait(20)
        assert [type(action) for action in actions] == [CloseTunnel]
        began = node.now
        node.tell(TunnelDown(P))
    while node.phase(P) is None:
        node.wait(1)
        if P in node.mesh._opening._asked:
            node.tell(AddressLearned(P, endpoints(P)))
    assert node.now - began > 60, "a tunnel that babel never used counts as one that failed"


def test_a_tunnel_that_fell_silent_is_given_up_soon() -> None:
    node = Driver(client_count=1)
    node.settle()
    node.up(P)
    node.sees(REGISTRY, P, **near(P))
    node.wait(100)
    node.sees(REGISTRY, **near(REGISTRY))
    assert [type(a) for a in node.wait(DEAD_TIME + 2)] == [CloseTunnel]


@pytest.mark.parametrize(
    ("reached", "drains", "kept"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_one_that_the_peer_avoids_waits_for_better_days(reached: bool, drains: bool, kept: bool) -> None:
    node = Driver(drains=drains)
    node.up(P, Q)
    alive = frozenset((name(P), name(Q)))
    node.sees(REGISTRY, P, Q, alive=alive)
    peers = (REGISTRY, P, Q) if reached else (REGISTRY, Q)
    node.sees(*peers, alive=alive - {name(P)}, unheard=frozenset({name(P)}))
    closed = [action.peer for action in node.wait(DEAD_TIME + 2) if isinstance(action, CloseTunnel)]
    assert closed == ([] if kept else [P])


def test_one_that_we_avoid_is_not_silent() -> None:
    node = Driver()
    node.up(P, Q, R)
    hops = {peer: (Link(NextHop(IPv6Address("fe80::1"), name(peer)), frozenset(), frozenset()),) for peer in (P, Q, R)}
    alive = frozenset(map(name, (P, Q, R)))
    node.sees(REGISTRY, P, Q, R, neighbours=hops, alive=alive)
    assert node.tell(TunnelsLossy(frozenset({P}))) == [AvoidLink(P, hops[P][0].hop)]
    assert node.mesh.avoided == {P}
    assert node.mesh.draining
    node.sees(REGISTRY, P, Q, R, neighbours={Q: hops[Q], R: hops[R]}, alive=alive - {name(P)})
    assert not [action for action in node.wait(3 * DEAD_TIME) if isinstance(action, CloseTunnel)]
    assert not node.mesh.draining
    rest = {"neighbours": {Q: hops[Q], R: hops[R]}, "alive": alive - {name(P)}}
    assert TrustLink(P, hops[P][0].hop) in node.sees(REGISTRY, Q, R, **rest)
    assert [action.peer for action in node.wait(DEAD_TIME + 2) if isinstance(action, CloseTunnel)] == [P]


def test_a_silent_tunnel_to_a_peer_that_moved_is_given_up_sooner() -> None:
    node = Driver()
    node.up(P)
    node.sees(REGISTRY, P, **near(P))
    node.tell(AddressLearned(P, endpoints(P)))
    assert not [a for a in node.wait(20) if isinstance(a, CloseTunnel)], "as long as babel sees it there"
    node.tell(AddressLearned(P, endpoints(P)))
    node.sees(REGISTRY, P)
    assert [a.peer for a in node.wait(4) if isinstance(a, CloseTunnel)] == [P]


def test_a_tunnel_that_worked_is_replaced_at_once_when_it_ends() -> None:
    node = Driver(client_count=1, memory=(P,))
    node.settle()
    node.sees(REGISTRY, P, **near(REGISTRY))
    node.tell(TunnelUp(P, name(P)))
    node.sees(REGISTRY, P, **near(REGISTRY, P))
    node.wait(100)
    assert opened(node.tell(TunnelDown(P))) == []
    assert opened(node.sees(REGISTRY, P, **near(REGISTRY))) == [P]


def test_a_peer_that_nobody_reaches_since_its_tunnel_ended_is_tried_again_at_once() -> None:
    node = Driver(memory=(REGISTRY, P))
    node.up(REGISTRY, P)
    node.sees(REGISTRY, P, Q, **near(REGISTRY, P, Q))
    node.wait(5)
    node.tell(TunnelDown(REGISTRY))
    assert opened(node.sees(P, Q, **near(P, Q))) == []
    assert opened(node.wait(2)) == [REGISTRY]
    node.tell(TunnelDown(REGISTRY))
    assert opened(node.wait(4)) == [REGISTRY]
    node.tell(TunnelDown(P))
    node.sees(P, Q, **near(Q))
    assert P not in opened(node.wait(3))


def test_after_a_sleep_tunnels_that_stay_silent_are_given_up_soon() -> None:
    """Peers gave them up meanwhile, and our OpenVPN does not know."""
    node = Driver()
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, **near(P, Q))
    node.wait(10)
    node.now += 30
    assert not [a for a in node.wait(1) if isinstance(a, CloseTunnel)], "they may be well"
    node.sees(REGISTRY, P, **near(P))
    assert [a.peer for a in node.wait(MOVED_TIME + 1) if isinstance(a, CloseTunnel)] == [Q]
    assert node.phase(P) is Phase.UP


def test_while_babeld_is_away_no_tunnel_counts_as_silent() -> None:
    node = Driver(client_count=1)
    node.up(P)
    node.tell(Surveyed(Survey(running=False)))
    assert not any(isinstance(a, CloseTunnel) for a in node.wait(10 * DEAD_TIME))


@pytest.mark.parametrize(("own", "keeps"), [(Prefix(7, 16), False), (Prefix(77, 16), True)])
def test_of_two_tunnels_between_two_nodes_the_smaller_prefix_closes_its_own(own: Prefix, keeps: bool) -> None:
    node = Driver(own=own)
    node.up(P)
    node.sees(REGISTRY, P, **near(P))
    actions = node.tell(ClientUp(P))
    assert [a.peer for a in actions if isinstance(a, CloseTunnel)] == ([] if keeps else [P])


def test_a_client_that_leaves_comes_twice_or_was_never_there() -> None:
    node = Driver()
    for event in (ClientDown(P), ClientUp(P), ClientUp(P), ClientDown(P)):
        node.tell(event)
    assert node.mesh.clients == {P: 1}
    node.tell(ClientDown(P))
    assert node.mesh.clients == {}


# --- replacing a tunnel, and the exchange before it is closed (wire.md 10.7) ---


def draining(**more: Any) -> Driver:
    """A node whose least useful tunnel, that to Q, is being drained."""
    node = Driver(client_count=2, **more)
    node.up(P, Q)
    table = near(P, carried=3)
    table["neighbours"] |= near(Q)["neighbours"]
    table["alive"] |= near(Q)["alive"]
    node.sees(REGISTRY, P, Q, R, *PEERS, **table)
    assert node.wait(REFRESH + 1) == [DrainTunnel(Q)]
    return node


def test_the_least_useful_tunnel_is_drained_asked_for_and_closed() -> None:
    node = draining()
    assert node.wait(10) == [], "routes still use it"
    assert node.sees(REGISTRY, P, Q, R, *PEERS, **near(P, carried=3)) == [AskClose(Q)]
    assert [type(a) for a in node.tell(CloseAllowed(Q))] == [CloseTunnel]
    assert node.phase(Q) is Phase.CLOSING
    assert node.tell(CloseAllowed(Q)) == []
    node.tell(TunnelDown(Q))
    assert Q not in node.mesh.tunnels


def idle() -> Driver:
    """A node that cannot drain, of whose two tunnels that to Q has just come to carry nothing."""
    node = Driver(client_count=2, drains=False)
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, R, *PEERS, **near(P, Q, carried=3))
    assert node.wait(3 * REFRESH) == [], "it replaces no tunnel that is used"
    node.sees(REGISTRY, P, Q, R, *PEERS, **without_routes(Q))
    assert node.wait(REFRESH + 1)[:1] == [AskClose(Q)], "without draining it"
    return node


def without_routes(peer: Prefix) -> dict[str, Any]:
    table = near(P, carried=3)
    return {
        "neighbours": table["neighbours"] | near(peer, carried=0)["neighbours"],
        "alive": table["alive"] | {name(peer)},
    }


def test_who_cannot_drain_replaces_only_tunnels_without_routes() -> None:
    node = idle()
    assert [type(a) for a in node.tell(CloseAllowed(Q))] == [CloseTunnel]


def test_who_cannot_drain_keeps_a_tunnel_that_is_used_again_when_it_may_be_closed() -> None:
    node = idle()
    node.sees(REGISTRY, P, Q, R, *PEERS, **near(P, Q, carried=3))
    assert node.tell(CloseAllowed(Q)) == [UndrainTunnel(Q)]
    assert node.phase(Q) is Phase.UP


def test_a_tunnel_that_turns_out_to_be_the_only_way_is_kept_and_not_drained_again() -> None:
    """Babel also hears of ways that lead back through ourselves, so the table alone does not tell (RFC 8966, 3.5.1)."""
    node = draining()
    actions = node.sees(REGISTRY, P, R, *PEERS[3:], **near(P, carried=3))
    assert actions == [UndrainTunnel(Q)]
    assert node.phase(Q) is Phase.UP
    node.sees(REGISTRY, P, Q, R, *PEERS, **near(P, Q, carried=3))
    assert DrainTunnel(Q) not in node.wait(3 * REFRESH)


def test_a_tunnel_that_does_not_empty_is_kept() -> None:
    node = draining()
    assert node.wait(CLOSE_TIME + 2) == [UndrainTunnel(Q)]
    assert node.phase(Q) is Phase.UP


def test_a_peer_that_does_not_answer_keeps_its_tunnel() -> None:
    node = draining()
    node.sees(REGISTRY, P, Q, R, *PEERS, **near(P, carried=3))
    actions = node.wait(CLOSE_TIME + 2)
    assert actions[-1] == UndrainTunnel(Q)
    assert set(actions[:-1]) == {AskClose(Q)}, "and is asked again in case the question was lost"
    assert len(actions) < 8
    assert not [a for a in node.wait(DEAD_TIME - 1) if isinstance(a, CloseTunnel)]


def test_only_the_one_who_asked_may_be_told_to_close() -> None:
    node = Driver(client_count=2)
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, R, **near(P, Q))
    assert node.tell(CloseAllowed(P)) == []
    assert node.tell(CloseAllowed(R)) == []
    assert node.phase(P) is Phase.UP


def test_a_tunnel_that_comes_up_twice_is_not_forgotten_to_be_muted() -> None:
    node = draining()
    node.tell(TunnelUp(Q, name(Q)))
    assert node.phase(Q) is Phase.DRAINING


def test_the_only_way_to_somebody_is_never_drained() -> None:
    node = Driver(client_count=2)
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, R, **near(P, Q, sole=frozenset({Q})))
    assert node.wait(5 * REFRESH) == []


def test_nothing_is_replaced_while_there_is_room_or_nobody_new() -> None:
    node = Driver(client_count=3)
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, **near(P, Q, REGISTRY))
    assert node.wait(3 * REFRESH) == []


def test_a_client_may_close_when_nothing_goes_through_it() -> None:
    node = Driver()
    node.tell(ClientUp(P))
    node.sees(REGISTRY, P, **near(REGISTRY))
    assert AllowClose(P) in node.tell(CloseAsked(P))
    node.sees(REGISTRY, P, **near(REGISTRY, P))
    assert AllowClose(P) not in node.tell(CloseAsked(P))
    assert AllowClose(P) in node.wait(CLOSE_TIME / 2 + 2), "well before the client gives up"
    assert AllowClose(P) not in node.wait(CLOSE_TIME)


def test_whoever_is_no_client_is_not_answered() -> None:
    node = Driver()
    node.sees(REGISTRY, P, **near(P))
    node.tell(CloseAsked(P))
    assert AllowClose(P) not in node.wait(CLOSE_TIME)
    node.tell(ClientUp(Q))
    node.sees(REGISTRY, Q, **near(REGISTRY, Q))
    node.tell(CloseAsked(Q))
    node.tell(ClientDown(Q))
    assert AllowClose(Q) not in node.wait(CLOSE_TIME)


# --- neighbours on a LAN ---


def on_lan(*peers: Prefix) -> dict[str, Any]:
    """Who is met on a LAN, beside the tunnels to them."""
    met = near(*peers)
    lan = Link(NextHop(IPv6Address("fe80::2"), "eth0"), frozenset(peers), frozenset())
    return met | {"neighbours": {peer: (lan, *links) for peer, links in met["neighbours"].items()}}


def drained(actions: list[Any]) -> list[Prefix]:
    return [action.peer for action in actions if isinstance(action, DrainTunnel)]


def test_a_tunnel_to_somebody_on_the_lan_is_given_up() -> None:
    node = Driver(lan=frozenset({"eth0"}), neighbours=frozenset({R}))
    node.up(P, Q, R)
    node.sees(REGISTRY, P, Q, R, **on_lan(P, R))
    assert drained(node.wait(LAN_TIME - 1)) == []
    assert drained(node.wait(2)) == [P], "nor Q, who is met nowhere else, nor R, whom the user wants"


def test_a_lan_that_was_tried_in_vain_is_not_tried_again() -> None:
    node = Driver(lan=frozenset({"eth0"}))
    node.up(P)
    node.sees(REGISTRY, P, Q, **on_lan(P))
    node.wait(LAN_TIME + 1)
    node.sees(REGISTRY, P, **on_lan(P))
    assert node.phase(P) is Phase.DRAINING, "nobody was lost who went through it"
    node.sees(REGISTRY, **on_lan(P))
    assert node.phase(P) is Phase.UP
    assert drained(node.wait(REFRESH / 2)) == []


def test_where_nothing_can_be_drained_a_tunnel_beside_the_lan_stays() -> None:
    node = Driver(lan=frozenset({"eth0"}), tunnel_refresh=float("inf"))
    node.up(P)
    node.sees(REGISTRY, P, **on_lan(P))
    assert drained(node.wait(10 * LAN_TIME)) == []


def test_what_goes_over_the_lan_does_not_keep_a_client() -> None:
    node = Driver(lan=frozenset({"eth0"}))
    node.tell(ClientUp(P))
    lan = Link(NextHop(IPv6Address("fe80::2"), "eth0"), frozenset({P}), frozenset())
    node.sees(REGISTRY, P, neighbours={P: (lan,)}, alive=frozenset({"eth0"}))
    assert AllowClose(P) in node.tell(CloseAsked(P))


# --- a network in parts ---


def test_a_part_of_the_network_asks_the_registry_after_a_while_and_tries_its_memory() -> None:
    node = Driver(memory=(P, Q, *PEERS[10:]), client_count=4)
    node.settle()
    node.sees(REGISTRY, P, Q, **near(P, Q))
    actions = node.sees(P, Q, **near(P, Q)) + node.wait(60)
    assert AskBootstrap() in actions
    assert opened(actions), "the registry may be down: whoever we remember and do not reach may be in the other part"
    assert set(opened(actions)) <= set(PEERS[10:])
    assert len(node.mesh.tunnels) <= 4


def test_a_part_keeps_room_for_a_tunnel_to_the_others() -> None:
    node = Driver(client_count=3)
    node.tell(ClientUp(Prefix(9999, 16)))
    for peer in (P, Q):
        node.tell(BootstrapAnswered(peer, endpoints(peer)))
        node.tell(TunnelUp(peer, name(peer)))
    node.sees(P, Q, *PEERS[10:], **near(P, Q))
    for _ in range(100):
        for peer in asked(node.wait(1)):
            node.tell(AddressLearned(peer, endpoints(peer)))
    assert len(node.mesh.tunnels) == 2
    assert opened(node.tell(BootstrapAnswered(R, endpoints(R)))) == [R]


def test_whoever_is_alone_after_a_partition_does_not_wait_for_the_turn_of_a_large_part() -> None:
    node = Driver()
    node.sees(*(Prefix(n, 16) for n in range(100, 1100)))
    node.wait(3)
    assert AskBootstrap() in node.sees()


def test_after_hours_without_any_network_memory_works_within_a_minute_or_two() -> None:
    node = Driver(memory=tuple(PEERS[:5]))
    for _ in range(7200):
        for action in node.wait(1):
            if isinstance(action, OpenTunnel):
                node.tell(TunnelDown(action.peer))
            elif isinstance(action, AskBootstrap):
                node.tell(BootstrapAnswered(None))
    tried = [peer for action in node.wait(60) if isinstance(action, OpenTunnel) for peer in [action.peer]]
    assert tried


def test_a_wanted_neighbour_gets_the_place_of_another_tunnel_at_once() -> None:
    node = Driver(client_count=2, neighbours=frozenset({R}))
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, **near(P, Q))
    assert not node.wait(REFRESH - 100), "nobody else to meet"
    actions = [*node.sees(REGISTRY, P, Q, R, **near(P, Q)), *node.wait(2)]
    drained = [action.peer for action in actions if isinstance(action, DrainTunnel)]
    assert len(drained) == 1, "one is enough"
    assert AskAddress(R) in node.tell(TunnelDown(drained[0]))
    node.tell(AddressLearned(R, endpoints(R)))
    node.tell(TunnelDown(R))
    assert not [a for a in node.wait(1) if isinstance(a, DrainTunnel)], "one that failed has to wait"


# --- one tunnel that the user gave ---


def test_outdated_tunnels_are_made_anew_one_after_the_other() -> None:
    node = Driver(client_count=2, memory=(P, Q))
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, **near(P, Q))
    node.tell(TunnelsOutdated(frozenset({P, Q, R})))
    first = next(action for action in node.wait(CLOSE_TIME + 1) if isinstance(action, DrainTunnel)).peer
    node.sees(REGISTRY, P, Q, **near(({P, Q} - {first}).pop(), REGISTRY))
    assert [type(a) for a in node.tell(CloseAllowed(first))] == [CloseTunnel]
    assert opened(node.tell(TunnelDown(first))) == [first]
    node.tell(TunnelUp(first, name(first)))
    assert not node.mesh.tunnels[first].outdated


def test_an_outdated_tunnel_that_cannot_be_drained_is_made_anew_all_the_same() -> None:
    node = Driver(client_count=1, memory=(P,))
    node.up(P)
    node.sees(REGISTRY, P, **near(P))
    node.tell(TunnelsOutdated(frozenset({P})))
    actions = node.wait(4 * CLOSE_TIME)
    kinds = [type(action) for action in actions if isinstance(action, DrainTunnel | UndrainTunnel | CloseTunnel)]
    assert kinds == [DrainTunnel, UndrainTunnel, CloseTunnel]


def test_a_given_tunnel_is_given_up_when_silent_and_never_replaced() -> None:
    node = Driver(client_count=0, tunnel_refresh=float("inf"), given=True, lan=frozenset({"eth0"}))
    assert not node.tell(TunnelUp(P, name(P)))
    assert not node.sees(REGISTRY, *PEERS, **near(P))
    assert not node.wait(3 * REFRESH)
    node.sees(alive=frozenset())
    assert [action.peer for action in node.wait(DEAD_TIME + 2) if isinstance(action, CloseTunnel)] == [P]
    assert not node.tell(TunnelDown(P))
    assert not node.mesh.tunnels
    assert not node.wait(REFRESH), "another one is not the policy's to open"


# --- any events in any order ---

SOME = st.sampled_from([OWN, REGISTRY, P, Q, R])
ENDPOINTS = st.sampled_from(
    [(), endpoints(P), (Endpoint("h", 1, TunnelProtocol.UDP6), Endpoint("h", 2, TunnelProtocol.UDP))]
)
SURVEYS = st.builds(
    lambda peers, links, running, costs, metrics: Survey(
        peers=frozenset(peers),
        **near(*links),
        running=running,
        costs={name(peer): cost for peer, cost in costs.items()},
        metrics=metrics,
    ),
    st.sets(SOME),
    st.sets(SOME),
    st.booleans(),
    st.dictionaries(SOME, st.integers(1, 65534)),
    st.dictionaries(SOME, st.integers(1, 65534)),
)
EVENTS = st.one_of(
    st.builds(TunnelUp, SOME, st.sampled_from([name(P), name(Q), "x"])),
    st.builds(TunnelDown, SOME),
    st.builds(ClientUp, SOME),
    st.builds(ClientDown, SOME),
    st.builds(Surveyed, SURVEYS),
    st.builds(AddressLearned, SOME, ENDPOINTS),
    st.builds(BootstrapAnswered, SOME | st.none(), ENDPOINTS),
    st.builds(CloseAsked, SOME),
    st.builds(CloseAllowed, SOME),
    st.floats(0, 400),
)


@settings(max_examples=150)
@given(st.lists(EVENTS, max_size=40), st.integers(0, 4), st.sampled_from([OWN, REGISTRY]))
def test_any_events_in_any_order(events: list[Event | float], client_count: int, own: Prefix) -> None:
    node = Driver(memory=(P, R), client_count=client_count, own=own, disabled_protocols=frozenset({TunnelProtocol.UDP}))
    for event in events:
        before = set(node.mesh.tunnels)
        if isinstance(event, float):
            node.now += event
            actions = list(node.mesh.tick(node.now))
        else:
            actions = list(node.mesh.handle(event, node.now))
        started = opened(actions)
        assert len(started) == len(set(started))
        assert not set(started) & before - ({event.peer} if isinstance(event, TunnelDown) else set())
        assert own not in started
        assert all(e.protocol != "udp" for a in actions if isinstance(a, OpenTunnel) for e in a.endpoints)
        assert len(node.mesh.tunnels) <= max(client_count, len(before))
        assert all(count > 0 for count in node.mesh.clients.values())
        closed = {a.peer for a in actions if isinstance(a, CloseTunnel | DrainTunnel | UndrainTunnel)}
        assert closed <= set(node.mesh.tunnels), "the node looks its interface up there"
        assert len(actions) < 30
    # Whatever happened: nothing stays half-way.
    for _ in range(3):
        node.wait(CLOSE_TIME + 2)
        for peer, tunnel in list(node.mesh.tunnels.items()):
            if tunnel.phase in (Phase.CLOSING, Phase.OPENING):
                node.tell(TunnelDown(peer))
    node.tell(Surveyed(Survey()))
    node.wait(1)
    assert all(t.phase in (Phase.UP, Phase.OPENING) for t in node.mesh.tunnels.values())


# --- whole networks ---


def test_sixty_nodes_find_together_and_come_to_rest() -> None:
    network = Network(1)
    for number in range(60):
        network.add(number, reachable=number % 5 != 1)
    assert network.run(120, network.connected) < 60
    network.run(240)
    assert network.connected()
    for member in network.alive:
        assert not [peer for peer in member.mesh.tunnels if member.prefix in network.members[peer].mesh.tunnels]
        if not member.reachable:
            assert len(member.mesh.tunnels) <= MODEST, "whoever cannot be reached takes little"
        assert len(member.mesh.clients) <= network.max_clients
    before = sum(len(member.opened) for member in network.alive)
    network.closed.clear()
    network.run(600)
    assert network.connected()
    changes = sum(len(member.opened) for member in network.alive) - before
    full = sum(len(member.mesh.tunnels) == member.mesh.settings.client_count for member in network.alive)
    assert 0 < changes <= 2.5 * full, "each refreshes one tunnel every 300 s"
    assert set(network.closed) == {"replaced"}
    assert network.lost_by_closing == []


def test_a_network_that_loses_nodes_all_the_time_stays_one() -> None:
    network = Network(2, client_count=5)
    for number in range(40):
        network.add(number, reachable=number % 4 != 1)
    network.run(60)
    for _ in range(15):
        victim = network.rng.choice([member for member in network.alive if member.prefix != network.registry])
        network.kill(victim)
        network.run(network.rng.uniform(2, 20))
        network.restart(victim)
        network.run(network.rng.uniform(2, 20))
    assert network.run(120, network.connected) < 60


def test_a_third_gone_at_once_and_a_registry_that_is_down() -> None:
    network = Network(3, client_count=6, refresh=30)
    for number in range(45):
        network.add(number)
    network.run(150)
    network.registry_answers = False
    for member in network.rng.sample(network.alive[1:], 15):
        network.kill(member)
    assert network.run(300, network.connected) < 120


@pytest.mark.parametrize("registry_answers", [True, False])
def test_two_parts_grow_together_again(registry_answers: bool) -> None:
    network = Network(4, client_count=4)
    for number in range(30):
        network.add(number)
    network.run(90)
    network.block(lambda one, other: (one.value < 10) != (other.value < 10))
    network.registry_answers = registry_answers
    network.run(400)
    assert not network.connected()
    network.block()
    assert network.run(1200, network.connected) < 900


def test_whoever_is_cut_off_comes_back_from_memory() -> None:
    network = Network(5)
    for number in range(12):
        network.add(number)
    network.run(60)
    lonely = network.members[Prefix(5, 16)]
    network.registry_answers = False
    network.block(lambda one, other: lonely.prefix in (one, other))
    network.run(1800)
    assert not lonely.mesh.survey.peers
    network.block()
    assert network.run(600, network.connected) < 120


def test_two_nodes_open_a_tunnel_to_each_other_at_once_and_one_stays() -> None:
    for seed in range(10):
        network = Network(seed)
        network.registry_answers = False
        network.add(0, memory=(1,))
        network.add(1, memory=(0,))
        network.run(60)
        assert network.connected()
        assert [(link.client.value, link.server.value) for link in network.links] in ([(0, 1)], [(1, 0)])


def test_whoever_goes_on_with_an_earlier_daemons_tunnels_replaces_none_at_once() -> None:
    """All nodes are upgraded at one time: if each drained a tunnel then, none would know what is left of the others."""
    moments = set()
    for seed in range(10):
        node = Driver(client_count=1, seed=seed)
        began = node.now
        node.tell(Resumed(((P, name(P)),)))
        node.tell(ClientUp(R))
        drained = node.sees(REGISTRY, P, Q, R, **near(P))
        while not any(isinstance(action, DrainTunnel) for action in drained):
            drained = node.wait(1)
            assert node.now - began <= REFRESH
        assert node.now - began >= REFRESH / 2
        moments.add(node.now)
    assert len(moments) > 5, "nor all of them at one time later"


def test_a_chain_is_never_cut_by_a_refresh() -> None:
    """Nodes with room for one tunnel only: every tunnel is the only way, though each node hears of others."""
    network = Network(6, client_count=1, refresh=30)
    for number in range(8):
        network.add(number, memory=(number - 1,) if number else ())
    network.run(30, network.connected)
    network.lost_by_closing.clear()
    network.run(600)
    assert network.lost_by_closing == []
    assert network.connected()


def test_a_small_network_leaves_well_alone() -> None:
    network = Network(7, refresh=60)
    for number in range(4):
        network.add(number)
    network.run(60)
    before = sum(len(member.opened) for member in network.alive)
    network.run(900)
    assert sum(len(member.opened) for member in network.alive) == before
    assert network.connected()


def test_questions_for_addresses_are_given_up() -> None:
    node = Driver(client_count=2)
    node.tell(ClientUp(R))
    first = asked(node.sees(REGISTRY, *PEERS))
    assert len(first) == 2
    second = asked(node.wait(ASK_TIME + 2))
    assert len(second) == 2
    assert not set(first) & set(second)
