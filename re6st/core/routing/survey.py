"""What babeld's table says about the mesh: who is reachable, who is next to us, what they carry (wire.md 10.3).

A neighbour is known by its own subnet: the owner of a destination announces it with the refmetric 0, so the next hop
*is* that node. Routes that are not installed also tell this, so we also recognise a neighbour whose own subnet is
better reached through another node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network
from typing import Protocol

from re6st.core.prefix import Prefix, prefix_of
from re6st.core.routing.babel_lines import DRAINED, INFINITY, NOMINAL, NextHop, Route, Table
from re6st.core.routing.lossy import is_patchy
from re6st.core.routing.regions import region_of

NONE: Mapping[str, NextHop] = {}
HEARD_OF_LATE, HEARD_BEFORE = 0xF000, 0x03FF
"""Bits of a history of hellos: one of the last four; one of the ten before the last six."""


@dataclass(frozen=True, slots=True)
class LinkUse:
    """The traffic through one neighbour: the destinations that it has `carried`, and those of them that may have no
    other route.

    Babel also hears of routes that lead back through ourselves (there is no split horizon on tunnels). A neighbour that
    is no farther from the destination than we are cannot be on such a route, so only these take a destination out of
    `sole`. A neighbour that is about to be lost does not count: somebody else may be draining its link.
    """

    hop: NextHop
    carried: frozenset[Prefix]
    sole: frozenset[Prefix]


class SurveyLike(Protocol):
    """The mesh as a node sees it at one moment: what the policy of the mesh asks for, and those who show it.

    A daemon reads it from babeld's table (`Survey`); a simulator works it out for many nodes at once, which share what
    they have in common (sim/router.py).
    """

    @property
    def peers(self) -> Set[Prefix]:
        """Every node that can be reached, except this one."""

    @property
    def metrics(self) -> Mapping[Prefix, int]:
        """Babel's metric of the way to each of them, as far as it is known."""

    @property
    def neighbours(self) -> Mapping[Prefix, tuple[LinkUse, ...]]:
        """The nodes next to this one, with the links to each."""

    @property
    def alive(self) -> frozenset[str]:
        """Interfaces with a babel neighbour that can be reached."""

    @property
    def costs(self) -> Mapping[str, int]:
        """Babel's cost of the link on each interface."""

    @property
    def losses(self) -> Mapping[str, float]:
        """The number of transmissions on each interface until a packet arrives (ETX)."""

    @property
    def unheard(self) -> frozenset[str]:
        """Interfaces with a neighbour that is heard and does not hear this node."""

    @property
    def patchy(self) -> frozenset[NextHop]:
        """Neighbours whose hellos are missed, now and again."""

    @property
    def starved(self) -> frozenset[Prefix]:
        """Destinations that neighbours offer ways to, of which babel takes none."""

    @property
    def split(self) -> bool:
        """Whether this node's region is in parts: somebody announces it whom no route of this part leads to."""

    @property
    def running(self) -> bool:
        """Whether there is a routing daemon that tells this."""

    @property
    def late(self) -> bool:
        """Whether there is one, but its news are not read."""

    def carried(self, peer: Prefix, besides: Set[str] = frozenset()) -> frozenset[Prefix]:
        """Destinations whose traffic goes through this neighbour now, what leaves by some interfaces left out."""

    def carried_by(self, interface: str) -> frozenset[Prefix]:
        """Destinations whose traffic leaves by this interface now."""

    def sole_by(self, interface: str) -> frozenset[Prefix]:
        """Destinations that perhaps only this interface leads to."""


