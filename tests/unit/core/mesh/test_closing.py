"""A tunnel that is drained costs nobody the way: whoever has no other one keeps it, before anything is lost."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest

from re6st.core.mesh.closing import LINK_MOVED_TIME, MOVED_TIME, REMAKE_TIME, TRIES
from re6st.core.mesh.policy import (
    AskClose,
    BulkSurveyed,
    CloseAllowed,
    CloseTunnel,
    DrainTunnel,
    LinkDead,
    LinkDoubted,
    LinkRevived,
    Phase,
    SettingsChanged,
    TunnelMoved,
    TunnelsOutdated,
    UndrainTunnel,
)
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey
from re6st.sim.names import name
from tests.unit.mesh_policy import CLOSE_TIME, PEERS, REFRESH, REGISTRY, Driver, near

P, Q = PEERS[:2]
EVERYBODY = (REGISTRY, *PEERS)
MUTED = 2.0
"""Seconds of the drain until the link is about to be lost."""


def sees(
    node: Driver, lost: tuple[Prefix, ...] = (), sole: tuple[Prefix, ...] = (), *, late: bool = False, **carried: Any
) -> list[Any]:
    """What goes over the tunnels to `p` and `q`, and that nobody but `lost` is out of reach."""
    links = {
        peer: (LinkUse(NextHop(IPv6Address("fe80::1"), name(peer)), frozenset(carried.get(word, ())), frozenset(sole)),)
        for peer, word in ((P, "p"), (Q, "q"))
    }
    alive = frozenset((name(P), name(Q)))
    return node.sees(
        *(peer for peer in EVERYBODY if peer not in lost), neighbours=links, alive=alive, running=not late, late=late
    )


@pytest.fixture
def node() -> Driver:
    """One that has begun to drain its tunnel to Q, over which Q alone is reached."""
    node = Driver(client_count=2, drain_time=MUTED)
    node.up(P, Q)
    sees(node, p=EVERYBODY, q=[Q])
    assert node.wait(REFRESH + 1) == [DrainTunnel(Q)]
    assert node.phase(Q) is Phase.DRAINING
    return node


def test_before_the_link_is_lost_it_is_taken_back_if_somebody_has_no_other_way(node: Driver) -> None:
    """Two nodes may drain the last two ways between two halves of a network: both costs grow, neither has the other."""
    assert sees(node, p=[P], q=[Q], sole=(Q,)) == [], "the cost rises still"
    assert node.wait(MUTED) == [UndrainTunnel(Q)]
    assert node.phase(Q) is Phase.UP


def test_a_wireguard_link_takes_longer_to_be_lost_as_its_hellos_are_rarer() -> None:
    node = Driver(client_count=2, drain_time=MUTED, link_drain_time=4 * MUTED)
    node.up(P, Q)
    node.tell(TunnelMoved(Q, "re6stnet-wg1"))
    alive = frozenset((name(P), "re6stnet-wg1"))

    def sees_link(*sole: Prefix) -> list[Any]:
        link = LinkUse(NextHop(IPv6Address("fe80::1"), "re6stnet-wg1"), frozenset([Q]), frozenset(sole))
        return node.sees(*EVERYBODY, neighbours={**near(P, carried=5)["neighbours"], Q: (link,)}, alive=alive)

    sees_link()
    assert node.wait(REFRESH + 1) == [DrainTunnel(Q, "the least useful one")]
    assert sees_link(Q) == []
    assert node.wait(4 * MUTED - 1.5) == []
    assert node.wait(1.5) == [UndrainTunnel(Q)]


def test_what_has_another_way_is_waited_for(node: Driver) -> None:
    assert sees(node, p=[P], q=[Q]) == []
    assert node.wait(MUTED + 2) == []
    assert sees(node, p=[P, Q]) == [AskClose(Q)]


def bulk(**carried: Any) -> BulkSurveyed:
    """What the throughput plane carries over the tunnels to `p` and `q`."""
    links = {
        peer: (LinkUse(NextHop(IPv6Address("fe80::1"), name(peer)), frozenset(carried.get(word, ())), frozenset()),)
        for peer, word in ((P, "p"), (Q, "q"))
    }
    return BulkSurveyed(Survey(neighbours=links))


def test_bulk_traffic_is_waited_for_too(node: Driver) -> None:
    node.tell(bulk(q=[P, Q]))
    assert sees(node, p=[P, Q]) == []
    assert node.wait(MUTED + 2) == [], "the throughput plane still uses it"
    assert node.tell(bulk(p=[P, Q])) == [AskClose(Q)]


def test_a_throughput_plane_that_ends_keeps_no_tunnel(node: Driver) -> None:
    node.tell(bulk(q=[P, Q]))
    sees(node, p=[P, Q])
    node.wait(MUTED + 2)
    assert node.tell(BulkSurveyed(None)) == [AskClose(Q)]


def test_the_tunnel_that_bulk_traffic_goes_over_is_not_the_least_useful_one() -> None:
    """The way of most capacity may be a slow one, by which little goes else."""
    node = Driver(client_count=2, drain_time=MUTED)
    node.up(P, Q)
    sees(node, p=[P, REGISTRY], q=[Q])
    node.tell(bulk(q=EVERYBODY))
    assert node.wait(REFRESH + 1) == [DrainTunnel(P)]


def test_what_came_to_the_tunnel_while_it_was_drained_counts_too(node: Driver) -> None:
    late = PEERS[9]
    assert sees(node, p=[P], q=[Q, late]) == []
    assert sees(node, p=[P], q=[Q], lost=(late,)) == [UndrainTunnel(Q)]


def test_the_peer_itself_must_be_reached_even_if_nothing_went_through_the_tunnel() -> None:
    node = Driver(client_count=2, drain_time=MUTED)
    node.up(P, Q)
    sees(node, p=EVERYBODY)
    assert node.wait(REFRESH + 1) == [DrainTunnel(Q)]
    assert sees(node, lost=(Q, *PEERS[5:])) == [UndrainTunnel(Q)]


def test_an_idle_tunnel_is_not_closed_before_others_see_that_it_is_drained() -> None:
    """Somebody may drain the other way at the same time, and find this one to be a better one."""
    node = Driver(client_count=2, drain_time=MUTED)
    node.up(P, Q)
    sees(node, p=EVERYBODY)
    assert node.wait(REFRESH + 1) == [DrainTunnel(Q)]
    assert sees(node, p=[P], q=[Q]) == [], "now it is used: the other one is drained"
    assert sees(node, p=[P, Q]) == []
    assert node.wait(MUTED) == [AskClose(Q)]


def test_a_tunnel_that_is_used_again_while_the_peer_is_asked_is_kept(node: Driver) -> None:
    sees(node, p=[P, Q])
    assert node.wait(MUTED) == [AskClose(Q)]
    assert sees(node, p=[P], q=[Q]) == [UndrainTunnel(Q)]
    assert node.tell(CloseAllowed(Q)) == []
    assert node.phase(Q) is Phase.UP


def test_no_tunnel_is_closed_while_it_is_not_known_what_goes_over_it(node: Driver) -> None:
    """babeld closes the connection of a node that reads too slowly: its table is that of a moment ago."""
    sees(node, p=[P, Q])
    assert node.wait(MUTED) == [AskClose(Q)]
    assert sees(node, p=[P, Q], late=True) == [UndrainTunnel(Q)]
    assert node.tell(CloseAllowed(Q)) == []
    assert node.phase(Q) is Phase.UP


def test_it_is_not_drained_again_for_a_while_and_later_for_a_longer_one(node: Driver) -> None:
    pauses = []
    for _ in range(4):
        began = node.now
        sees(node, p=[P], q=[Q], lost=(Q,))
        assert node.phase(Q) is Phase.UP
        # P leads to the registry's node alone.
        sees(node, p=EVERYBODY, q=[Q])
        node.mesh.tunnels[P].rests = float("inf")
        while DrainTunnel(Q) not in node.wait(1):
            assert node.now < began + 40 * REFRESH
        pauses.append(node.now - began)
    assert pauses[0] > REFRESH
    assert pauses == sorted(pauses)
    assert pauses[-1] > 3 * pauses[0]


def test_two_nodes_do_not_try_it_again_in_step() -> None:
    def pause(seed: int) -> float:
        node = Driver(seed=seed, client_count=2)
        node.up(P, Q)
        sees(node, p=EVERYBODY, q=[Q])
        assert node.wait(REFRESH + 1) == [DrainTunnel(Q)]
        sees(node, p=[P], q=[Q], lost=(Q,))
        return node.mesh.tunnels[Q].rests - node.now

    assert len({pause(seed) for seed in range(5)}) == 5


def test_while_babeld_is_away_nobody_is_lost(node: Driver) -> None:
    node.sees(running=False)
    assert node.phase(Q) is Phase.UP
    assert node.mesh.tunnels[Q].rests < node.now


def test_a_tunnel_too_many_is_given_up_even_if_everybody_is_next_to_us() -> None:
    node = Driver(client_count=2)
    node.up(P, Q)
    node.sees(REGISTRY, P, Q, **near(REGISTRY, P, Q))
    assert not node.wait(2 * REFRESH), "there is nobody else to meet"
    settings = replace(node.mesh.settings, client_count=1)
    actions = node.tell(SettingsChanged(settings)) + node.wait(REFRESH)
    assert [type(action) for action in actions][:1] == [DrainTunnel]


def test_an_outdated_tunnel_is_drained_some_times_before_it_is_cut() -> None:
    node = Driver(client_count=1, memory=(P,), drain_time=MUTED)
    node.up(P)
    sees(node, p=[P], sole=(P,))
    node.tell(TunnelsOutdated(frozenset({P})))
    actions = node.wait(CLOSE_TIME + TRIES * (2 * REMAKE_TIME + MUTED + 2))
    kinds = [type(action) for action in actions if isinstance(action, DrainTunnel | UndrainTunnel | CloseTunnel)]
    assert kinds == [*[DrainTunnel, UndrainTunnel] * TRIES, CloseTunnel]


def test_an_outdated_tunnel_is_not_cut_as_babeld_is_started_anew_while_it_is_drained() -> None:
    node = Driver(client_count=1, memory=(P,), drain_time=MUTED)
    node.up(P)
    sees(node, p=[P, REGISTRY])
    node.tell(TunnelsOutdated(frozenset({P})))
    while node.phase(P) is not Phase.DRAINING:
        node.wait(1)
    node.sees(running=False)
    assert node.wait(3 * REMAKE_TIME) == [], "nobody knows what goes through it"
    assert node.phase(P) is Phase.UP
    assert sees(node, p=[P, REGISTRY]) == [DrainTunnel(P)]


def test_a_tunnel_that_gives_no_sign_of_life_is_closed_once() -> None:
    node = Driver(client_count=2)
    node.up(P, Q)
    sees(node, p=EVERYBODY, q=[Q])
    assert node.tell(LinkDead(Q, name(P))) == [], "it has moved to another interface since"
    assert node.tell(LinkDead(Q, name(Q))) == [CloseTunnel(Q, "no sign of life")]
    assert node.phase(Q) is Phase.CLOSING
    assert node.tell(LinkDead(Q, name(Q))) == []
    assert node.tell(LinkDead(REGISTRY, name(REGISTRY))) == []


@pytest.mark.parametrize(("interface", "closed"), [(name(Q), True), (name(P), False)])
def test_a_tunnel_that_seems_dead_is_closed_soon_after_babel_has_lost_the_peer(interface: str, closed: bool) -> None:
    """Babel takes two and a half seconds for that. A false alarm costs nothing: babel still sees the peer."""
    node = Driver(client_count=2)
    node.up(P, Q)
    sees(node, p=EVERYBODY, q=[Q])
    assert node.tell(LinkDoubted(Q, interface)) == []
    assert node.wait(1) == []
    node.sees(*EVERYBODY, neighbours=near(P)["neighbours"], alive=frozenset({name(P)}))
    assert [each.peer for each in node.wait(MOVED_TIME + 1) if isinstance(each, CloseTunnel)] == [Q] * closed


def test_a_tunnel_that_seemed_dead_and_was_not_is_given_up_no_sooner_than_others() -> None:
    node = Driver(client_count=2)
    node.up(P, Q)
    sees(node, p=EVERYBODY, q=[Q])
    assert node.tell(LinkDoubted(Q, name(Q))) == []
    assert node.tell(LinkRevived(Q, name(Q))) == []
    node.sees(*EVERYBODY, neighbours=near(P)["neighbours"], alive=frozenset({name(P)}))
    assert [each for each in node.wait(MOVED_TIME + 1) if isinstance(each, CloseTunnel)] == []


def test_a_link_that_is_doubted_has_more_time_as_its_hellos_are_rarer() -> None:
    node, link = Driver(client_count=2), "re6stnet-wg1"
    node.up(P, Q)
    node.tell(TunnelMoved(Q, link))
    q = LinkUse(NextHop(IPv6Address("fe80::1"), link), frozenset([Q]), frozenset())
    both = {**near(P, carried=5)["neighbours"], Q: (q,)}
    node.sees(*EVERYBODY, neighbours=both, alive=frozenset({name(P), link}))
    node.tell(LinkDoubted(Q, link))
    node.sees(*EVERYBODY, neighbours=near(P)["neighbours"], alive=frozenset({name(P)}))
    assert [each for each in node.wait(MOVED_TIME + 1) if isinstance(each, CloseTunnel)] == []
    assert [each.peer for each in node.wait(LINK_MOVED_TIME) if isinstance(each, CloseTunnel)] == [Q]


def test_a_tunnel_that_only_seemed_dead_stays() -> None:
    node = Driver(client_count=2)
    node.up(P, Q)
    sees(node, p=EVERYBODY, q=[Q])
    assert node.tell(LinkDoubted(Q, name(Q))) == []
    assert node.wait(MOVED_TIME + 1) == []
    assert node.phase(Q) is Phase.UP
