"""The phases of a tunnel: which may follow which, that the policy uses each of these changes, and no other."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from re6st.core.mesh.closing import DEAD_TIME
from re6st.core.mesh.phases import CHANGES, IllegalChange, Phase
from re6st.core.mesh.policy import (
    BootstrapAnswered,
    ClientUp,
    CloseAllowed,
    Resumed,
    SettingsChanged,
    TunnelDown,
    TunnelUp,
)
from re6st.core.mesh.state import Tunnel
from re6st.sim.names import endpoints, name
from tests.unit.mesh_policy import CLOSE_TIME, OWN, PEERS, REFRESH, REGISTRY, Driver, near
from tests.unit.test_house import TREES, imports

P, Q = PEERS[:2]
CLIENT = PEERS[-1]
EVERYBODY = (REGISTRY, *PEERS)
LEGAL = [pair for pair in product(Phase, Phase) if pair[1] in CHANGES[pair[0]]]
ILLEGAL = [pair for pair in product(Phase, Phase) if pair not in LEGAL]
KNOWS_TUNNELS = [name for name in TREES if any(found.startswith("re6st.core.mesh") for found in imports(name))]
"""Modules that may hold a tunnel of the policy; those of others, such as links, have phases of their own."""


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_an_illegal_change_is_refused_and_changes_nothing(before: Phase, after: Phase) -> None:
    tunnel = Tunnel(P, before, 5.0)
    with pytest.raises(IllegalChange, match=f"is {before.value} cannot become {after.value}"):
        tunnel.enter(after, 9.0)
    assert (tunnel.phase, tunnel.since) == (before, 5.0)


@pytest.mark.parametrize(("before", "after"), LEGAL)
def test_a_legal_change_begins_now(before: Phase, after: Phase) -> None:
    tunnel = Tunnel(P, before, 5.0)
    tunnel.enter(after, 9.0)
    assert (tunnel.phase, tunnel.since) == (after, 9.0)


def test_no_phase_follows_itself_and_nothing_the_last_one() -> None:
    assert CHANGES.keys() == set(Phase)
    assert len(ILLEGAL) == 16
    assert {(phase, phase) for phase in Phase} <= set(ILLEGAL)
    assert not CHANGES[Phase.CLOSING]


@pytest.mark.parametrize("module", sorted(KNOWS_TUNNELS))
def test_nobody_else_changes_a_phase(module: str) -> None:
    allowed = {"re6st.core.mesh.state"}
    targets = [
        target
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    changed = [node for target in targets for node in ast.walk(target) if isinstance(node, ast.Attribute)]
    assert module in allowed or not [node.lineno for node in changed if node.attr == "phase"]


# --- each of them happens; Q is the tunnel that is looked at ---


def opening() -> Driver:
    node = Driver(client_count=2)
    node.tell(ClientUp(CLIENT))
    for peer in (P, Q):
        node.tell(BootstrapAnswered(peer, endpoints(peer)))
    return node


def up() -> Driver:
    node = opening()
    for peer in (P, Q):
        node.tell(TunnelUp(peer, name(peer)))
    table = near(P, carried=3)
    table["neighbours"] |= near(Q)["neighbours"]
    node.sees(*EVERYBODY, neighbours=table["neighbours"], alive=frozenset({name(P), name(Q)}))
    return node


def draining() -> Driver:
    node = up()
    node.wait(REFRESH + 1)
    return node


def asked() -> Driver:
    node = draining()
    node.sees(*EVERYBODY, **near(P, carried=3))
    return node


def borders(node: Driver) -> None:
    """The network closes a border, and the peers are beyond it."""
    for tunnel in node.mesh.tunnels.values():
        tunnel.endpoints = tuple(replace(each, country="FR") for each in tunnel.endpoints)
    node.tell(SettingsChanged(replace(node.mesh.settings, country="DE", same_country=frozenset({"FR"}))))


def falls_silent(node: Driver) -> None:
    node.sees(*EVERYBODY, **near(P))
    node.wait(DEAD_TIME + 2)


def doubled(node: Driver) -> None:
    assert OWN < Q
    node.tell(ClientUp(Q))


def is_empty(node: Driver) -> None:
    node.sees(*EVERYBODY, **near(P, carried=3))


def patience_ends(node: Driver) -> None:
    node.wait(CLOSE_TIME + 2)


HAPPENS: list[tuple[Callable[[], Driver], Callable[[Driver], object], Phase]] = [
    (opening, lambda node: node.tell(TunnelUp(Q, name(Q))), Phase.UP),
    (opening, borders, Phase.CLOSING),
    (up, lambda node: node.wait(REFRESH + 1), Phase.DRAINING),
    (up, falls_silent, Phase.CLOSING),
    (draining, is_empty, Phase.ASKED),
    (draining, patience_ends, Phase.UP),
    (draining, doubled, Phase.CLOSING),
    (asked, patience_ends, Phase.UP),
    (asked, lambda node: node.tell(CloseAllowed(Q)), Phase.CLOSING),
]
PHASES = {opening: Phase.OPENING, up: Phase.UP, draining: Phase.DRAINING, asked: Phase.ASKED}


@pytest.mark.parametrize(("begin", "happens", "after"), HAPPENS)
def test_every_legal_change_happens(
    begin: Callable[[], Driver], happens: Callable[[Driver], object], after: Phase
) -> None:
    node = begin()
    assert node.phase(Q) is PHASES[begin]
    happens(node)
    assert node.phase(Q) is after
    node.tell(TunnelDown(Q))
    found = node.mesh.tunnels.get(Q)
    assert found is None or found.phase is Phase.OPENING, "a tunnel ends in any phase; another one may follow"


def test_what_happens_is_all_that_may() -> None:
    assert {(PHASES[begin], after) for begin, _, after in HAPPENS} == set(LEGAL)


def test_one_that_an_earlier_daemon_left_begins_as_up() -> None:
    node = Driver()
    node.tell(Resumed(((P, name(P)),)))
    assert node.phase(P) is Phase.UP
