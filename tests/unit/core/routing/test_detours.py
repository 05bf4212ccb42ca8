"""Destinations behind a dead link are led around it, and never in a circle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from random import Random

import pytest

from re6st.core.routing.babel_lines import INFINITY, NextHop, Route, Route4, Table
from re6st.core.routing.detours import ANYWHERE, LATELY, Detour, LowestCosts, Way, detours

A, B, C = (NextHop(IPv6Address(f"fe80::{name}"), f"re6stnet{name}") for name in (1, 2, 3))
THERE, NEAR = IPv6Network("2001:db8:1::/48"), IPv6Network("2001:db8:2::/48")
COSTS = {A: 96, B: 96, C: 96}


def table(*routes: tuple[IPv6Network | IPv4Network, NextHop, int, bool]) -> Table:
    """Destination, next hop, refmetric, and whether it is the one in use."""
    made = Table()
    for number, (destination, via, refmetric, used) in enumerate(routes):
        ident, metric = str(number), INFINITY if refmetric >= INFINITY else refmetric + 96
        if isinstance(destination, IPv6Network):
            made.routes[ident] = Route(ident, destination, ANYWHERE, used, metric, refmetric, via)
        else:
            made.ipv4_routes[ident] = Route4(ident, destination, used, metric, refmetric, via)
    return made


def around(
    known: Table, dead: set[NextHop], held: dict[Way, Detour] | None = None, doubtful: set[NextHop] | None = None
) -> dict[Way, Detour]:
    return detours(known, dead, dead | (doubtful or set()), COSTS, held or {})


def shortest(
    cost: Mapping[tuple[int, int], int], nodes: Iterable[int], target: int
) -> tuple[dict[int, int], dict[int, list[int]], dict[int, int]]:
    """Each node's distance to the target, its neighbours, and the one by which babel leads there."""
    distance = dict.fromkeys(nodes, INFINITY) | {target: 0}
    for _ in nodes:
        for (a, b), value in cost.items():
            distance[a] = min(distance[a], distance[b] + value)
    ways = {a: [b for b in nodes if (a, b) in cost] for a in nodes}
    best = {a: min(ways[a], key=lambda b: distance[b] + cost[a, b]) for a in nodes if a != target}
    return distance, ways, best


def test_what_is_behind_a_dead_link_goes_by_a_neighbour_that_is_nearer() -> None:
    known = table((THERE, A, 96, True), (THERE, B, 96, False), (NEAR, B, 0, True))
    assert around(known, {A}) == {(THERE, ANYWHERE): Detour(B, A)}
    assert around(known, set()) == {}


def test_a_neighbour_that_is_as_far_as_we_are_is_not_taken() -> None:
    assert around(table((THERE, A, 96, True), (THERE, B, 192, False)), {A}) == {}


def test_the_distance_is_that_of_the_time_before_the_link_died() -> None:
    known = table((THERE, A, 96, True), (THERE, B, 288, False))
    known.routes["0"] = Route("0", THERE, ANYWHERE, True, 96 + 768, 96, A)
    assert around(known, {A}) == {}


def test_the_neighbour_itself_is_reached_by_whoever_has_a_way_that_is_not_by_us() -> None:
    known = table((NEAR, A, 0, True), (NEAR, B, 96, False))
    assert around(known, {A}) == {(NEAR, ANYWHERE): Detour(B, A, unproved=True)}
    assert around(table((NEAR, A, 0, True), (NEAR, B, 192, False)), {A}) == {}


@pytest.mark.parametrize("back", [96, 90, 60])
def test_a_way_that_leads_back_to_us_is_not_taken_although_it_costs_less_that_way_round(back: int) -> None:
    """babeld tells us of it, and each end measures the cost of a link by itself."""
    assert around(table((NEAR, A, 0, True), (NEAR, B, 96 + back, False)), {A}) == {}


def test_nor_one_that_leads_back_to_us_by_a_third_node() -> None:
    """From B to us by C is shorter than the link between B and us."""
    known = table((NEAR, A, 0, True), (NEAR, B, 96 + 100, False), (THERE, B, 0, False), (THERE, C, 50, True))
    costs = {A: 96, B: 300, C: 50}
    assert detours(known, {A}, {A}, costs, {}) == {}


def test_where_no_way_to_the_neighbour_is_sure_the_best_one_is_tried() -> None:
    """As between three nodes far from each other, of which two are near: the cost grows with the round trip."""
    known = table((NEAR, A, 0, True), (NEAR, B, 500, False), (NEAR, C, 400, False), (THERE, A, 96, True))
    known.routes["4"] = Route("4", THERE, ANYWHERE, False, 596, 500, C)
    assert around(known, {A}) == {}
    found = detours(known, {A}, {A}, COSTS, {}, trying=True)
    assert found == {(NEAR, ANYWHERE): Detour(C, A, unproved=True)}, "farther nodes only where it is sure"
    known.routes["5"] = Route("5", NEAR, ANYWHERE, False, 900, 100, B)
    assert detours(known, {A}, {A}, COSTS, {}, trying=True)[NEAR, ANYWHERE].by == B, "one that is sure comes first"
    assert detours(known, {A}, {A, B, C}, COSTS, {}, trying=True) == {}


