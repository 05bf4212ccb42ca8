"""Tunnels move to another uplink: drained, and opened anew, one after the other, and none that somebody needs."""

from __future__ import annotations

from re6st.core.mesh.policy import (
    CloseAllowed,
    CloseTunnel,
    DrainTunnel,
    LinkDead,
    TunnelDown,
    TunnelUp,
    UplinksUsed,
)
from re6st.core.mesh.state import MODEST
from re6st.core.prefix import Prefix
from re6st.sim.names import name
from tests.unit.mesh_policy import PEERS, REGISTRY, Driver, P, Q, R, near, opened


def at_rest(*peers: Prefix) -> Driver:
    """A node with tunnels to these, which do not need it."""
    node = Driver(client_count=len(peers), memory=peers)
    node.up(*peers)
    node.sees(REGISTRY, *peers, **near(*peers))
    node.wait(15)
    return node


def drained(actions: list[object]) -> list[Prefix]:
    return [action.peer for action in actions if isinstance(action, DrainTunnel)]


def test_one_after_the_other_is_drained_and_opened_anew() -> None:
    node = at_rest(P, Q)
    actions = node.tell(UplinksUsed(2, frozenset({P, Q})))
    (first,) = drained(actions)
    assert DrainTunnel(first).peer in (P, Q)
    assert not drained(node.tell(UplinksUsed(2, frozenset({P, Q})))), "the other one stays meanwhile"
    other = ({P, Q} - {first}).pop()
    node.sees(REGISTRY, P, Q, **near(other, REGISTRY))
    assert [type(each) for each in [*node.wait(3), *node.tell(CloseAllowed(first))]][-1] is CloseTunnel
    assert opened(node.tell(TunnelDown(first))) == [first]
    node.tell(TunnelUp(first, name(first), "b"))
    assert (node.mesh.tunnels[first].uplink, node.mesh.tunnels[first].moving) == ("b", False)


def test_nothing_moves_where_nobody_says_so() -> None:
    node = at_rest(P, Q)
    assert not drained([*node.tell(UplinksUsed(2)), *node.wait(60)])


def test_a_tunnel_that_somebody_needs_stays() -> None:
    node = at_rest(P, Q)
    node.sees(REGISTRY, P, Q, R, **near(P, Q, sole=frozenset({P, Q})))
    assert not drained([*node.tell(UplinksUsed(2, frozenset({P, Q}))), *node.wait(5)])


def test_a_node_with_two_lines_may_have_as_many_tunnels_on_each_as_one_with_one() -> None:
    node = Driver(client_count=10)
    node.sees(REGISTRY, *PEERS[:20])
    assert node.mesh.limit == MODEST
    node.tell(UplinksUsed(2))
    assert node.mesh.limit == 2 * MODEST
    node.tell(UplinksUsed(0))
    assert node.mesh.limit == MODEST
    node.tell(UplinksUsed(7))
    assert node.mesh.limit == 10


def test_who_closes_a_tunnel_is_told_that_it_was_dead() -> None:
    node = at_rest(P, Q)
    (closed,) = node.tell(LinkDead(P, name(P)))
    assert isinstance(closed, CloseTunnel)
    assert closed.lost
