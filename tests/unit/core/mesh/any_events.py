"""Anything that a policy may be told, in any order: for tests of what must hold whatever happens."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from hypothesis import strategies as st

from re6st.core.mesh.policy import (
    AddressLearned,
    BootstrapAnswered,
    BulkSurveyed,
    ClientDown,
    ClientUp,
    CloseAllowed,
    CloseAsked,
    Event,
    LinkDead,
    LinkDoubted,
    LinkRevived,
    LinksLossy,
    RegionAnswered,
    Resumed,
    Settings,
    SettingsChanged,
    Surveyed,
    TunnelDown,
    TunnelsLossy,
    TunnelsOutdated,
    TunnelUp,
    UplinksUsed,
    UplinkUp,
)
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import LinkUse, Survey
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.sim.names import endpoints, hop, name

REGISTRY, OWN = Prefix(0, 16), Prefix(7, 16)
PEERS = [Prefix(number, 16) for number in range(20, 32)]
PREFIXES = st.sampled_from([OWN, REGISTRY, *PEERS])
REGION_LENGTH = 12
REGIONS = st.sampled_from([Prefix(1, REGION_LENGTH), Prefix(2, REGION_LENGTH)])
CLOSE_TIME, REFRESH = 45.0, 300.0

INTERFACES = st.sampled_from([*map(name, PEERS), "eth0", "x"])
PLACES = st.one_of(
    st.just(()),
    st.builds(endpoints, PREFIXES),
    st.just((Endpoint("h", 1, TunnelProtocol.UDP6), Endpoint("h", 2, TunnelProtocol.UDP))),
    st.just(tuple(Endpoint(f"192.0.2.{n % 9}", 1024 + n, TunnelProtocol.TCP) for n in range(40))),
)
HOPS = st.builds(hop, PREFIXES, INTERFACES)
LINKS = st.builds(
    lambda peer, interface, carried, sole: LinkUse(hop(peer, interface), carried, sole & carried),
    PREFIXES,
    INTERFACES,
    st.frozensets(PREFIXES, max_size=4),
    st.frozensets(PREFIXES, max_size=2),
)


def survey(peers: Set[Prefix], links: list[LinkUse], **more: Any) -> Survey:
    """What babel may say, with these links; who is a neighbour is in reach."""
    neighbours: dict[Prefix, tuple[LinkUse, ...]] = {}
    for link in links:
        peer = Prefix(link.hop.address.packed[-1], 16)
        neighbours[peer] = (*neighbours.get(peer, ()), link)
    alive = frozenset(link.hop.interface for link in links)
    return Survey(peers=frozenset(peers | neighbours.keys()), neighbours=neighbours, alive=alive, **more)


SURVEYS = st.builds(
    survey,
    st.sets(PREFIXES | REGIONS),
    st.lists(LINKS, max_size=8),
    running=st.booleans(),
    split=st.booleans(),
    costs=st.dictionaries(INTERFACES, st.integers(1, 65534), max_size=4),
    losses=st.dictionaries(INTERFACES, st.floats(1, 16), max_size=4),
    metrics=st.dictionaries(PREFIXES, st.integers(1, 65534), max_size=4),
    unheard=st.frozensets(INTERFACES, max_size=3),
)
SETTINGS = st.builds(
    Settings,
    own=st.just(OWN),
    registry=st.just(REGISTRY),
    client_count=st.integers(0, 5),
    tunnel_refresh=st.sampled_from([REFRESH, float("inf")]),
    close_time=st.just(CLOSE_TIME),
    drain_time=st.sampled_from([0.0, 2.0]),
    drains=st.booleans(),
    region_length=st.sampled_from([0, 0, REGION_LENGTH]),
    neighbours=st.frozensets(PREFIXES, max_size=2),
    disabled_protocols=st.sampled_from([frozenset(), frozenset({TunnelProtocol.UDP})]),
    lan=st.sampled_from([frozenset(), frozenset({"eth0"})]),
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(TunnelUp, PREFIXES, INTERFACES),
    st.builds(TunnelDown, PREFIXES),
    st.builds(ClientUp, PREFIXES),
    st.builds(ClientDown, PREFIXES),
    st.builds(Surveyed, SURVEYS),
    st.builds(BulkSurveyed, st.none() | SURVEYS),
    st.builds(AddressLearned, PREFIXES, PLACES),
    st.builds(RegionAnswered, PREFIXES | REGIONS, PREFIXES, PLACES),
    st.builds(BootstrapAnswered, PREFIXES | st.none(), PLACES),
    st.builds(CloseAsked, PREFIXES),
    st.builds(CloseAllowed, PREFIXES),
    st.builds(SettingsChanged, SETTINGS),
    st.builds(TunnelsOutdated, st.frozensets(PREFIXES)),
    st.builds(TunnelsLossy, st.frozensets(PREFIXES)),
    st.builds(LinksLossy, st.frozensets(HOPS), st.frozensets(HOPS)),
    st.builds(LinkDoubted, PREFIXES, INTERFACES),
    st.builds(LinkRevived, PREFIXES, INTERFACES),
    st.builds(LinkDead, PREFIXES, INTERFACES),
    st.just(Resumed(())),
    st.just(UplinkUp()),
    st.builds(UplinksUsed, st.integers(0, 7), st.frozensets(PREFIXES)),
)
PAUSES = st.one_of(st.floats(0, 3), st.floats(0, 400))
HAPPENINGS: st.SearchStrategy[list[Event | float]] = st.lists(st.one_of(EVENTS, PAUSES), max_size=60)
"""Events, and seconds in which nothing happens."""
