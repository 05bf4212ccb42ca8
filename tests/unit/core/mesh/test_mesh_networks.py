"""Networks in parts, a given tunnel, and whole networks of policies."""

from __future__ import annotations

import pytest

from re6st.core.mesh.closing import DEAD_TIME
from re6st.core.mesh.opening import ASK_TIME
from re6st.core.mesh.policy import (
    AddressLearned,
    AskAddress,
    AskBootstrap,
    BootstrapAnswered,
    ClientUp,
    CloseAllowed,
    CloseTunnel,
    DrainTunnel,
    OpenTunnel,
    Resumed,
    TunnelDown,
    TunnelsOutdated,
    TunnelUp,
    UndrainTunnel,
)
from re6st.core.mesh.state import MODEST
from re6st.core.prefix import Prefix
from re6st.sim.names import endpoints, name
from re6st.sim.network import Network
from tests.unit.mesh_policy import CLOSE_TIME, PEERS, REFRESH, REGISTRY, Driver, P, Q, R, asked, near, opened

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
        actions = node.wait(1)
        while actions:
            match actions.pop():
                case OpenTunnel(peer):
                    actions += node.tell(TunnelDown(peer))
                case AskBootstrap():
                    actions += node.tell(BootstrapAnswered(None))
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
    node = Driver(client_count=0, tunnel_refresh=float("inf"), static_tunnel=True, lan=frozenset({"eth0"}))
    assert not node.tell(TunnelUp(P, name(P)))
    assert not node.sees(REGISTRY, *PEERS, **near(P))
    assert not node.wait(3 * REFRESH)
    node.sees(alive=frozenset())
    assert [action.peer for action in node.wait(DEAD_TIME + 2) if isinstance(action, CloseTunnel)] == [P]
    assert not node.tell(TunnelDown(P))
    assert not node.mesh.tunnels
    assert not node.wait(REFRESH), "another one is not the policy's to open"


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


def test_a_client_that_an_earlier_daemon_had_is_no_reason_to_open_what_we_hold_already() -> None:
    node = Driver(memory=(P, Q))
    node.tell(Resumed(((P, name(P)),)))
    assert node.tell(ClientUp(R)) == []


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
