"""Ways around links that are dead, until babel has found them itself (liveness.py; RFC 5286 has the like).

Babel knows of other ways, and does not take them before it misses some hellos. Meanwhile each destination behind a dead
link gets a route by another neighbour. It must not lead back to us, nor round in a circle where several nodes do this
at one time: so that neighbour has to be nearer to the destination than we are. Along any such ways the distance falls
with each step, and so none leads to where it was before (the condition of RFC 8966 section 3.5.1). What neighbours know
of us may be old, as babeld tells of small changes late: our distance counts as the lowest that it was lately.

The neighbour at the other end of the dead link itself is one hop away, and nobody is nearer. The way to it may lead by
any neighbour whose own way there is not by us: then it is shorter than one by us would be, by half at least of the way
between us, as costs are not the same both ways. (babeld tells us also of ways that lead through ourselves.) Where none
is sure, as costs differ with the round-trip times, the best one is tried. Where not the link but the neighbour died,
packets would go round among those that miss it: such a detour is for packets of our own, until the neighbour is heard
by it (`Detour.unproved`, noded/dead_links.py). Those that came back to us would be dropped, as packets with our
address that come from outside; where they are not, no way is tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from re6st.core.routing.babel_lines import INFINITY, NextHop, Route, Route4, Table

LIMIT = 10_000
"""Destinations that are led around at one time: the kernel takes them in a tenth of a second. Others wait for babel."""
LATELY = 60.0
"""Seconds that costs count for at least: an update of babel's may get lost, and the next one comes so much later."""
AWAY = 2
"""The way from a neighbour back to us costs this part at least of ours to it."""

Way = tuple[IPv4Network | IPv6Network, IPv6Network]
"""Where a route leads to, and for packets from where; of IPv4 from anywhere."""
ANYWHERE = IPv6Network("::/0")
NOWHERE = IPv6Network("::/128")
"""The source of packets of this machine for which none was chosen yet, as those that open a connection."""
HALVES = tuple(ANYWHERE.subnets())
"""Anywhere, for the kernel: where it has a route for packets of some sources, it does not look at one for all."""
_Key = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Detour:
    """A destination that was reached by `instead_of`, which is dead, is reached `by` another neighbour."""

    by: NextHop
    instead_of: NextHop
    unproved: bool = False
    """It leads to the neighbour at the other end of the dead link, which may be dead itself."""

    @property
    def leads_around(self) -> bool:
        """False: it is the way by the dead link (`for_packets_of`)."""
        return self.by != self.instead_of


def for_packets_of(way: Way, sources: IPv6Network, detour: Detour) -> dict[Way, Detour]:
    """The routes for a detour that is for packets of these sources alone, which are ours; all others go as they did."""
    found = {(way[0], sources): detour}
    if way[1] == ANYWHERE:
        found[way[0], NOWHERE] = detour
        found |= {(way[0], half): Detour(detour.instead_of, detour.instead_of) for half in HALVES}
    return found


class LowestCosts:
    """The lowest cost of each link lately."""

    def __init__(self) -> None:
        self._before: dict[NextHop, int] = {}
        self._since: dict[NextHop, int] = {}
        self._turned = float("-inf")

    def note(self, costs: Mapping[NextHop, int], now: float) -> dict[NextHop, int]:
        """Take in those of now; links that are not named are forgotten. Returns the lowest ones."""
        if now - self._turned >= LATELY:
            self._before, self._since, self._turned = self._since, {}, now
        self._before = {hop: cost for hop, cost in self._before.items() if hop in costs}
        self._since = {hop: min(cost, self._since.get(hop, cost)) for hop, cost in costs.items()}
        return {hop: min(cost, self._before.get(hop, cost)) for hop, cost in self._since.items()}