@dataclass(frozen=True, slots=True)
class Survey:
    """The mesh as babeld's table shows it at one moment."""

    peers: frozenset[Prefix] = frozenset()
    """All nodes that can be reached, except ourselves."""
    metrics: Mapping[Prefix, int] = field(default_factory=dict)
    """Babel's metric of the route to each of them: the sum of the costs of its links."""
    neighbours: Mapping[Prefix, tuple[LinkUse, ...]] = field(default_factory=dict)
    """Nodes next to us, with the links to each (two, if both opened a tunnel)."""
    unidentified: tuple[LinkUse, ...] = ()
    """Next hops that carry traffic but have never announced a subnet of their own to us."""
    alive: frozenset[str] = frozenset()
    """Interfaces on which babel has a neighbour that can be reached."""
    costs: Mapping[str, int] = field(default_factory=dict)
    """Babel's cost of the link on each of them: 96, and more for missed hellos and for round-trip times."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """How often a packet has to be sent there until it arrives, by the hellos that got through in both directions
    (ETX).
    """
    unheard: frozenset[str] = frozenset()
    """Interfaces on which we hear a neighbour that does not hear us: it avoids the link."""
    steady: bool = False
    """Whether a neighbour was heard some six hellos ago or before, and still is."""
    patchy: frozenset[NextHop] = frozenset()
    """Neighbours whose hellos are missed now and then."""
    starved: frozenset[Prefix] = frozenset()
    """Destinations to which neighbours offer routes, none of which babel uses."""
    split: bool = False
    """Whether somebody announces our region whom none of our routes in it leads to: it is in parts."""
    alone: bool = True
    """Whether babel has no neighbour, not even one that has been silent lately."""
    running: bool = True
    """False while nothing of this is news: there is no babeld, or it is `late`."""
    late: bool = False
    """babeld runs, but closed our connection, as we read too slowly."""
    generation: int = 0
    """Which babeld tells this: each one has another number."""

    def carried(self, peer: Prefix, besides: Set[str] = frozenset()) -> frozenset[Prefix]:
        """Destinations whose traffic goes through this neighbour now, without the traffic that leaves by some
        interfaces.
        """
        links = self.neighbours.get(peer, ())
        return frozenset().union(*(link.carried for link in links if link.hop.interface not in besides))

    def carried_by(self, interface: str) -> frozenset[Prefix]:
        """Destinations whose traffic leaves by this interface now."""
        return frozenset().union(*(link.carried for link in self._links() if link.hop.interface == interface))

    def sole_by(self, interface: str) -> frozenset[Prefix]:
        """Destinations to which perhaps only this interface leads."""
        return frozenset().union(*(link.sole for link in self._links() if link.hop.interface == interface))

    def _links(self) -> list[LinkUse]:
        return [link for links in self.neighbours.values() for link in links] + list(self.unidentified)


def survey(
    table: Table,
    network: IPv6Network,
    own: Prefix,
    region_length: int = 0,
    as_one: Mapping[str, NextHop] = NONE,
    recent: Set[int] = frozenset(),
) -> Survey:
    """Read the table. This takes time proportional to the number of routes.

    In a network of regions, `peers` has the nodes of our own region, and of each other one the region itself; so has
    `neighbours`.

    The interfaces in `as_one` are those of links beside another one with the same peer, and count as that one: so there
    is one link with the peer, as good as the best of them.

    `recent`: the lengths of regions of now and of some minutes ago (regions.py).
    """
    region = region_of(own, region_length) if region_length else own
    announcers, members = set[str](), set[str]()
    owner: dict[NextHop, Prefix] = {}
    ways: defaultdict[Prefix, list[Route]] = defaultdict(list)
    used: dict[Prefix, Route] = {}
    known: IPv6Network | None = None
    destination: Prefix | None = None
    for route in table.routes.values():
        if route.metric >= INFINITY or route.source.prefixlen:
            continue
        if route.destination is not known:  # those to one destination mostly follow each other
            known = route.destination
            destination = prefix_of(network, known)
        if destination is None:
            continue
        if destination == region != own:
            announcers.add(route.router)
        if destination.contains(own):
            continue  # our own, our region, or what was our region: we have no use for others' ways there
        if region_length and region.contains(destination):
            members.add(route.router)
        if route.via.interface in as_one:
            route = replace(route, via=as_one[route.via.interface])
        if route.refmetric == 0 and (route.via not in owner or owner[route.via].length < destination.length):
            owner[route.via] = destination
        ways[destination].append(route)
        if route.installed:
            used[destination] = route
    for aggregate in _aggregates(ways.keys(), recent) - set(owner.values()):
        del ways[aggregate]
        used.pop(aggregate, None)
    carried: defaultdict[NextHop, set[Prefix]] = defaultdict(set)
    sole: defaultdict[NextHop, set[Prefix]] = defaultdict(set)
    for destination, route in used.items():
        carried[route.via].add(destination)
        if not any(_is_other_way(other, route) for other in ways[destination]):
            sole[route.via].add(destination)
    neighbours: defaultdict[Prefix, list[LinkUse]] = defaultdict(list)
    unidentified = []
    for hop in owner.keys() | carried.keys():
        link = LinkUse(hop, frozenset(carried[hop]), frozenset(sole[hop]))
        if hop in owner:
            neighbours[owner[hop]].append(link)
        else:
            unidentified.append(link)
    links = sorted((n for n in table.neighbours.values() if n.cost < INFINITY), key=lambda n: n.cost, reverse=True)
    names = {n.interface: as_one[n.interface].interface if n.interface in as_one else n.interface for n in links}
    return Survey(
        peers=frozenset(used),
        metrics={destination: route.metric for destination, route in used.items()},
        neighbours={peer: tuple(links) for peer, links in neighbours.items()},
        unidentified=tuple(unidentified),
        alive=frozenset(names.values()),
        costs={names[n.interface]: n.cost for n in links},
        losses={names[n.interface]: n.rxcost * n.txcost / NOMINAL**2 for n in links},
        unheard=frozenset(
            n.interface for n in table.neighbours.values() if n.txcost >= INFINITY and n.reach & HEARD_OF_LATE
        ),
        steady=any(n.reach & HEARD_BEFORE for n in links),
        patchy=frozenset(n.key for n in links if is_patchy(n.reach) and n.interface not in as_one),
        starved=frozenset(ways.keys() - used.keys()),
        split=not announcers <= members,
        alone=not table.neighbours,
    )


def _aggregates(found: Set[Prefix], lengths: Set[int]) -> Set[Prefix]:
    """Those of these lengths that contain others, so they are no nodes: regions of which we know the nodes, as regions
    come or go.

    Of no other length, or a member could hide any node from all others by telling of a way to somebody within it.
    """
    shorter = lengths & {prefix.length for prefix in found}
    over = (
        Prefix(prefix.value >> prefix.length - length, length)
        for prefix in found
        for length in shorter
        if length < prefix.length
    )
    return found & set(over) if shorter else set()


def _is_other_way(other: Route, route: Route) -> bool:
    return other.via != route.via and other.refmetric <= route.metric and other.metric < DRAINED
