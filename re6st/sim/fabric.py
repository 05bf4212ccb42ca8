"""The ways of a large simulated network of regions: who reaches whom, and what it costs, by an ideal router.

Each region has the costs of the links between its own nodes as a matrix. A node knows the nodes of its region that
links within the region lead to, its *part* of the region: mostly all. It knows other regions that any links lead to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from functools import cached_property
from itertools import count

import numpy as np
from numpy.typing import NDArray

from re6st.core.prefix import Prefix
from re6st.core.routing.survey import LinkUse
from re6st.sim.router import Others, Undisturbed

Costs = NDArray[np.float32]
NO_WAY = np.float32(np.inf)
_numbers = count()


class RegionPart:
    """Nodes of a region that reach each other within it, and the regions that they reach."""

    __slots__ = ("members", "number", "regions", "seen", "split")

    def __init__(self, members: frozenset[Prefix]) -> None:
        self.members = members
        self.regions: frozenset[Prefix] = frozenset()
        """All that are reached: one object for all parts that reach each other."""
        self.seen: frozenset[Prefix] = members
        """All that is reached: what its nodes have routes to, themselves included."""
        self.split = False
        """Whether another part of the region is reached through other regions."""
        self.number = next(_numbers)


class Region:
    """The nodes of one region, by their place in it, and the links between them that carry routes."""

    def __init__(self, prefix: Prefix, size: int) -> None:
        self.prefix = prefix
        self.nodes: list[Prefix | None] = [None] * size
        """Those that run."""
        self.costs: Costs = np.full((size, size), NO_WAY, dtype=np.float32)
        self.near: list[dict[int, int]] = [{} for _ in range(size)]
        """For each of them its neighbours in the region, with the number of links to each."""
        self.parts: list[RegionPart] = []
        self.part_of: list[RegionPart | None] = [None] * size
        self.version = 0
        self.told = float("-inf")
        """When its nodes were told last who is in it."""
        self._hops: tuple[int, NDArray[np.int8]] | None = None

    def link(self, one: int, other: int, cost: float) -> None:
        """A link between two of them carries routes from now on."""
        for a, b in ((one, other), (other, one)):
            self.near[a][b] = self.near[a].get(b, 0) + 1
            self.costs[a, b] = cost
        self.version += 1

    def unlink(self, one: int, other: int) -> None:
        """It does no more."""
        for a, b in ((one, other), (other, one)):
            self.near[a][b] -= 1
            if not self.near[a][b]:
                del self.near[a][b]
                self.costs[a, b] = NO_WAY
        self.version += 1

    def find_parts(self) -> None:
        """Work out the parts anew; those that are as they were are kept."""
        before = {part.members: part for part in self.parts}
        self.parts, part_of = [], list[RegionPart | None]([None] * len(self.nodes))
        for start, node in enumerate(self.nodes):
            if node is None or part_of[start] is not None:
                continue
            found, pending = {start}, [start]
            while pending:
                for other in self.near[pending.pop()]:
                    if other not in found:
                        found.add(other)
                        pending.append(other)
            members = frozenset(member for index in found if (member := self.nodes[index]) is not None)
            part = before.get(members) or RegionPart(members)
            self.parts.append(part)
            for index in found:
                part_of[index] = part
        self.part_of = part_of

    def metrics(self, own: int) -> dict[Prefix, int]:
        """The cost of the cheapest way from one of them to each other that it reaches within the region."""
        costs = self.costs[own].copy()
        costs[own] = 0
        rows = np.flatnonzero(np.isfinite(costs))
        while rows.size:
            better = (costs[rows, None] + self.costs[rows]).min(axis=0)
            rows = np.flatnonzero(better < costs)
            costs[rows] = better[rows]
        return {
            node: int(cost)
            for node, cost in zip(self.nodes, costs.tolist(), strict=True)
            if node is not None and cost < NO_WAY
        }

    def hops(self) -> NDArray[np.int8]:
        """The least number of links between any two of them; -1 where there is no way. Kept until a link changes."""
        if self._hops is not None and self._hops[0] == self.version:
            return self._hops[1]
        linked = np.isfinite(self.costs).astype(np.float32)
        hops = np.full(linked.shape, -1, dtype=np.int8)
        np.fill_diagonal(hops, 0)
        ball = np.eye(len(linked), dtype=np.float32)
        for distance in range(1, 100):
            ball = ((ball @ linked + ball) > 0).astype(np.float32)
            new = (ball > 0) & (hops < 0)
            if not new.any():
                break
            hops[new] = distance
        self._hops = self.version, hops
        return hops


class RegionSurvey(Undisturbed):
    """What a node sees in a network of regions, as `Survey` says it. What few ask for is worked out when they ask.

    Losses are not modelled, so nothing is said of the links with neighbours but that they are there.
    """

    def __init__(
        self,
        own: Prefix,
        region: Region,
        place: int,
        part: RegionPart,
        links: Mapping[str, tuple[Prefix, int]],
        places: Mapping[Prefix, int],
    ) -> None:
        """`links` are the interfaces that carry routes, with who is behind each, by region where it is another one, and
        babel's cost; `places` where the nodes of the region are in it.
        """
        self.peers: Set[Prefix] = Others(part.seen, own)
        self.split = part.split
        self._own = own
        self._region = region
        self._place = place
        self._links = links
        self._places = places

    @cached_property
    def alive(self) -> frozenset[str]:
        return frozenset(self._links)

    @cached_property
    def costs(self) -> Mapping[str, int]:
        return {interface: cost for interface, (_, cost) in self._links.items() if cost}

    @cached_property
    def neighbours(self) -> Mapping[Prefix, tuple[LinkUse, ...]]:
        return {peer: () for peer, _ in self._links.values()}

    @cached_property
    def metrics(self) -> Mapping[Prefix, int]:
        return self._region.metrics(self._place)

    def carried(self, peer: Prefix, besides: Set[str] = frozenset()) -> frozenset[Prefix]:
        found = (self.carried_by(name) for name, (each, _) in self._links.items() if each == peer)
        return frozenset().union(*found)

    def carried_by(self, interface: str) -> frozenset[Prefix]:
        return frozenset().union(*(self._use(interface)))

    def sole_by(self, interface: str) -> frozenset[Prefix]:
        return self._use(interface)[1]

    def _use(self, interface: str) -> tuple[frozenset[Prefix], frozenset[Prefix]]:
        """What a link carries besides what only it leads to, and the latter; by the number of hops, within the region.

        Of other regions it carries the one that it leads to.
        """
        if interface not in self._links:
            return frozenset(), frozenset()
        peer, _ = self._links[interface]
        if peer not in self._places:
            other_way = len(self.peers) > 1 and len(self._links) > 1
            return (frozenset({peer}), frozenset()) if other_way else (frozenset(), frozenset({peer}))
        hops = self._region.hops()
        mine = hops[self._place]
        neighbours = sorted({self._places[each] for each, _ in self._links.values() if each in self._places})
        near = hops[neighbours]
        # Another neighbour is a way of its own if it is no farther from the destination than we are.
        leads = (near >= 0) & (near <= mine)
        first = np.argmax((near >= 0) & (near == mine - 1), axis=0)
        index = neighbours.index(self._places[peer])
        taken = (mine > 0) & (first == index) & (near[index] == mine - 1)
        alone = taken & (leads.sum(axis=0) == 1)
        return self._named(taken & ~alone), self._named(alone)

    def _named(self, mask: NDArray[np.bool_]) -> frozenset[Prefix]:
        return frozenset(node for place in np.flatnonzero(mask) if (node := self._region.nodes[place]) is not None)


def global_parts(regions: list[Region], across: Iterable[tuple[RegionPart, RegionPart]]) -> None:
    """Say of each part of each region which other regions it reaches, by the links between parts of two regions."""
    above: dict[RegionPart, RegionPart] = {}

    def top(part: RegionPart) -> RegionPart:
        while (higher := above.get(part)) is not None:
            if (next_one := above.get(higher)) is not None:
                above[part] = next_one
            part = higher
        return part

    for one, other in across:
        a, b = top(one), top(other)
        if a is not b:
            above[a] = b
    reached: dict[RegionPart, set[Prefix]] = {}
    for region in regions:
        for part in region.parts:
            reached.setdefault(top(part), set()).add(region.prefix)
    shared = {part: frozenset(prefixes) for part, prefixes in reached.items()}
    for region in regions:
        tops = [top(part) for part in region.parts]
        for part, above_all in zip(region.parts, tops, strict=True):
            part.split = tops.count(above_all) > 1
            others, before = shared[above_all], part.regions
            part.regions = others  # the same object for all that reach each other
            if others != before:
                part.seen = part.members | (others - {region.prefix})