def detours(
    table: Table,
    dead: Set[NextHop],
    doubtful: Set[NextHop],
    costs: Mapping[NextHop, int],
    held: Mapping[Way, Detour],
    *,
    trying: bool = False,
    vain: Mapping[NextHop, Set[NextHop]] | None = None,
) -> dict[Way, Detour]:
    """All that there are to be now.

    `doubtful` are neighbours that none may lead by. `costs` are babel's of the links, the lowest ones lately: as a link
    dies its cost grows, and with it our distance of all behind. Those `held` stay as long as babel has no other way,
    and the one that they lead by is there. `trying`: also ways to the neighbour itself that are not sure. `vain`: by
    dead link, neighbours by whom that one was not heard: another is tried, as long as there is one.
    """
    if not dead:
        return {}
    held_by_key = {_key(way): detour for way, detour in held.items()}
    used = dict(_used(table, dead, held_by_key.keys()))
    wanted = {key for key, route in used.items() if route.via in dead} | held_by_key.keys()
    if not wanted:  # as where a link is avoided, and babel has left it
        return {}
    ways: defaultdict[_Key, list[Route | Route4]] = defaultdict(list)
    owners: defaultdict[_Key, list[NextHop]] = defaultdict(list)
    for route in _known(table):
        if not route.refmetric:
            owners[_key(way_of(route))].append(route.via)
    away = dict(costs)
    for route in _known(table):
        key = _key(way_of(route))
        if key in wanted:
            ways[key].append(route)
        if route.usable:
            for owner in owners.get(key, ()):
                away[owner] = min(away.get(owner, 0), route.metric)
    found: dict[Way, Detour] = {}
    for key, routes in ways.items():
        way, now, before = way_of(routes[0]), used.get(key), held_by_key.get(key)
        if now is None:
            if before is not None and before.instead_of in dead and _stands(before, routes, doubtful):
                found[way] = before
        elif now.via in dead and len(found) < LIMIT:
            near, tried = now.refmetric == 0, (vain or {}).get(now.via, frozenset[NextHop]())
            goes_on = before is not None and not (before.unproved and before.by in tried)
            if before is not None and goes_on and before.instead_of == now.via and _stands(before, routes, doubtful):
                found[way] = before
            elif others := [each for each in routes if each.via not in doubtful and each.metric < INFINITY]:
                sure, unsure = _sure(now, others, costs, away), others if near and trying else []
                if ways_on := _but(sure, tried) or _but(unsure, tried) or sure or unsure:
                    found[way] = Detour(_best(ways_on), now.via, unproved=near)
    return found


def _but(ways: list[Route | Route4], tried: Set[NextHop]) -> list[Route | Route4]:
    return [way for way in ways if way.via not in tried]


def _known(table: Table) -> list[Route | Route4]:
    return [*table.routes.values(), *table.ipv4_routes.values()]


def _used(table: Table, dead: Set[NextHop], held: Set[_Key]) -> Iterator[tuple[_Key, Route | Route4]]:
    """Babel's routes by dead links, and those to what is led around. Others are passed over quickly: there are many."""
    interfaces = {hop.interface for hop in dead}
    for route in _known(table):
        if route.usable and (held or route.via.interface in interfaces):
            key = _key(way_of(route))
            if key in held or route.via in dead:
                yield key, route


def _key(way: Way) -> _Key:
    """The same as the way, for a table: networks take long to be looked up."""
    destination, source = way
    version, length = destination.version, destination.prefixlen
    return version, int(destination.network_address), length, int(source.network_address), source.prefixlen


def way_of(route: Route | Route4) -> Way:
    return route.destination, route.source if isinstance(route, Route) else ANYWHERE


def _stands(detour: Detour, routes: list[Route | Route4], doubtful: Set[NextHop]) -> bool:
    return detour.by not in doubtful and any(each.via == detour.by and each.metric < INFINITY for each in routes)


def _sure(
    route: Route | Route4, others: list[Route | Route4], costs: Mapping[NextHop, int], away: Mapping[NextHop, int]
) -> list[Route | Route4]:
    """Other ways that are sure not to lead back to us. `away` is how far neighbours are from us."""
    distance = route.refmetric + costs.get(route.via, 0)
    near = route.refmetric == 0
    return [other for other in others if other.refmetric < distance + (away.get(other.via, 0) / AWAY if near else 0)]


def _best(ways: list[Route | Route4]) -> NextHop:
    return min(ways, key=lambda way: (way.metric, way.via.interface, int(way.via.address))).via
