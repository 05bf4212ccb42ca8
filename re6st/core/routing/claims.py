"""Finds out who announces a subnet that is not its own: the neighbour's certificate says which subnet it owns
(docs/security.md).

A route whose refmetric is 0 is announced by the next hop as its own (wire.md 10.3). If we know whose certificate the
other end of the tunnel has, we can check that; for IPv4, by the node number in the certificate (wire.md 1.4). This does
not find a member that pretends to forward a route from elsewhere, nor a member on a LAN, where nobody shows a
certificate.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from re6st.core.prefix import Prefix, ipv4_subnet, prefix_of
from re6st.core.routing.babel_lines import INFINITY, NextHop, Route, Route4, Table
from re6st.core.routing.regions import RecentLengths

HOLD = 0.3
"""A claim must last so many seconds: for a moment, babel may still know an interface by its previous peer."""
STALE = 10.0
"""So many seconds after the tunnel on an interface is another peer's, what babel knows by the same neighbour is still
said to be the former peer's: on a machine that has too much to do, babel forgets it later than after HOLD."""
HELD_OWN = 10.0
"""Our own subnet must be announced by others, or a certificate be used twice, for so many seconds before it counts."""
HELD_REGION = 600.0
"""What may be a region of the peer's must be announced for so many seconds before it counts: it may have heard how long
regions are now before us, or may hear it after us. Where there are regions, or were lately, or where the registry has
published parameters that we do not have yet."""
HELD_FLAT = 120.0
"""The same in a flat network: longer than it takes to hear of newer parameters, and than others go on telling of former
regions (FOLLOWED in node.py), which a node that starts meanwhile does not know."""
GRACE = 60.0
"""For so many seconds after the start of a babeld, others may still announce routes of the previous one, which had
another identity.
"""
REFUSED_FIRST, REFUSED_LAST = 300.0, 4800.0
"""For how many seconds a peer is refused: the first time, and at most."""
REMEMBERED = 1000
NAMED = 5
"""If there are many subnets, so many are named."""

Network = IPv4Network | IPv6Network
Routes = TypeVar("Routes", Route, Route4)


@dataclass(frozen=True, slots=True)
class Lie:
    """A peer announces these subnets as its own, and they are not."""

    peer: Prefix
    hops: tuple[NextHop, ...]
    subnets: tuple[Network, ...]

    def __str__(self) -> str:
        return _some([str(each) for each in self.subnets])


