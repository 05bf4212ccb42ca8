"""What a node knows of its peers, by the policy's eyes and its own memory."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path
from random import Random

import pytest

from re6st.core.mesh import memory, policy
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.requirement import AnnouncedNames, Requirement
from re6st.noded.known_peers import KnownPeers
from re6st.noded.peer_cache import Cache

HOP = NextHop(IPv6Address("fe80::1"), "re6stnet1")
OWN, TUNNEL, NEIGHBOUR, CLIENT, FAR, AWAY = (Prefix(number, 16) for number in range(1, 7))


def place(peer: Prefix) -> tuple[Endpoint, ...]:
    return (Endpoint(f"192.0.2.{peer.value}", 1194, TunnelProtocol.TCP),)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache.db")
    yield made
    made.close(made.addresses)


@pytest.fixture
def requirement() -> Requirement:
    return Requirement()


@pytest.fixture
def known(cache: Cache, requirement: Requirement) -> KnownPeers:
    mesh = policy.Mesh(
        policy.Settings(OWN, Prefix(0, 16), client_count=3, tunnel_refresh=300, close_time=60),
        cache.addresses,
        Random(1),
    )
    mesh.handle(policy.Resumed(((TUNNEL, "re6stnet1"),)), 0.0)
    mesh.handle(policy.ClientUp(CLIENT), 0.0)
    link = LinkUse(HOP, frozenset(), frozenset())
    survey = Survey(peers=frozenset((TUNNEL, NEIGHBOUR, CLIENT, FAR)), neighbours={NEIGHBOUR: (link,)})
    mesh.handle(policy.Surveyed(survey), 0.0)
    return KnownPeers(OWN, mesh, requirement, cache)


def test_near_are_neighbours_and_both_ends_of_our_tunnels(known: KnownPeers) -> None:
    assert known.near() == {TUNNEL, NEIGHBOUR, CLIENT}


def test_who_can_be_told_something_is_who_has_a_route(known: KnownPeers) -> None:
    assert known.is_routed(FAR)
    assert not known.is_routed(AWAY)


def test_a_node_of_another_region_is_known_by_that(cache: Cache, requirement: Requirement) -> None:
    settings = policy.Settings(OWN, Prefix(0, 16), client_count=3, tunnel_refresh=300, close_time=60, region_length=14)
    mesh = policy.Mesh(settings, cache.addresses, Random(1))
    region, link = Prefix(1, 14), LinkUse(HOP, frozenset(), frozenset())
    survey = Survey(peers=frozenset((TUNNEL, region)), neighbours={TUNNEL: (link,), region: (link,)})
    mesh.handle(policy.Surveyed(survey), 0.0)
    known = KnownPeers(OWN, mesh, requirement, cache)
    assert known.is_routed(AWAY), "6/16, which is in 1/14"
    assert not known.is_routed(Prefix(3, 16)), "of our region, and without a route"
    assert known.near() == {TUNNEL}, "a region is nobody to talk to"


def test_who_lacks_what_is_required_is_known_at_once(known: KnownPeers, requirement: Requirement) -> None:
    assert not known.lacks_extension(FAR)
    requirement.look(frozenset(("sealed-messages",)), {FAR: AnnouncedNames(frozenset(), 0)}, 1)
    assert known.lacks_extension(FAR)


def test_for_the_next_start_neighbours_are_kept_before_others(known: KnownPeers, cache: Cache) -> None:
    for number in range(100, 130):
        known.remember(Prefix(number, 16), place(FAR))
    known.remember(NEIGHBOUR, place(NEIGHBOUR))
    kept = known.worth_keeping()
    assert (kept[0], len(kept)) == (NEIGHBOUR, 10)


def test_neither_we_ourselves_nor_who_names_no_address_is_remembered(known: KnownPeers) -> None:
    known.remember(OWN, place(OWN))
    known.remember(FAR, ())
    assert known.addresses == {}


def test_who_has_a_tunnel_does_not_make_room_for_others(known: KnownPeers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PEER_LIMIT", 2)
    known.remember(TUNNEL, place(TUNNEL))
    for peer in (FAR, AWAY, CLIENT, NEIGHBOUR):
        known.remember(peer, place(peer))
        assert known.addresses.keys() == {TUNNEL, peer}
