"""What came and went by each link that babel has a neighbour behind, for noded/dead_links.py.

It looks many times a second while there is traffic. Whom it is about changes seldom, so that is asked for less often.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from typing import Protocol

from re6st.core import interfaces
from re6st.core.machine.uplinks import Uplink
from re6st.core.prefix import Prefix, ipv4_address
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.liveness import LIMIT, Liveness, Packets
from re6st.core.tunnel_protocols import Role
from re6st.linux.link_traffic import Shared

FOLLOW, FOLLOW_QUIET = 0.2, 1.0
"""Seconds between two looks at who the neighbours are; and while nothing goes anywhere."""
NEWEST = 0x8000
"""The bit of the last hello in a history of them (RFC 8966 appendix A.1)."""
SEVERAL = NEWEST >> 2
"""Below it, none of the last three came."""
LOOK_UP = 2.0
"""Seconds between two questions for what tells neighbours behind a server apart: hardware addresses, IPv4 addresses."""


class TableSource(Protocol):
    """Whose neighbours and routes it is about: a routing plane."""

    @property
    def table(self) -> Table: ...


class LinkEnds(Protocol):
    """Who is at the other ends of our tunnels."""

    def owner_at(self, hop: NextHop) -> Prefix | None: ...
    def is_shared(self, interface: str) -> bool: ...
    def is_over_tcp(self, interface: str) -> bool: ...
    def left(self, hops: Iterable[NextHop]) -> frozenset[NextHop]: ...


class NeighbourMacs(Protocol):
    """The hardware addresses of neighbours."""

    def __getitem__(self, hop: NextHop) -> str: ...
    def find(self, hops: Iterable[NextHop]) -> None: ...


class PacketCounters(Protocol):
    """Who counts packets: linux/link_traffic.py. Methods raise OSError."""

    def by_interface(self, names: Iterable[str]) -> dict[str, tuple[int, int]]: ...
    def local_sent(self) -> dict[str, int]: ...
    def shared(self) -> Shared: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Behind:
    """How a neighbour behind a server is told from the others there."""

    hop: NextHop
    heard_as: tuple[str, str]
    """Interface and hardware address."""
    sent_to: tuple[tuple[str, IPv6Address | IPv4Address], ...]
    """Interface and next hop: of IPv6, and of IPv4 where that is known."""


class LinkCounts:
    """Counts by link. `line` tells over which of this machine's lines our link with a peer on an interface goes."""

    def __init__(
        self,
        routing: TableSource,
        ends: LinkEnds,
        hardware: NeighbourMacs,
        line: Callable[[Prefix, str], Uplink | None] = lambda *_: None,
    ) -> None:
        self.costs: dict[NextHop, int] = {}
        """What babel says that each link costs."""
        self.over_tcp: frozenset[NextHop] = frozenset()
        """Links on which everything waits for a lost packet."""
        self.ended: frozenset[NextHop] = frozenset()
        """Links whose tunnel has ended, although babel has a neighbour there for a moment still."""
        self.missed: frozenset[NextHop] = frozenset()
        """Those by which the last hello did not come, though others did."""
        self.clients: frozenset[NextHop] = frozenset()
        """Those with clients of ours whose tunnel has not ended, as far as that is known."""
        self.quiet_clients: frozenset[NextHop] = frozenset()
        """Those of them by which several hellos did not come."""
        self._routing = routing
        self._ends = ends
        self._hardware = hardware
        self._line = line
        self.lines: dict[NextHop, Uplink] = {}
        """By which line of ours each goes, where that is known."""
        self._alone: list[NextHop] = []
        """Neighbours on an interface of their own."""
        self._behind: list[_Behind] = []
        self._servers: frozenset[str] = frozenset()
        """Interfaces of our servers, which neighbours share."""
        self._payload: dict[NextHop, IPv4Address] = {}
        self._shared = Shared()
        self._shared_sent: dict[str, int] = {}
        self._followed = self._looked_up = self._looked_at_routes = float("-inf")

    def follow(self, now: float, *, at_once: bool = False, quiet: bool = False) -> bool:
        """Look who the neighbours are, if it is time. Returns whether it was."""
        if not at_once and 0 <= now - self._followed < (FOLLOW_QUIET if quiet else FOLLOW):
            return False
        self._followed = now
        self.costs = {
            hop: each.cost
            for each in islice(self._routing.table.neighbours.values(), LIMIT)
            if interfaces.is_ours(each.interface) and self._has_end(hop := each.key)
        }
        names = {hop.interface for hop in self.costs}
        self._servers = frozenset(name for name in names if self._ends.is_shared(name))
        self._alone = [hop for hop in self.costs if hop.interface not in self._servers]
        owners = ((hop, self._ends.owner_at(hop)) for hop in self._alone)
        lines = ((hop, self._line(owner, hop.interface)) for hop, owner in owners if owner is not None)
        self.lines = {hop: line for hop, line in lines if line is not None}
        slow = {name for name in names if self._ends.is_over_tcp(name)}
        self.over_tcp = frozenset(hop for hop in self.costs if hop.interface in slow)
        reaches = {each.key: each.reach for each in self._routing.table.neighbours.values()}
        self.missed = frozenset(hop for hop, reach in reaches.items() if hop in self.costs and 0 < reach < NEWEST)
        shared = [hop for hop in self.costs if hop.interface in self._servers]
        self.ended = self._ends.left(shared)
        served = {hop for hop in self.costs if _is_served(hop.interface) and self._ends.owner_at(hop) is not None}
        self.clients = frozenset(served - self.ended)
        self.quiet_clients = frozenset(hop for hop, reach in reaches.items() if hop in self.clients and reach < SEVERAL)
        self._follow_shared(shared, now)
        return True

    def count(self, traffic: PacketCounters, liveness: Liveness) -> dict[NextHop, Packets]:
        """What came and went so far, where that can be told. Raises OSError."""
        by_interface = traffic.by_interface({hop.interface for hop in self.costs})
        local = traffic.local_sent()
        sent = {name: sent - local.get(name, 0) for name, (_, sent) in by_interface.items()}
        found = {
            hop: Packets(by_interface[hop.interface][0], sent[hop.interface])
            for hop in self._alone
            if hop.interface in by_interface
        }
        if not self._behind:
            return found
        going = {name: count for name, count in sent.items() if name in self._servers}
        if going != self._shared_sent or liveness.is_owing(each.hop for each in self._behind):
            self._shared, self._shared_sent = traffic.shared(), going
        if not self._shared.full:
            came, went = self._shared.received, self._shared.sent
            for each in self._behind:
                to_it = sum(went.get(key, 0) for key in each.sent_to)
                found[each.hop] = Packets(came.get(each.heard_as, 0), to_it)
        return found

    def losing(self, packets: Mapping[NextHop, Packets]) -> dict[NextHop, int]:
        """What went by those links on which losses are looked for: they have an interface of their own, packets may get
        lost there, and their line is not paid by volume.
        """
        spared = self.over_tcp | {hop for hop, line in self.lines.items() if line.metered}
        return {hop: packets[hop].sent for hop in self._alone if hop in packets and hop not in spared}

    def _has_end(self, hop: NextHop) -> bool:
        """Whether there is a tunnel: where we have ended ours, babel may still have a neighbour for a moment."""
        return self._ends.is_shared(hop.interface) or self._ends.owner_at(hop) is not None

    def _follow_shared(self, hops: Collection[NextHop], now: float) -> None:
        if hops and now - self._looked_at_routes >= LOOK_UP:
            self._looked_at_routes = now
            self._payload = self._payload_addresses()
        self._behind = []
        unknown = []
        for hop in hops:
            if hardware := self._hardware[hop]:
                next_hops: list[IPv6Address | IPv4Address] = [hop.address]
                if hop in self._payload:
                    next_hops.append(self._payload[hop])
                sent_to = tuple((hop.interface, each) for each in next_hops)
                self._behind.append(_Behind(hop, (hop.interface, hardware), sent_to))
            else:
                unknown.append(hop)
        if unknown and now - self._looked_up >= LOOK_UP:
            self._looked_up = now
            self._hardware.find(unknown)

    def _payload_addresses(self) -> dict[NextHop, IPv4Address]:
        """By which IPv4 address each neighbour is a next hop: that of its own subnet."""
        routes = self._routing.table.ipv4_routes.values()
        return {route.via: ipv4_address(route.destination) for route in routes if route.refmetric == 0}


def _is_served(interface: str) -> bool:
    """Whether clients of ours are behind it."""
    found = interfaces.parse(interface)
    return found is not None and found.role is Role.SERVER