@dataclass(frozen=True, slots=True)
class Heard:
    """Others announce our own subnet, or parts of it, through these neighbours."""

    subnets: tuple[Network, ...]
    hops: tuple[NextHop, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    lies: tuple[Lie, ...] = ()
    heard: Heard | None = None
    doubled: frozenset[Prefix] = frozenset()
    """Certificates that two machines use at the same time."""
    unknown: frozenset[NextHop] = frozenset()
    """Neighbours that announce subnets as their own, and whose certificate we do not know."""
    again: float | None = None
    """In how many seconds to look again, if nothing changes."""


@dataclass(frozen=True, slots=True)
class Payload:
    """The network's own IPv4 addresses: node number N has the N-th subnet, which is longer than `network` by
    `extra_bits`.
    """

    network: IPv4Network
    extra_bits: int
    own: IPv4Network | None
    """Our subnet."""
    former: tuple[tuple[IPv4Network, int], ...] = ()
    """Networks and bits of earlier parameters: not all nodes change to new ones at the same time."""

    def subnets(self, numbers: Iterable[int]) -> list[IPv4Network]:
        """All present and former subnets of the node that has these numbers."""
        kinds = ((self.network, self.extra_bits), *self.former)
        found = (ipv4_subnet(network, bits, number) for network, bits in kinds for number in numbers)
        return [each for each in found if each is not None]


class Claims:
    """Remembers since when something is claimed. Times are in seconds, by a clock that the caller reads."""

    def __init__(self, network: IPv6Network, own: Prefix, accepted: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._network = network
        self._own = own
        self._accepted = [found for each in accepted if isinstance(each, IPv6Network) for found in self._inside(each)]
        self._accepted4 = [each for each in accepted if isinstance(each, IPv4Network)]
        self._lengths = RecentLengths()
        self._since: dict[object, float] = {}
        self._owners: dict[NextHop, tuple[Prefix, float]] = {}
        """Who was at the other end when a neighbour on an interface of its own was seen first, and since when it is
        somebody else."""

    def look(
        self,
        table: Table,
        owner: Callable[[NextHop], Prefix | None],
        now: float,
        babel_since: float,
        payload: Payload | None = None,
        numbers: Callable[[Prefix], Collection[int]] = lambda _: (),
        is_shared: Callable[[str], bool] = lambda _: False,
        region_length: int = 0,
        age: float = 0.0,
        behind: bool = False,
    ) -> Findings:
        """`owner` says whose certificate the other end has; None if that is not known. `numbers` returns the node
        numbers in the certificates of a peer; if they are not known, we believe its IPv4 subnet. `is_shared`: whether
        neighbours share an interface, as behind a server. `region_length`: how many bits of a prefix tell the region,
        which each node of it announces as its own, too. `age`: how many seconds ago babel knew what the table says; who
        is at the other end is known of now. `behind`: there are parameters that we do not have yet.
        """
        read = now - age
        held = HELD_REGION if self._lengths.note(region_length, now) or behind else HELD_FLAT
        false: defaultdict[Prefix, set[tuple[NextHop, Network]]] = defaultdict(set)
        regional: defaultdict[Prefix, set[tuple[NextHop, Network]]] = defaultdict(set)
        routers: defaultdict[Prefix, set[str]] = defaultdict(set)
        ours: set[tuple[NextHop, Network]] = set()
        unknown: set[NextHop] = set()
        owners: dict[NextHop, Prefix | None] = {}

        def named(hop: NextHop) -> Prefix | None:
            if hop not in owners:
                peer = owner(hop)
                owners[hop] = peer if is_shared(hop.interface) else self._owner(hop, peer, now, read)
            return owners[hop]

        for route in _claims(table.routes.values()):
            claimed = prefix_of(self._network, route.destination)
            if claimed is None:
                continue
            if self._own.contains(claimed):
                ours.add((route.via, route.destination))
            if route.refmetric:
                continue
            peer = named(route.via)
            if peer is None:
                unknown.add(route.via)
            elif peer.contains(claimed):
                if claimed == peer and route.metric < INFINITY:
                    routers[peer].add(route.router)
            elif any(each.contains(claimed) for each in self._accepted):
                continue
            elif not claimed.contains(peer):
                false[peer].add((route.via, route.destination))
            elif claimed.length != region_length:
                regional[peer].add((route.via, route.destination))
        for route4 in _claims(table.ipv4_routes.values()) if payload is not None else ():
            assert payload is not None
            if not route4.destination.overlaps(payload.network):
                continue
            if payload.own is not None and route4.destination.subnet_of(payload.own):
                ours.add((route4.via, route4.destination))
            if route4.refmetric:
                continue
            peer = named(route4.via)
            if peer is None:
                unknown.add(route4.via)
            elif (found := numbers(peer)) and not any(
                route4.destination.subnet_of(each) for each in (*payload.subnets(found), *self._accepted4)
            ):
                false[peer].add((route4.via, route4.destination))
        self._owners = {hop: known for hop, known in self._owners.items() if hop in owners}
        doubled = [peer for peer, idents in routers.items() if len(idents) > 1]
        keys: list[object] = [*false, *(("doubled", peer) for peer in doubled), *([Heard] if ours else [])]
        keys += [("region", peer) for peer in regional]
        self._since = {key: self._since.get(key, read) for key in keys}
        left = [HOLD - self._lasts(peer, read) for peer in false]
        left += [held - self._lasts(("region", peer), read) for peer in regional]
        left += [STALE - (read - changed) for _, changed in self._owners.values()]
        left += [HELD_OWN - self._lasts(("doubled", peer), read) for peer in doubled]
        lies = [_lie(peer, found) for peer, found in false.items() if self._lasts(peer, read) >= HOLD]
        lies += [_lie(p, found) for p, found in regional.items() if self._lasts(("region", p), read) >= held]
        until_own = max(HELD_OWN - self._lasts(Heard, read), babel_since + GRACE - now)
        if ours:
            left.append(until_own)
        return Findings(
            tuple(lies),
            _heard(ours) if ours and until_own <= 0 else None,
            frozenset(peer for peer in doubled if self._lasts(("doubled", peer), read) >= HELD_OWN),
            frozenset(unknown),
            min((each for each in left if each > 0), default=None),
        )

    def _owner(self, hop: NextHop, peer: Prefix | None, now: float, read: float) -> Prefix | None:
        """Who is to be named for what a neighbour says. A neighbour is an address of one machine: if the tunnel on its
        interface is another peer's now, babel has not forgotten it yet, and neither of the two is.
        """
        if peer is None:
            return None
        known, changed = self._owners.setdefault(hop, (peer, float("-inf")))
        if known != peer:
            changed = now
            self._owners[hop] = peer, changed
        return peer if read - changed >= STALE else None

    def _lasts(self, key: object, now: float) -> float:
        return now - self._since.get(key, now)

    def _inside(self, accepted: IPv6Network) -> list[Prefix]:
        if self._network.subnet_of(accepted):
            return [Prefix(0, 0)]
        found = prefix_of(self._network, accepted)
        return [] if found is None else [found]


class Refusals:
    """Which peers are refused, and for how long: longer each time. Times as above."""

    def __init__(self) -> None:
        self._known: dict[Prefix, tuple[float, float]] = {}

    def refuse(self, peer: Prefix, now: float) -> float:
        """Refuse the peer for so many seconds from now; returns them."""
        last, until = self._known.pop(peer, (0.0, 0.0))
        seconds = last if now < until else min(max(2 * last, REFUSED_FIRST), REFUSED_LAST)
        self._known[peer] = seconds, now + seconds
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return seconds

    def holds(self, peer: Prefix, now: float) -> bool:
        """Whether it is refused now."""
        return peer in self._known and now < self._known[peer][1]

    def note(self) -> bytes:
        """All of this as a text, for the next daemon on the same machine: its clock is the same."""
        return json.dumps([[peer.cn, *known] for peer, known in self._known.items()]).encode()

    def restore(self, note: bytes, now: float) -> None:
        """Take over such a text. Raises ValueError for any other text."""
        try:
            found = [(Prefix.from_cn(cn), float(seconds), float(until)) for cn, seconds, until in json.loads(note)]
        except (TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a list of refused peers: {error}") from None
        for peer, seconds, until in found[-REMEMBERED:]:
            # The clock starts again when the machine does.
            if 0 < seconds <= REFUSED_LAST and until <= now + seconds:
                self._known[peer] = seconds, until

    def held(self, now: float) -> list[Prefix]:
        """All peers that are refused now."""
        return [peer for peer in self._known if self.holds(peer, now)]


def hardware_address(address: IPv6Address) -> str | None:
    """The MAC address from which a link-local address was made (EUI-64, RFC 4291); None for any other address."""
    bits = int(address) & (1 << 64) - 1
    if bits >> 24 & 0xFFFF != 0xFFFE:
        return None
    mac = (bits >> 40 << 24 | bits & 0xFFFFFF) ^ 0x020000000000
    return ":".join(f"{byte:02x}" for byte in mac.to_bytes(6))


def link_local(hardware: bytes) -> IPv6Address:
    """The address that the kernel makes of a MAC address: the inverse of `hardware_address`."""
    mac = int.from_bytes(hardware) ^ 0x020000000000
    return IPv6Address(0xFE80 << 112 | mac >> 24 << 40 | 0xFFFE << 24 | mac & 0xFFFFFF)


def _claims(routes: Iterable[Routes]) -> Iterator[Routes]:
    """Of the routes of one kind, those that the next hop announces as its own, and those that we may not use. Most
    routes are others: the next hop says that it heard them elsewhere, or retracts them.
    """
    for route in routes:
        if not route.refmetric or (route.metric >= INFINITY and route.refmetric < INFINITY):
            yield route


def _lie(peer: Prefix, found: set[tuple[NextHop, Network]]) -> Lie:
    hops = tuple(sorted({hop for hop, _ in found}, key=lambda hop: (hop.interface, hop.address)))
    return Lie(
        peer,
        hops,
        tuple(sorted({subnet for _, subnet in found}, key=lambda each: (-each.version, int(each[0]), each.prefixlen))),
    )


def _heard(found: set[tuple[NextHop, Network]]) -> Heard:
    lie = _lie(Prefix(0, 0), found)
    return Heard(lie.subnets, lie.hops)


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
