"""Which tunnels may cross borders (wire.md 10.6): the rule, and the policy that keeps it."""

from __future__ import annotations

from random import Random

import pytest

from re6st.core.mesh.borders import may_meet
from re6st.core.mesh.policy import BootstrapAnswered, CloseTunnel, Mesh, OpenTunnel, Settings, SettingsChanged, TunnelUp
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint

OWN, P, Q = Prefix(7, 16), Prefix(20, 16), Prefix(21, 16)
CLOSED = frozenset({"FR", "JP"})


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ("FR", "FR", True),
        ("FR", "JP", False),
        ("FR", "DE", False),
        ("DE", "BR", True),
        ("FR", "", True),
        ("", "", True),
    ],
)
def test_the_rule_is_the_same_from_both_sides(one: str, other: str, may: bool) -> None:
    assert may_meet(one, other, CLOSED) is may_meet(other, one, CLOSED) is may


def at(country: str, host: str = "192.0.2.1") -> Endpoint:
    return Endpoint(host, 1194, TunnelProtocol.TCP, country)


def settings(country: str, closed: frozenset[str] = CLOSED) -> Settings:
    return Settings(OWN, Prefix(0, 16), 10, 300.0, 45.0, country=country, same_country=closed)


def opened(mesh: Mesh, peer: Prefix, *endpoints: Endpoint) -> list[Endpoint]:
    actions = mesh.handle(BootstrapAnswered(peer, endpoints), 1000.0)
    return [e for action in actions if isinstance(action, OpenTunnel) for e in action.endpoints]


def test_only_addresses_on_our_side_of_the_border_are_used() -> None:
    mesh = Mesh(settings("DE"), {}, Random(1), lambda host: "FR" if host == "192.0.2.3" else "")
    german, french, unknown = at("DE"), at("fr", "192.0.2.2"), at("", "192.0.2.4")
    assert opened(mesh, P, at("", "192.0.2.3"), french) == []
    assert opened(mesh, P, at("", "192.0.2.3"), french, german, unknown) == [german, unknown]


def test_without_closed_borders_everybody_is_met() -> None:
    assert opened(Mesh(settings("DE", frozenset()), {}, Random(1)), P, at("FR")) == [at("FR")]


def test_a_tunnel_that_turns_out_to_cross_the_border_is_closed() -> None:
    mesh = Mesh(settings(""), {}, Random(1))
    for peer, country in ((P, "FR"), (Q, "DE")):
        assert opened(mesh, peer, at(country)) == [at(country)]
        mesh.handle(TunnelUp(peer, "x"), 1001.0)
    actions = mesh.handle(SettingsChanged(settings("DE")), 1002.0)
    assert [action.peer for action in actions if isinstance(action, CloseTunnel)] == [P]
