"""What a large simulated network is like: who reaches whom, by how many hops, and how long that takes."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from random import Random

from re6st.core.prefix import Prefix
from re6st.sim import places
from re6st.sim.fabric import Region, RegionPart
from re6st.sim.hosts import Host
from re6st.sim.world import World

ROUTE_BYTES = 30.0
"""Of babel's updates for each route, measured on links with 5,000 and 10,000 routes (docs/performance.md)."""


@dataclass(frozen=True)
class Shape:
    """Of the ways between pairs of nodes."""

    hops: float
    hops_most: int
    stretch: float
    """The mean over the pairs of how many times the round trip of the direct way theirs is."""
    stretch_of_sums: float
    """All their round trips over all those of the direct ways: what is long counts more."""
    routes: float
    routes_most: int
    links: float
    """Tunnels at a node, in both directions."""


def reached(world: World) -> float:
    """The part of all pairs of running nodes of which one can send to the other."""
    parts: defaultdict[int, list[tuple[RegionPart, Region]]] = defaultdict(list)
    total = 0
    for region in world.regions.values():
        for part in region.parts:
            parts[id(part.regions)].append((part, region))
            total += len(part.members)
    pairs = 0.0
    for group in parts.values():
        nodes = sum(len(part.members) for part, _ in group)
        crossings: Counter[Prefix] = Counter(region.prefix for _, region in group)
        for part, region in group:
            size = len(part.members)
            # Packets from outside take the nearest part: any of them.
            pairs += (
                size * size
                + (nodes - sum(len(p.members) for p, r in group if r is region)) * size / crossings[region.prefix]
            )
    return pairs / (total * total) if total else 1.0


def is_whole(world: World) -> bool:
    """Whether every running node reaches every other one."""
    found = [part for region in world.regions.values() for part in region.parts]
    return all(len(region.parts) <= 1 for region in world.regions.values()) and (
        len({id(part.regions) for part in found}) == 1
    )


def shape(world: World, rng: Random, targets: int, sources: int) -> Shape:
    """Of pairs: so many nodes that are sent to, from so many others each."""
    running = world.running()
    hops: list[int] = []
    stretches: list[float] = []
    trips, direct = 0.0, 0.0
    for target in rng.sample(running, min(targets, len(running))):
        inside = _tree(target, within=target.region)
        members = [machine for prefix in target.region.nodes if prefix and (machine := world.by_prefix[prefix])]
        outside = _tree(*members, within=None)
        for source in rng.sample(running, min(sources, len(running))):
            if source is target:
                continue
            way = _way(source, target, inside, outside)
            if way is None:
                continue
            straight = places.round_trip(source.place, target.place)
            trip = sum(places.round_trip(one.place, other.place) for one, other in pairwise(way))
            hops.append(len(way) - 1)
            stretches.append(trip / straight)
            trips, direct = trips + trip, direct + straight
    routes = [len(part.seen) - 1 for machine in running if (part := machine.region.part_of[machine.slot])]
    return Shape(
        hops=statistics.mean(hops) if hops else 0.0,
        hops_most=max(hops, default=0),
        stretch=statistics.mean(stretches) if stretches else 0.0,
        stretch_of_sums=trips / direct if direct else 0.0,
        routes=statistics.mean(routes) if routes else 0.0,
        routes_most=max(routes, default=0),
        links=statistics.mean(sum(link.routes for link in machine.links) for machine in running),
    )


Tree = dict[Host, Host]
"""The next hop of each node towards what the tree was made for."""


def _tree(*ends: Host, within: Region | None) -> Tree:
    """The cheapest ways to any of the ends, by babel's costs; inside a region only, or over all links."""
    next_hops: Tree = {}
    pending: list[tuple[int, int, Host, Host]] = [(0, index, end, end) for index, end in enumerate(ends)]
    order = len(pending)
    while pending:
        cost, _, machine, following = heappop(pending)
        if machine in next_hops:
            continue
        next_hops[machine] = following
        for link in machine.links:
            other = link.other_end(machine)
            if link.routes and other not in next_hops and (within is None or other.region is within):
                order += 1
                heappush(pending, (cost + link.cost, order, other, machine))
    return next_hops


def _way(source: Host, target: Host, inside: Tree, outside: Tree) -> list[Host] | None:
    """All nodes on the way: to whoever is nearest in the region of the target, and on within it."""
    way = [source]
    while way[-1].region is not target.region:
        if way[-1] not in outside:
            return None
        way.append(outside[way[-1]])
    while way[-1] is not target:
        if way[-1] not in inside:
            return None
        way.append(inside[way[-1]])
    return way


def control_traffic(routes: float, links: float, update: float) -> float:
    """Bytes a second that babel sends at a node to repeat its routes on each of its links, so often."""
    return routes * ROUTE_BYTES * links / update
