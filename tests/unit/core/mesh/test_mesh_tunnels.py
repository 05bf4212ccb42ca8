"""Tunnels that do not live, that are replaced, and that lead to somebody on the same LAN."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

import pytest

from re6st.core.mesh.closing import DEAD_TIME, LAN_TIME, MOVED_TIME
from re6st.core.mesh.policy import (
    AddressLearned,
    AllowClose,
    AskClose,
    AvoidLink,
    ClientDown,
    ClientUp,
    CloseAllowed,
    CloseAsked,
    CloseTunnel,
    DrainTunnel,
    Phase,
    Surveyed,
    TrustLink,
    TunnelDown,
    TunnelsLossy,
    TunnelUp,
    UndrainTunnel,
)
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey
from re6st.sim.names import endpoints, name
from tests.unit.mesh_policy import CLOSE_TIME, PEERS, REFRESH, REGISTRY, Driver, P, Q, R, near, opened

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
    hops = {
        peer: (LinkUse(NextHop(IPv6Address("fe80::1"), name(peer)), frozenset(), frozenset()),) for peer in (P, Q, R)
    }
    alive = frozenset(map(name, (P, Q, R)))
    node.sees(REGISTRY, P, Q, R, neighbours=hops, alive=alive)
    assert node.tell(TunnelsLossy(frozenset({P}))) == [AvoidLink(P, hops[P][0].hop)]
    assert node.mesh.avoided_links == {hops[P][0].hop}
    node.sees(REGISTRY, P, Q, R, neighbours={Q: hops[Q], R: hops[R]}, alive=alive - {name(P)})
    assert not [action for action in node.wait(3 * DEAD_TIME) if isinstance(action, CloseTunnel)]
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
    assert node.wait(2) == [AskClose(Q)], "without draining it"
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
    assert not [a for a in node.wait(DEAD_TIME - 3) if isinstance(a, CloseTunnel)]


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
    lan = LinkUse(NextHop(IPv6Address("fe80::2"), "eth0"), frozenset(peers), frozenset())
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
    lan = LinkUse(NextHop(IPv6Address("fe80::2"), "eth0"), frozenset({P}), frozenset())
    node.sees(REGISTRY, P, neighbours={P: (lan,)}, alive=frozenset({"eth0"}))
    assert AllowClose(P) in node.tell(CloseAsked(P))
