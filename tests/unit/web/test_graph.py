"""What a graph falls apart without, and where its vertices are drawn."""

from __future__ import annotations

import math
from itertools import combinations
from random import Random

import pytest

from re6st.web.graph import cuts, distances, rings, undirected

Edges = list[tuple[int, int]]


def parts(vertices: set[int], edges: Edges) -> int:
    """In how many parts a graph is, found by the simplest means."""
    left, count = set(vertices), 0
    while left:
        count += 1
        pending = [left.pop()]
        while pending:
            vertex = pending.pop()
            near = {b for a, b in edges if a == vertex} | {a for a, b in edges if b == vertex}
            pending += near & left
            left -= near
    return count


@pytest.mark.parametrize("seed", range(40))
def test_cuts_are_what_the_graph_falls_apart_without(seed: int) -> None:
    random = Random(seed)
    vertices = set(range(random.randrange(1, 14)))
    pairs = list(combinations(sorted(vertices), 2))
    edges = random.sample(pairs, random.randrange(0, min(len(pairs), 2 * len(vertices)) + 1))
    found = cuts(undirected(vertices, edges))
    whole = parts(vertices, edges)
    for vertex in vertices:
        rest = [edge for edge in edges if vertex not in edge]
        alone = not any(vertex in edge for edge in edges)
        assert (vertex in found.vertices) == (parts(vertices - {vertex}, rest) > whole - alone)
    for a, b in edges:
        falls_apart = parts(vertices, [edge for edge in edges if edge != (a, b)]) > whole
        assert ((a, b) in found.edges) == ((b, a) in found.edges) == falls_apart


def test_a_long_line_is_no_deep_recursion() -> None:
    graph = undirected(range(5000), [(n, n + 1) for n in range(4999)])
    assert len(cuts(graph).vertices) == 4998
    assert max(distances(graph, 0).values()) == 4999


def test_strangers_and_loops_are_left_out() -> None:
    assert undirected([1, 2], [(1, 2), (2, 1), (1, 1), (1, 3), (4, 5)]) == {1: [2], 2: [1]}


@pytest.mark.parametrize("edges", [[], [(0, 1)], [(0, 1), (1, 2), (0, 3)], [(n, n + 1) for n in range(7)]])
def test_every_vertex_has_a_place_of_its_own(edges: Edges) -> None:
    places = rings(undirected(range(9), edges), 0)
    assert places[0] == (0, 0)
    assert len({(round(x, 6), round(y, 6)) for x, y in places.values()}) == 9
    assert all(math.hypot(x, y) < 1.000001 for x, y in places.values())


def test_rings_are_steps() -> None:
    places = rings(undirected(range(4), [(0, 1), (1, 2), (0, 3)]), 0)
    assert [round(math.hypot(*places[vertex]), 3) for vertex in range(4)] == [0, 0.5, 1, 0.5]
