"""By which neighbour each destination is reached over each of this machine's lines.

Babel has one way to each destination. Where a machine has several lines, another neighbour, whose tunnel goes over
another line, may know a way as well. Only what comes from this node itself, or from its own subnet, takes such a way,
and at this node alone: all others, and this one for packets of others, go by babel. So no packet can go in a circle: it
leaves babel's way once, and babel's ways, of which it takes one from that neighbour on, have none. What remains to be
shown is that it does not come back here: then it would go by babel too, but the packet filter drops what comes back.

A way that leads back costs the neighbour at least what the way from it to us does, and ours from here. That is not the
case if the neighbour is nearer to the destination than we are (the condition of RFC 8966 section 3.5.1), nor if its way
is shorter than one by us would be (RFC 5286 section 3.1). Costs are not the same both ways, and babeld tells of small
changes late: so the way from a neighbour to us counts for half of ours to it, and all costs of ours are the lowest ones
lately. A way that is used stays until it is as long as one by us would be: costs move with round-trip times, and
connections would move with each change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from ipaddress import IPv6Network

from re6st.core.routing.babel_lines import DRAINED, NextHop, Route, Table
from re6st.core.routing.detours import AWAY

LIMIT = 10_000
"""Destinations for each line. The others go as babel says."""
BETTER = 0.8
"""Another neighbour on the same line takes the place of one that is used if its way costs less than so much of that."""
LATELY_HEARD = 0xC000
"""Bits of a history of hellos: the last two. Who was heard in neither is being drained, or dead."""

LineWays = Mapping[int, Mapping[IPv6Network, NextHop]]
"""By the line's slot."""


def line_ways(
    table: Table,
    network: IPv6Network,
    slots: Mapping[str, int],
    barred: Set[NextHop],
    costs: Mapping[NextHop, int],
    held: LineWays,
) -> dict[int, dict[IPv6Network, NextHop]]:
    """All ways over the lines whose tunnels are on the interfaces in `slots`.

    `barred` are neighbours that none may lead by, `costs` babel's of the links, the lowest ones lately, and `held` what
    was found before.
    """
    barred = barred | silent(table)
    used: dict[IPv6Network, Route] = {}
    offered: defaultdict[IPv6Network, list[Route]] = defaultdict(list)
    owners: dict[NextHop, IPv6Network] = {}
    for route in table.routes.values():
        if route.source.prefixlen or not route.destination.subnet_of(network):
            continue
        if route.usable:
            used[route.destination] = route
        if not route.refmetric:
            owners.setdefault(route.via, route.destination)
        if route.via.interface in slots and route.metric < DRAINED and route.via not in barred:
            offered[route.destination].append(route)
    away = {hop: min(costs.get(hop, 0), _distance(used.get(of), costs)) for hop, of in owners.items()}
    found: dict[int, dict[IPv6Network, NextHop]] = {slot: {} for slot in sorted(set(slots.values()))}
    for destination, route in used.items():
        distance = _distance(route, costs)
        for slot, ways in found.items():
            if len(ways) >= LIMIT:
                continue
            before = held.get(slot, {}).get(destination)
            sure = [
                other
                for other in offered.get(destination, ())
                if slots[other.via.interface] == slot
                and (other is route or other.refmetric < distance + _back(other.via, away, before))
            ]
            if sure:
                ways[destination] = _choose(sure, before)
    return found


def silent(table: Table) -> frozenset[NextHop]:
    """Neighbours of whom no hello came lately: their links are drained, or dead."""
    return frozenset(each.key for each in table.neighbours.values() if not each.reach & LATELY_HEARD)


def _distance(route: Route | None, costs: Mapping[NextHop, int]) -> int:
    """Of a destination from us, as low as it was lately; none where there is no route."""
    return 0 if route is None else route.refmetric + costs.get(route.via, 0)


def _back(hop: NextHop, away: Mapping[NextHop, int], before: NextHop | None) -> float:
    """How far it is from a neighbour to us at least."""
    return away.get(hop, 0) / (1 if hop == before else AWAY)


def _choose(ways: list[Route], before: NextHop | None) -> NextHop:
    best = min(ways, key=lambda way: (way.metric, way.via.interface, int(way.via.address)))
    now = next((way for way in ways if way.via == before), None)
    return best.via if now is None or best.metric < BETTER * now.metric else now.via
