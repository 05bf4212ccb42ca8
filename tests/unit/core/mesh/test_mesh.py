"""The policy of the mesh: whom a node meets first, and whom it opens tunnels to."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from re6st.core.mesh.opening import BOOTSTRAP_LAST, FIRST_TUNNELS, NAMED_AGAIN
from re6st.core.mesh.policy import (
    AddressLearned,
    AllowClose,
    AskBootstrap,
    BootstrapAnswered,
    ClientUp,
    CloseAsked,
    DrainTunnel,
    EnsureSession,
    OpenTunnel,
    Phase,
    SettingsChanged,
    TunnelDown,
    TunnelUp,
    UplinkUp,
)
from re6st.core.mesh.state import MODEST
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.sim.names import endpoints, name
from tests.unit.mesh_policy import OWN, PEERS, REFRESH, REGISTRY, Driver, P, Q, R, asked, near, opened

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
        actions = node.wait(1)
        while AskBootstrap() in actions:
            times.append(node.now)
            actions = node.tell(BootstrapAnswered(None))
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
        actions = node.wait(1)
        while AskBootstrap() in actions:
            times.append(node.now)
            peer = PEERS[len(times) % 20]
            actions = node.tell(BootstrapAnswered(peer, endpoints(peer)))
            if OpenTunnel(peer, endpoints(peer)) in actions:
                actions = node.tell(TunnelDown(peer))
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
