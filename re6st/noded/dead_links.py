"""Notices links that died, by the packets that go over them, and leads around them until babel does (docs/network.md).

core/routing/liveness.py decides which are dead, core/routing/detours.py which way leads around them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

from re6st.core import interfaces
from re6st.core.machine.wanted_state import AddressPlan
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix, address, ipv4_address, prefix_of
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.detours import Detour, Way, detours
from re6st.core.routing.liveness import Liveness, LivenessFindings, Packets
from re6st.core.telemetry.event_log import EventLog
from re6st.core.telemetry.report import Record
from re6st.core.words import plural
from re6st.linux.link_traffic import Shared

LASTING = 5.0
"""Seconds after which a tunnel of ours that is dead is closed, so that another is opened, although babel still has a
neighbour there. Most often babel has none by then, and the policy, which is told of the doubt at once, waits no longer.
"""
PROOF = 1.0
"""Seconds in which the neighbour behind a dead link must be heard by a detour: it may be dead itself."""
LOOK_UP = 2.0
"""Seconds between two questions for the hardware addresses of neighbours that are not known."""
AGAIN = 10.0

log = logging.getLogger(__name__)


class TableSource(Protocol):
    """Whose neighbours and routes it is about: a routing plane."""

    @property
    def table(self) -> Table: ...


class LinkEnds(Protocol):
    """Who is at the other ends of our tunnels."""

    def owner_at(self, hop: NextHop) -> Prefix | None: ...
    def is_shared(self, interface: str) -> bool: ...


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


class Asker(Protocol):
    """Who sends echo requests and hears the answers: linux/probes.py."""

    def ask(self, address: IPv6Address, index: int = 0) -> None: ...
    def answers(self) -> Iterator[tuple[tuple[IPv6Address, int], float]]: ...
    def close(self) -> None: ...


class Routes(Protocol):
    """Who puts detours into the kernel: linux/detour_routes.py."""

    async def follow(self, wanted: Mapping[Way, Detour], plans: Iterable[AddressPlan]) -> None: ...


class Networks(Protocol):
    """Our networks."""

    @property
    def wanted(self) -> Collection[AddressPlan]: ...


class CountingFilter(Protocol):
    """The packet filter."""

    @property
    def counts(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class LinkMachine:
    """What is asked of this machine. `open_traffic` and `open_echo` raise OSError."""

    filter: CountingFilter
    hardware: NeighbourMacs
    routes: Routes
    networks: Networks
    open_traffic: Callable[[], PacketCounters]
    open_echo: Callable[[], Asker]


class DeadLinks:
    """Watches the links of tunnels with babel's neighbours behind them. `event` tells the policy."""

    def __init__(
        self,
        network: IPv6Network,
        routing: TableSource,
        ends: LinkEnds,
        machine: LinkMachine,
        event: Callable[[policy.Event], None],
        chronicle: EventLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.liveness = Liveness()
        self._network = network
        self._routing = routing
        self._ends = ends
        self._machine = machine
        self._event = event
        self._chronicle = chronicle
        self._clock = clock
        self._active = False
        self._costs: dict[NextHop, int] = {}
        """Of the links, when they were last known to be alive."""
        self._since: dict[NextHop, float] = {}
        """When each dead link died; it is taken out where the policy was told that it lasts."""
        self._detours: dict[Way, Detour] = {}
        self._proofs: dict[NextHop, float] = {}
        """Until when those at the other ends of dead links are to be heard by a detour; infinite once they were."""
        self._shared = Shared()
        self._shared_sent: dict[str, int] = {}
        self._looked_up = float("-inf")

    def record(self) -> Record:
        """For the operator."""
        return {
            "active": self._active,
            "probes": self.liveness.probes,
            "died": self.liveness.deaths,
            "dead": len(self.liveness.dead),
            "detours": len(self._detours),
        }

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self._watch()
                except OSError as error:
                    log.warning("links are not watched for packets: %s. It is tried again", error.strerror)
                self._active = False
                await self._lead_around({})
                await asyncio.sleep(AGAIN)
        finally:
            self._active = False
            await self._lead_around({})

    async def _watch(self) -> None:
        traffic = self._machine.open_traffic()
        try:
            echo = self._machine.open_echo()
            try:
                while True:
                    self._active = self._machine.filter.counts
                    if not self._active:
                        await self._lead_around({})
                    else:
                        await self.look(traffic, echo)
                    await asyncio.sleep(self.liveness.pause(self._clock()))
            finally:
                echo.close()
        finally:
            traffic.close()

    async def look(self, traffic: PacketCounters, echo: Asker) -> None:
        """Look once, and do what follows. Raises OSError."""
        indexes: dict[str, int] = {}
        for (ip, index), seconds in echo.answers():
            self._answered(ip, index, seconds)
        neighbours = {
            each.key: each.cost
            for each in self._routing.table.neighbours.values()
            if interfaces.is_ours(each.interface)
        }
        packets = self._count(traffic, neighbours)
        now = self._clock()
        found = self.liveness.look(packets, now)
        for hop in found.probe:
            with suppress(OSError):
                index = indexes.setdefault(hop.interface, socket.if_nametoindex(hop.interface))
                echo.ask(hop.address, index)
        doubtful = self.liveness.doubtful
        self._costs = {hop: self._costs.get(hop, cost) if hop in doubtful else cost for hop, cost in neighbours.items()}
        dead = self.liveness.dead
        self._since = {hop: since for hop, since in self._since.items() if hop in dead}
        self._proofs = {hop: until for hop, until in self._proofs.items() if hop in dead}
        if dead or self._detours:
            self._since |= dict.fromkeys(found.died, now)
            await self._follow(dead, doubtful, now, echo)
        self._tell(found, now)

    # -- what is counted --

    def _count(self, traffic: PacketCounters, hops: Collection[NextHop]) -> dict[NextHop, Packets]:
        """What came and went so far, where that can be told."""
        by_interface, local = traffic.by_interface({hop.interface for hop in hops}), traffic.local_sent()
        sent = {name: sent - local.get(name, 0) for name, (_, sent) in by_interface.items()}
        shared = [hop for hop in hops if self._ends.is_shared(hop.interface)]
        behind = {hop.interface for hop in shared}
        going = {name: count for name, count in sent.items() if name in behind}
        if shared and (going != self._shared_sent or not self.liveness.owing().isdisjoint(shared)):
            self._shared, self._shared_sent = traffic.shared(), going
        found = {
            hop: Packets(by_interface[hop.interface][0], sent[hop.interface])
            for hop in hops
            if hop.interface in by_interface and hop.interface not in behind
        }
        return found | (self._count_shared(shared) if shared and not self._shared.full else {})

    def _count_shared(self, hops: Collection[NextHop]) -> dict[NextHop, Packets]:
        found, unknown = {}, []
        payload = self._payload_addresses()
        for hop in hops:
            if hardware := self._machine.hardware[hop]:
                sent = self._shared.sent.get((hop.interface, hop.address), 0)
                if ipv4 := payload.get(hop):
                    sent += self._shared.sent.get((hop.interface, ipv4), 0)
                found[hop] = Packets(self._shared.received.get((hop.interface, hardware), 0), sent)
            else:
                unknown.append(hop)
        if unknown and self._clock() - self._looked_up >= LOOK_UP:
            self._looked_up = self._clock()
            self._machine.hardware.find(unknown)
        return found

    def _payload_addresses(self) -> dict[NextHop, IPv4Address]:
        """By which IPv4 address each neighbour is a next hop: that of its own subnet."""
        routes = self._routing.table.ipv4_routes.values()
        return {route.via: ipv4_address(route.destination) for route in routes if route.refmetric == 0}

    def _answered(self, ip: IPv6Address, index: int, seconds: float) -> None:
        if index:
            with suppress(OSError):
                self.liveness.answered(NextHop(ip, socket.if_indextoname(index)), seconds)
            return
        for way, detour in self._detours.items():
            if detour.unproved and self._address_behind(way) == ip:
                self._proofs[detour.instead_of] = float("inf")

    # -- ways around --

    async def _follow(self, dead: frozenset[NextHop], doubtful: frozenset[NextHop], now: float, echo: Asker) -> None:
        wanted = detours(self._routing.table, dead, doubtful, self._costs, self._detours)
        for hop in {detour.instead_of for detour in wanted.values() if detour.unproved}:
            self._proofs.setdefault(hop, now + PROOF)
        wanted = {
            way: detour
            for way, detour in wanted.items()
            if not detour.unproved or now < self._proofs[detour.instead_of]
        }
        await self._lead_around(wanted)
        asked = set()
        for way, detour in wanted.items():
            if detour.unproved and self._proofs[detour.instead_of] != float("inf"):
                ip = self._address_behind(way)
                if ip is not None and ip not in asked:
                    asked.add(ip)
                    echo.ask(ip)

    async def _lead_around(self, wanted: dict[Way, Detour]) -> None:
        if wanted != self._detours:
            self._detours = wanted
            await self._machine.routes.follow(wanted, self._machine.networks.wanted)

    def _address_behind(self, way: Way) -> IPv6Address | None:
        """That of the node whose subnet a way leads to."""
        destination = way[0]
        if isinstance(destination, IPv4Network):
            return None
        owner = prefix_of(self._network, destination)
        return None if owner is None else address(self._network, owner)

    # -- who is told --

    def _tell(self, found: LivenessFindings, now: float) -> None:
        for hop, silent in found.died.items():
            around = sum(detour.instead_of == hop for detour in self._detours.values())
            peer = self._ends.owner_at(hop)
            log.warning(
                "the link with %s on %s is dead: nothing has come for %.2f s, and no answer to %s. %s",
                peer or hop.address,
                hop.interface,
                silent,
                "echo requests",
                f"{plural(around, 'destination')} behind it {'is' if around == 1 else 'are'} led around it"
                if around
                else "No other way is known",
            )
            self._chronicle.found("link-died", time.time(), *([peer] if peer else []))
            if peer is not None and not self._ends.is_shared(hop.interface):
                self._event(policy.LinkDoubted(peer, hop.interface))
        for hop in found.revived:
            peer = self._ends.owner_at(hop)
            log.info("the link with %s on %s is alive again", peer or hop.address, hop.interface)
            self._chronicle.found("link-revived", time.time(), *([peer] if peer else []))
        for hop, since in list(self._since.items()):
            if now - since >= LASTING:
                del self._since[hop]
                peer = self._ends.owner_at(hop)
                if peer is not None and not self._ends.is_shared(hop.interface):
                    self._event(policy.LinkDead(peer, hop.interface))
