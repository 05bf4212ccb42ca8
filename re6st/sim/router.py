"""An ideal router: what each node of a network would see of it, if routes were at once where they belong.

Routing is by the number of tunnels, and like babel without split horizon a node hears from every neighbour about every
destination, also about those that the neighbour reaches through the node itself.

Sets of nodes are integers here, of which each bit is a node: all surveys are made in one pass, and share what they have
in common. There are no metrics and costs: all tunnels are alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse
from re6st.sim.names import hop, prefix_of

Neighbours = Mapping[Prefix, Sequence[str]]
"""The neighbours of a node, with the interfaces towards each."""


class Others(Set[Prefix]):
    """Everybody in a part of the network except one node; all nodes of the part share the set of everybody."""

    __slots__ = ("_everybody", "_own")

    def __init__(self, everybody: frozenset[Prefix], own: Prefix) -> None:
        self._everybody = everybody
        self._own = own

    def __contains__(self, peer: object) -> bool:
        return peer != self._own and peer in self._everybody

    def __iter__(self) -> Iterator[Prefix]:
        return (peer for peer in self._everybody if peer != self._own)

    def __len__(self) -> int:
        return len(self._everybody) - (self._own in self._everybody)

    def __sub__(self, other: Set[Any]) -> frozenset[Prefix]:
        return self._everybody.difference(other, (self._own,))

    def __rsub__(self, other: Set[Any]) -> frozenset[Any]:
        return frozenset(peer for peer in other if peer not in self)

    def __and__(self, other: Set[Any]) -> frozenset[Prefix]:
        return frozenset(peer for peer in other if peer in self)

    __rand__ = __and__


@dataclass(frozen=True, slots=True)
class Way:
    """One of the links with a neighbour: what it carries, and of that what no other one leads to, as bits."""

    interface: str
    carried: int
    sole: int


class Undisturbed:
    """What `Survey` says of links and of babeld, where nothing of that is modelled."""

    losses: Mapping[str, float] = {}
    unheard: frozenset[str] = frozenset()
    patchy: frozenset[NextHop] = frozenset()
    starved: frozenset[Prefix] = frozenset()
    running = True
    late = False


class IdealSurvey(Undisturbed):
    """What a node sees, as `Survey` says it. Two are equal if they say the same: `ways` carry all that is reached."""

    metrics: Mapping[Prefix, int] = {}
    costs: Mapping[str, int] = {}
    split = False

    def __init__(self, peers: Others, ways: Mapping[Prefix, tuple[Way, ...]]) -> None:
        self.peers: Set[Prefix] = peers
        self._ways = ways

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdealSurvey) and self._ways == other._ways

    def __hash__(self) -> int:
        return hash((len(self.peers), *self._ways))

    @cached_property
    def neighbours(self) -> Mapping[Prefix, tuple[LinkUse, ...]]:
        return {
            peer: tuple(LinkUse(hop(peer, way.interface), _prefixes(way.carried), _prefixes(way.sole)) for way in ways)
            for peer, ways in self._ways.items()
        }

    @cached_property
    def alive(self) -> frozenset[str]:
        return frozenset(self._through)

    def carried(self, peer: Prefix, besides: Set[str] = frozenset()) -> frozenset[Prefix]:
        ways = (way for way in self._ways.get(peer, ()) if way.interface not in besides)
        return frozenset().union(*(_prefixes(way.carried) for way in ways))

    def carried_by(self, interface: str) -> frozenset[Prefix]:
        way = self._through.get(interface)
        return frozenset() if way is None else _prefixes(way.carried)

    def sole_by(self, interface: str) -> frozenset[Prefix]:
        way = self._through.get(interface)
        return frozenset() if way is None else _prefixes(way.sole)

    @cached_property
    def _through(self) -> Mapping[str, Way]:
        return {way.interface: way for ways in self._ways.values() for way in ways}


def nothing_seen(own: Prefix) -> IdealSurvey:
    """What a node sees that nobody is connected to."""
    return IdealSurvey(Others(frozenset(), own), {})


def surveys(near: Mapping[Prefix, Neighbours]) -> Iterator[tuple[Prefix, IdealSurvey]]:
    """What each node of `near` sees. A link is to be there for both its ends."""
    balls = _balls({node.value: [peer.value for peer in peers] for node, peers in near.items()})
    parts: dict[int, frozenset[Prefix]] = {}
    for node, peers in near.items():
        everybody = balls[node.value][-1]
        if everybody not in parts:
            parts[everybody] = _prefixes(everybody)
        yield node, IdealSurvey(Others(parts[everybody], node), _ways(node, peers, balls))


def _ways(own: Prefix, links: Neighbours, balls: dict[int, list[int]]) -> dict[Prefix, tuple[Way, ...]]:
    """What survey.py makes of babel's table."""
    hops = [(peer, interface, balls[peer.value]) for peer, names in links.items() for interface in names]
    first = own.value % (len(hops) or 1)
    hops = hops[first:] + hops[:first]
    carried, sole = [0] * len(hops), [0] * len(hops)
    mine = balls[own.value]
    for distance in range(1, len(mine)):
        left = mine[distance] & ~mine[distance - 1]
        # Another neighbour is a way of its own if it is no farther from the destination than we are.
        once = twice = 0
        for _, _, ball in hops:
            near = ball[min(distance, len(ball) - 1)]
            once, twice = once | near, twice | once & near
        for index, (_, _, ball) in enumerate(hops):
            taken = left & ball[min(distance - 1, len(ball) - 1)]
            left &= ~taken
            carried[index] |= taken
            sole[index] |= taken & ~twice
    found: defaultdict[Prefix, tuple[Way, ...]] = defaultdict(tuple)
    for index, (peer, interface, _) in enumerate(hops):
        found[peer] += (Way(interface, carried[index], sole[index]),)
    return dict(found)


def _balls(near: dict[int, list[int]]) -> dict[int, list[int]]:
    """For each node who is within 0, 1, 2... tunnels of it, as bits, up to everybody it reaches."""
    balls = {node: [1 << node] for node in near}
    growing = list(near)
    while growing:
        level = {node: balls[node][-1] for node in near}
        still = []
        for node in growing:
            ball = level[node]
            for other in near[node]:
                ball |= level[other]
            if ball != level[node]:
                balls[node].append(ball)
                still.append(node)
        growing = still
    return balls


def _prefixes(bits: int) -> frozenset[Prefix]:
    return frozenset(prefix_of(number) for number, bit in enumerate(reversed(bin(bits))) if bit == "1")
