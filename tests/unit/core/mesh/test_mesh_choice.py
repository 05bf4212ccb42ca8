"""Which peers the policy prefers, and which tunnels it gives up for them: near, degraded, alike; two hundred nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from re6st.core.mesh import state
from re6st.core.mesh.closing import DEGRADED_TIME, SETTLE_TIME
from re6st.core.mesh.opening import NEAREST
from re6st.core.mesh.policy import (
    AskClose,
    BootstrapAnswered,
    ClientUp,
    CloseAllowed,
    DrainTunnel,
    OpenTunnel,
    Phase,
    TunnelDown,
    TunnelUp,
)
from re6st.core.mesh.quality import HALF_LIFE, Average
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.sim.names import endpoints, name
from re6st.sim.rounds import Rounds
from tests.unit.mesh_policy import PEERS, REFRESH, REGISTRY, Driver, near, opened

P, Q, R, S = PEERS[:4]
FAR = PEERS[4:]
GOOD, BAD = 96, 1500


def seen(node: Driver, *peers: Prefix, costs: dict[Prefix, int] | None = None, **more: Any) -> list[Any]:
    """Tunnels to these peers carry one destination each, and cost so much."""
    known = {name(peer): (costs or {}).get(peer, GOOD) for peer in peers}
    return node.sees(REGISTRY, *PEERS, **near(*peers), costs=known, **more)


# --- a tunnel that has become bad ---


@pytest.fixture
def node() -> Driver:
    """One with tunnels to P, Q and R, which have been good for a while."""
    node = Driver(client_count=3)
    node.up(P, Q, R)
    seen(node, P, Q, R)
    assert node.wait(SETTLE_TIME + 2) == []
    return node


def test_a_tunnel_that_got_much_worse_is_replaced_before_its_time(node: Driver) -> None:
    assert seen(node, P, Q, R, costs={Q: BAD}) == []
    assert node.wait(DEGRADED_TIME - 5) == [], "it may pass"
    assert node.wait(20) == [DrainTunnel(Q)]


def test_a_tunnel_that_loses_packets_is_replaced_though_its_cost_hides_it(node: Driver) -> None:
    """What babel made of 30% of loss each way, over UDP: a cost of 135 instead of 96."""
    seen(node, P, Q, R, costs={Q: 135}, losses={name(Q): 1.87})
    assert node.wait(DEGRADED_TIME) == []
    assert node.wait(30) == [DrainTunnel(Q)]


def test_a_little_loss_is_borne(node: Driver) -> None:
    seen(node, P, Q, R, losses={name(Q): 1.24})
    assert node.wait(REFRESH / 2) == []


def test_a_tunnel_that_is_bad_for_a_moment_stays(node: Driver) -> None:
    seen(node, P, Q, R, costs={Q: BAD})
    node.wait(3)
    seen(node, P, Q, R)
    assert node.wait(REFRESH / 2) == []


def test_where_all_get_worse_it_is_our_own_uplink(node: Driver) -> None:
    seen(node, P, Q, R, costs={P: BAD, Q: BAD, R: BAD})
    assert node.wait(REFRESH / 2) == []


def test_a_tunnel_that_was_never_better_stays() -> None:
    node = Driver(client_count=3)
    node.up(P, Q, R)
    seen(node, P, Q, R, costs={Q: BAD})
    assert node.wait(REFRESH / 2) == []


def test_a_bad_tunnel_is_the_last_way_or_there_is_nobody_else_it_stays(node: Driver) -> None:
    table = near(P, Q, R, sole=frozenset([Q]))
    costs = {name(P): GOOD, name(Q): BAD, name(R): GOOD}
    node.sees(REGISTRY, *PEERS, **table, costs=costs)
    assert node.wait(REFRESH / 2) == [], "who has no other way loses more"
    node.sees(REGISTRY, P, Q, R, **near(REGISTRY, P, Q, R), costs=costs)
    assert node.wait(REFRESH / 2) == [], "there is nobody to meet instead"


def test_an_average_forgets() -> None:
    average = Average(clip=9.0)
    assert average.worsened == 1
    for second in range(100):
        average.note(100, float(second))
    average.note(60_000, 100.0)
    assert average.worsened < 1.5, "a moment is a moment"
    for second in range(101, 101 + round(HALF_LIFE)):
        average.note(900, float(second))
    assert 4 < average.worsened < 6


# --- several uplinks ---


def test_the_only_tunnel_over_an_uplink_is_not_the_one_that_is_replaced() -> None:
    for lonely in (P, Q, R):
        node = Driver(client_count=3)
        node.tell(ClientUp(Prefix(9999, 16)))
        for peer in (P, Q, R):
            node.tell(BootstrapAnswered(peer, endpoints(peer)))
            node.tell(TunnelUp(peer, name(peer), "10.0.0.2" if peer == lonely else "10.0.0.1"))
        seen(node, P, Q, R)
        (action,) = node.wait(REFRESH + 1)
        assert isinstance(action, DrainTunnel)
        assert action.peer != lonely


def test_a_peer_behind_an_address_that_a_tunnel_leads_to_comes_last() -> None:
    shared, elsewhere = (Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP),), PEERS[7]
    node = Driver(client_count=2)
    node.tell(ClientUp(Prefix(9999, 16)))
    node.tell(BootstrapAnswered(P, shared))
    node.memory.update(dict.fromkeys(PEERS, shared) | {elsewhere: endpoints(elsewhere)})
    assert opened(node.sees(REGISTRY, *PEERS, **near(P, REGISTRY))) == [elsewhere]


# --- near peers ---


def test_two_thirds_are_random_and_the_rest_are_near() -> None:
    """The cheapest ways lead to the first ones of FAR."""
    metrics = {peer: 200 + 100 * n for n, peer in enumerate(FAR)}
    node = Driver(client_count=9)
    node.tell(ClientUp(Prefix(9999, 16)))
    node.memory.update({peer: endpoints(peer) for peer in FAR})
    found = opened(node.sees(REGISTRY, *FAR, metrics=metrics))
    assert len(found) == 9
    chosen = [tunnel.peer for tunnel in node.mesh.tunnels.values() if tunnel.near]
    assert chosen == found[6:]
    left = [peer for peer in FAR if peer not in found[:6]]
    assert set(chosen) <= set(left[: NEAREST + 2])


def replaced(node: Driver, peer: Prefix) -> list[Prefix]:
    """The tunnel to a peer gets empty and is closed; whom the next one is opened with."""
    left = [other for other in node.mesh.tunnels if other != peer]
    costs = {name(other): GOOD for other in left}
    table = near(*left)
    table["alive"] |= {name(peer)}
    actions = node.sees(REGISTRY, *PEERS, **table, costs=costs, metrics=node.mesh.survey.metrics)
    assert actions == [AskClose(peer)]
    node.tell(CloseAllowed(peer))
    return [action.peer for action in node.tell(TunnelDown(peer)) if isinstance(action, OpenTunnel)]


def with_a_near_peer() -> Driver:
    """R was opened as a near one."""
    node = Driver(client_count=3)
    node.up(P, Q, R)
    node.memory.update({peer: endpoints(peer) for peer in FAR})
    node.mesh.tunnels[R].near = True
    return node


def test_a_near_peer_gives_way_to_a_nearer_one_and_a_random_one_to_a_random_one() -> None:
    node = with_a_near_peer()
    costs = {P: 5000, Q: 400, R: 1000}
    metrics = dict.fromkeys(PEERS, 900)
    seen(node, P, Q, R, costs=costs, metrics=metrics)
    (action,) = node.wait(REFRESH + 1)
    assert action == DrainTunnel(P), "nobody is much nearer than R; of the others P is the slower"
    node = with_a_near_peer()
    metrics[FAR[3]] = 300
    seen(node, P, Q, R, costs=costs, metrics=metrics)
    (action,) = node.wait(REFRESH + 1)
    assert action == DrainTunnel(R)
    assert len(replaced(node, R)) == 1
    (new,) = (tunnel for tunnel in node.mesh.tunnels.values() if tunnel.phase is Phase.OPENING)
    assert new.near


# --- two hundred nodes on three continents ---


def test_two_hundred_nodes_get_quicker_ways_and_stay_as_well_connected(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """After ten minutes, beside the same with random tunnels only."""
    found = {}
    for policy, part in (("random", 1 << 30), ("a third near", state.NEAR_PART)):
        monkeypatch.setattr(state, "NEAR_PART", part)
        rounds = Rounds(1, 200, client_count=6, max_clients=12)
        for _ in range(2):
            rounds.round()
        clients = [rounds.clients(node) for node in rounds.nodes]
        found[policy] = {
            "mean round trip, ms": rounds.mean_rtt(),
            "times the direct one": rounds.stretch(),
            "diameter": rounds.diameter(),
            "spectral gap": rounds.gap(),
            "most clients": max(clients),
            "spread of clients": sum((count - 6) ** 2 for count in clients) / len(clients),
        }
    record_property("choice", found)
    plain, near_too = found.values()
    assert near_too["times the direct one"] < 0.9 * plain["times the direct one"]
    assert near_too["mean round trip, ms"] < plain["mean round trip, ms"]
    assert near_too["diameter"] <= plain["diameter"] + 1
    assert near_too["spectral gap"] > 0.8 * plain["spectral gap"], "no bottleneck has formed"
    assert near_too["spread of clients"] < 2 * plain["spread of clients"]