def test_the_lowest_cost_of_a_link_counts_for_a_minute() -> None:
    """What neighbours know of us may be as old."""
    lowest = LowestCosts()
    assert lowest.note({A: 100, B: 96}, 0) == {A: 100, B: 96}
    assert lowest.note({A: 90}, 30) == {A: 90}
    assert lowest.note({A: 700}, LATELY) == {A: 90}
    assert lowest.note({A: 600}, LATELY + 29) == {A: 90}
    assert lowest.note({A: 650}, 2 * LATELY) == {A: 600}
    assert lowest.note({A: 650}, 3 * LATELY) == {A: 650}
    assert lowest.note({}, 3 * LATELY + 1) == {}
    assert lowest.note({A: 700}, 3 * LATELY + 2) == {A: 700}


@pytest.mark.parametrize("trying", [False, True])
@pytest.mark.parametrize("seed", range(200))
def test_packets_to_a_node_that_died_do_not_go_round_among_those_that_miss_it(seed: int, trying: bool) -> None:
    """Each of its neighbours leads its own packets around at once, and nobody else's: none comes to a node twice.

    `trying`: but to the one that it is from, which drops it.
    Costs differ with the direction, and each node's announcements are known to all.
    """
    rng = Random(seed)
    nodes = range(10)
    cost: dict[tuple[int, int], int] = {}
    for a in nodes:
        for b in range(a):
            if b == a - 1 or rng.random() < 0.6:
                both = rng.choice((96, 110, 150, 250))
                cost[a, b], cost[b, a] = (round(both * rng.uniform(0.85, 1.15)) for _ in range(2))
    target = 0
    distance, ways, best = shortest(cost, nodes, target)
    hop = {a: NextHop(IPv6Address((0xFE80 << 112) + a + 1), f"re6stnet{a}") for a in nodes}
    around_it: dict[int, int] = {}
    for a in ways[target]:
        known = Table()
        for b in ways[a]:
            metric = distance[b] + cost[a, b]
            known.routes[str(b)] = Route(str(b), THERE, ANYWHERE, b == best[a], metric, distance[b], hop[b])
        costs = {hop[b]: cost[a, b] for b in ways[a]}
        found = detours(known, {hop[target]}, {hop[target]}, costs, {}, trying=trying)
        if found:
            assert found[THERE, ANYWHERE].unproved
            around_it[a] = next(b for b in nodes if hop[b] == found[THERE, ANYWHERE].by)
    for source in best:
        at, seen = source, {source}
        while (at := around_it.get(at, target) if at == source and best[at] == target else best[at]) != target:
            if trying and at == source:
                break
            assert at not in seen
            seen.add(at)


def test_no_detour_leads_by_a_link_that_is_being_asked_or_is_lost() -> None:
    known = table((THERE, A, 96, True), (THERE, B, 0, False), (THERE, C, INFINITY, False))
    assert around(known, {A}, doubtful={B}) == {}


def test_a_detour_stays_while_babel_looks_for_another_way_and_ends_when_it_has_one() -> None:
    held = around(table((THERE, A, 96, True), (THERE, B, 96, False)), {A})
    assert around(table((THERE, B, 96, False)), {A}, held) == held
    assert around(table((THERE, B, INFINITY, False)), {A}, held) == {}
    assert around(table((THERE, B, 96, False)), {A}, held, {B}) == {}
    assert around(table((THERE, B, 96, True)), {A}, held) == {}
    assert around(table((THERE, B, 96, False)), {C}, held) == {}


def test_payload_of_ipv4_is_led_around_too() -> None:
    there = IPv4Network("10.1.0.0/24")
    known = table((there, A, 96, True), (there, B, 96, False))
    assert around(known, {A}) == {(there, ANYWHERE): Detour(B, A)}


def test_neighbours_have_costs_that_are_looked_up() -> None:
    known = table((THERE, A, 96, True), (THERE, B, 120, False))
    assert detours(known, {A}, {A}, {A: 20, B: 96}, {}) == {}
    assert detours(known, {A}, {A}, {A: 30, B: 96}, {}) == {(THERE, ANYWHERE): Detour(B, A)}


@pytest.mark.parametrize("seed", range(200))
def test_detours_of_many_nodes_at_once_are_no_circle(seed: int) -> None:
    """A mesh by chance, of which several links die at once: each node leads around, by what it knows."""
    rng = Random(seed)
    nodes = range(12)
    cost = {
        (a, b): rng.choice((96, 96, 110, 150))
        for a in nodes
        for b in nodes
        if a < b and (b == a + 1 or rng.random() < 0.3)
    }
    cost |= {(b, a): value for (a, b), value in cost.items()}
    target = 0
    distance, ways, best = shortest(cost, nodes, target)
    died = {pair for pair in cost if target not in pair and rng.random() < 0.3}
    died |= {(b, a) for a, b in died}
    hop = {a: NextHop(IPv6Address((0xFE80 << 112) + a + 1), f"re6stnet{a}") for a in nodes}
    goes: dict[int, int] = {}
    for a in nodes:
        if a == target:
            continue
        known, costs = Table(), {}
        for b in ways[a]:
            costs[hop[b]] = cost[a, b]
            metric = distance[b] + cost[a, b]
            known.routes[str(b)] = Route(str(b), THERE, ANYWHERE, b == best[a], metric, distance[b], hop[b])
        gone = {hop[b] for b in ways[a] if (a, b) in died}
        found = detours(known, gone, gone, costs, {})
        by = found[THERE, ANYWHERE].by if found else hop[best[a]]
        goes[a] = next(b for b in nodes if hop[b] == by)
    for start in goes:
        at, seen = start, set[int]()
        while at != target:
            assert at not in seen
            seen.add(at)
            at = goes[at]
