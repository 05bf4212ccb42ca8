"""Ways around links that are dead, until babel has found them itself (liveness.py; RFC 5286 has the like).

Babel knows of other ways, and does not take them before it misses some hellos. Meanwhile each destination behind a dead
link gets a route by another neighbour. It must not lead back to us, nor round in a circle where several nodes do this
at one time: so that neighbour has to be nearer to the destination than we are.

The neighbour at the other end of the dead link itself is one hop away, and nobody is nearer. The way to it may lead by
any neighbour whose own way there is not by us. Where not the link but the neighbour died, packets would go round among
those that miss it: such a detour is for a moment, within which the neighbour has to be heard by it (`Detour.unproved`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from re6st.core.routing.babel_lines import INFINITY, NextHop, Route, Route4, Table

LIMIT = 20_000
"""Destinations that are led around at one time."""

Way = tuple[IPv4Network | IPv6Network, IPv6Network]
"""Where a route leads to, and for packets from where; of IPv4 from anywhere."""
ANYWHERE = IPv6Network("::/0")


@dataclass(frozen=True, slots=True)
class Detour:
    """A destination that was reached by `instead_of`, which is dead, is reached `by` another neighbour."""

    by: NextHop
    instead_of: NextHop
    unproved: bool = False
    """It leads to the neighbour at the other end of the dead link, which may be dead itself."""


def detours(
    table: Table, dead: Set[NextHop], doubtful: Set[NextHop], costs: Mapping[NextHop, int], held: Mapping[Way, Detour]
) -> dict[Way, Detour]:
    """All that there are to be now.

    `doubtful` are neighbours that none may lead by. `costs` are babel's of the links, as they were while those were
    alive: since then they may have grown, and with them our distance of all behind. Those `held` stay as long as babel
    has no other way, and the one that they lead by is there.
    """
    if not dead:
        return {}
    ways: defaultdict[Way, list[Route | Route4]] = defaultdict(list)
    used: dict[Way, Route | Route4] = {}
    known: list[Route | Route4] = [*table.routes.values(), *table.ipv4_routes.values()]
    for route in known:
        way = way_of(route)
        if route.usable:
            used[way] = route
        ways[way].append(route)
    found: dict[Way, Detour] = {}
    for way, routes in ways.items():
        now, before = used.get(way), held.get(way)
        if now is None:
            if before is not None and before.instead_of in dead and _stands(before, routes, doubtful):
                found[way] = before
        elif now.via in dead and len(found) < LIMIT:
            if before is not None and before.instead_of == now.via and _stands(before, routes, doubtful):
                found[way] = before
            elif (detour := _around(now, routes, doubtful, costs)) is not None:
                found[way] = detour
    return found


def way_of(route: Route | Route4) -> Way:
    return route.destination, route.source if isinstance(route, Route) else ANYWHERE


def _stands(detour: Detour, routes: list[Route | Route4], doubtful: Set[NextHop]) -> bool:
    return detour.by not in doubtful and any(each.via == detour.by and each.metric < INFINITY for each in routes)


def _around(
    route: Route | Route4, routes: list[Route | Route4], doubtful: Set[NextHop], costs: Mapping[NextHop, int]
) -> Detour | None:
    """The best other way, if there is one that is sure to lead there."""
    distance = route.refmetric + costs.get(route.via, 0)
    near = route.refmetric == 0
    others = [
        other
        for other in routes
        if other.via not in doubtful
        and other.metric < INFINITY
        and other.refmetric < distance + (costs.get(other.via, 0) if near else 0)
    ]
    best = min(others, key=lambda other: (other.metric, other.via.interface, int(other.via.address)), default=None)
    return None if best is None else Detour(best.via, route.via, unproved=near)
