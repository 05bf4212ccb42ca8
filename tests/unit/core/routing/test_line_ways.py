"""Destinations are reached over other lines by neighbours that do not lead back here."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from random import Random

import pytest

from re6st.core.routing.babel_lines import INFINITY, Neighbour, NextHop, Route, Table
from re6st.core.routing.detours import ANYWHERE
from re6st.core.routing.line_ways import line_ways

NETWORK = IPv6Network("2001:db8:42::/48")
FAR, NEAR = IPv6Network("2001:db8:42:8::/64"), IPv6Network("2001:db8:42:9::/64")
A, B, C = (NextHop(IPv6Address(f"fe80::{name}"), f"re6stnet{name}") for name in (1, 2, 3))
SLOTS = {A.interface: 1, B.interface: 2, C.interface: 2}


def table(*routes: tuple[IPv6Network, NextHop, int, bool], link: int = 96, reach: int = 0xFFFF) -> Table:
    """Destination, next hop, refmetric, and whether it is the one in use."""
    made = Table()
    for number, (destination, via, refmetric, used) in enumerate(routes):
        ident, metric = str(number), min(refmetric + link, INFINITY)
        made.routes[ident] = Route(ident, destination, ANYWHERE, used, metric, refmetric, via)
    for hop in {route.via for route in made.routes.values()}:
        name = hop.interface
        made.neighbours[name] = Neighbour(name, hop.address, hop.interface, reach, link, link, link, None)
    return made


def ways(known: Table, *, barred: frozenset[NextHop] = frozenset(), held: object = None) -> dict[int, object]:
    costs = {each.key: each.cost for each in known.neighbours.values()}
    return dict(line_ways(known, NETWORK, SLOTS, barred, costs, held or {}))  # type: ignore[arg-type]


def test_a_destination_is_reached_over_each_line_by_whoever_is_nearer() -> None:
    known = table((FAR, A, 96, True), (FAR, B, 96, False), (NEAR, B, 0, True))
    assert ways(known) == {1: {FAR: A}, 2: {FAR: B, NEAR: B}}


def test_the_neighbour_itself_is_reached_by_another_one_that_is_as_near_to_it_as_we_are() -> None:
    known = table((NEAR, A, 0, True), (NEAR, B, 96, False), (FAR, B, 0, True))
    assert ways(known)[2] == {NEAR: B, FAR: B}


@pytest.mark.parametrize("back", [96, 90, 60])
def test_a_way_that_leads_back_to_us_is_not_taken(back: int) -> None:
    known = table((NEAR, A, 0, True), (NEAR, B, 96 + back, False), (FAR, B, 0, True))
    assert NEAR not in ways(known)[2]  # type: ignore[operator]


def test_a_way_that_is_used_stays_although_costs_move() -> None:
    known = table((NEAR, A, 0, True), (NEAR, B, 96 + 60, False), (FAR, B, 0, True))
    assert ways(known, held={2: {NEAR: B}})[2] == {NEAR: B, FAR: B}
    known = table((NEAR, A, 0, True), (NEAR, B, 96 + 96, False), (FAR, B, 0, True))
    assert ways(known, held={2: {NEAR: B}})[2] == {FAR: B}


def test_of_two_neighbours_on_a_line_the_better_one_leads_and_stays_as_long_as_it_is_nearly_as_good() -> None:
    known = table((FAR, A, 96, True), (FAR, B, 90, False), (FAR, C, 80, False))
    assert ways(known)[2] == {FAR: C}
    assert ways(known, held={2: {FAR: B}})[2] == {FAR: B}
    known = table((FAR, A, 96, True), (FAR, B, 90, False), (FAR, C, 30, False))
    assert ways(known, held={2: {FAR: B}})[2] == {FAR: C}


def test_who_is_barred_or_silent_leads_nowhere() -> None:
    known = table((FAR, A, 96, True), (FAR, B, 90, False))
    assert ways(known, barred=frozenset({B}))[2] == {}
    for reach, leads in ((0xFFFF, True), (0x7FFF, True), (0x3FFF, False), (0, False)):
        known = table((FAR, A, 96, True), (FAR, B, 90, False), reach=reach)
        assert (FAR in ways(known)[2]) is leads  # type: ignore[operator]


def test_what_is_outside_the_network_or_for_some_sources_goes_as_babel_says() -> None:
    known = table((IPv6Network("2001:db8:43::/64"), A, 96, True), (IPv6Network("2001:db8:43::/64"), B, 0, False))
    known.routes["9"] = Route("9", IPv6Network("::/0"), NETWORK, True, 96, 0, B)
    assert ways(known) == {1: {}, 2: {}}


def test_a_destination_that_babel_does_not_reach_has_no_way() -> None:
    assert ways(table((FAR, A, INFINITY, True), (FAR, B, 90, False))) == {1: {}, 2: {}}


@pytest.mark.parametrize("seed", range(40))
def test_no_way_leads_back_here_whatever_the_network_is_like(seed: int) -> None:
    """The node is 0; from its neighbour on, packets go by the shortest way. Costs differ by direction, a little."""
    chance = Random(seed)
    nodes = range(12)
    cost: dict[tuple[int, int], int] = {}
    for a in nodes:
        for b in range(a):
            if chance.random() < 0.4 or b == a - 1:
                both = chance.choice((96, 96, 150, 700))
                for pair in ((a, b), (b, a)):
                    cost[pair] = round(both * chance.uniform(1, 1.3))
    near = {b: NextHop(IPv6Address(f"fe80::{b + 1:x}"), f"re6stnet{b}") for b in nodes if (0, b) in cost}
    slots = {hop.interface: 1 + number % 2 for number, hop in enumerate(near.values())}
    owners = {hop: node for node, hop in near.items()}
    checked = 0
    for target in range(1, 12):
        distance = dict.fromkeys(nodes, 10**6) | {target: 0}
        for _ in nodes:
            for (a, b), value in cost.items():
                distance[a] = min(distance[a], distance[b] + value)
        best = {a: min((b for b in nodes if (a, b) in cost), key=lambda b: distance[b] + cost[a, b]) for a in nodes}
        made = Table()
        subnets = {node: IPv6Network(f"2001:db8:42:{node:x}::/64") for node in nodes}
        for node, hop in near.items():
            made.neighbours[str(node)] = Neighbour(
                str(node), hop.address, hop.interface, 0xFFFF, 96, 96, cost[0, node], None
            )
            for of, refmetric in ((target, distance[node]), (node, 0)):
                used = best[0] == node if of == target else True
                made.routes[f"{node} {of}"] = Route(
                    f"{node} {of}", subnets[of], ANYWHERE, used, refmetric + cost[0, node], refmetric, hop
                )
        costs = {hop: cost[0, node] for node, hop in near.items()}
        for found in line_ways(made, NETWORK, slots, frozenset(), costs, {}).values():
            if (by := found.get(subnets[target])) is not None:
                here, steps = owners[by], 0
                while here != target:
                    here, steps = best[here], steps + 1
                    assert here != 0, f"target {target} by {owners[by]}"
                    assert steps < 12
                checked += 1
    assert checked
