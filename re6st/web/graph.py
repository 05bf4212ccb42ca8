"""The graph of connections: which node or tunnel cuts it when it fails, and where to draw each node.

Vertices are of any type that can be sorted; edges have no direction. Everything takes time in proportion to the edges.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V", bound=Hashable)

Graph = Mapping[V, list[V]]
"""For each vertex, its neighbours, each once."""


@dataclass(frozen=True, slots=True)
class Cuts(Generic[V]):
    """What cuts the graph if it is missing: `vertices` (articulation points) and `edges` (bridges, both directions)."""

    vertices: frozenset[V]
    edges: frozenset[tuple[V, V]]


def undirected(vertices: Iterable[V], edges: Iterable[tuple[V, V]]) -> dict[V, list[V]]:
    """The graph of these edges, without loops, and without edges whose ends are not among the vertices."""
    neighbours: dict[V, dict[V, None]] = {vertex: {} for vertex in vertices}
    for a, b in edges:
        if a != b and a in neighbours and b in neighbours:
            neighbours[a][b] = neighbours[b][a] = None
    return {vertex: list(found) for vertex, found in neighbours.items()}


def cuts(graph: Graph[V]) -> Cuts[V]:
    """Articulation points and bridges, by Tarjan's search for the lowest vertex that is reached from below."""
    order: dict[V, int] = {}
    low: dict[V, int] = {}
    vertices: set[V] = set()
    edges: set[tuple[V, V]] = set()
    for root in graph:
        if root in order:
            continue
        order[root] = low[root] = len(order)
        children = 0
        stack = [(root, root, iter(graph[root]))]
        while stack:
            vertex, parent, rest = stack[-1]
            for other in rest:
                if other not in order:
                    order[other] = low[other] = len(order)
                    children += vertex == root
                    stack.append((other, vertex, iter(graph[other])))
                    break
                if other != parent:
                    low[vertex] = min(low[vertex], order[other])
            else:
                stack.pop()
                if vertex == root:
                    continue
                low[parent] = min(low[parent], low[vertex])
                if low[vertex] > order[parent]:
                    edges |= {(parent, vertex), (vertex, parent)}
                if parent != root and low[vertex] >= order[parent]:
                    vertices.add(parent)
        if children > 1:
            vertices.add(root)
    return Cuts(frozenset(vertices), frozenset(edges))


def distances(graph: Graph[V], root: V) -> dict[V, int]:
    """In how many steps each vertex is reached from `root`; vertices that cannot be reached are left out."""
    found = {root: 0}
    queue = deque([root])
    while queue:
        vertex = queue.popleft()
        for other in graph[vertex]:
            if other not in found:
                found[other] = found[vertex] + 1
                queue.append(other)
    return found


def rings(graph: Graph[V], root: V) -> dict[V, tuple[float, float]]:
    """Where to draw the vertices, in a circle of radius 1: `root` in the middle, on each ring the vertices that are one
    step farther, beside those through which they are reached; on the outermost ring those that cannot be reached.
    """
    steps = distances(graph, root)
    last = max(steps.values())
    lost = [vertex for vertex in graph if vertex not in steps]
    by_ring: list[list[V]] = [[] for _ in range(last + 1 + bool(lost))]
    for vertex, step in steps.items():
        by_ring[step].append(vertex)
    if lost:
        by_ring[-1] = lost
    places = {root: (0.0, 0.0)}
    angles = {root: 0.0}
    for number, ring in enumerate(by_ring[1:], 1):
        radius = number / (len(by_ring) - 1)
        wanted = {
            vertex: _mean_angle([angles[each] for each in graph[vertex] if steps.get(each) == number - 1])
            for vertex in ring
        }
        for index, vertex in enumerate(sorted(ring, key=wanted.__getitem__)):
            angle = 2 * math.pi * index / len(ring)
            angles[vertex] = angle
            places[vertex] = radius * math.cos(angle), radius * math.sin(angle)
    return places


def _mean_angle(angles: list[float]) -> float:
    """The middle direction of some directions, from 0 to 2 pi."""
    x, y = sum(map(math.cos, angles)), sum(map(math.sin, angles))
    return math.atan2(y, x) % (2 * math.pi)
