"""What the tunnels that we open carry, for the throughput plane: by what comes, and by a train of packets, seldom.
Where the operator says what an uplink carries (--uplink), that counts; and none is sent there, nor over a metered one.

A tunnel is used by that plane once it is known what it carries, or after a while in any case. A change of what is known
has babeld start anew for another cost of its link: so changes are collected for some minutes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Protocol

from re6st.core.interfaces import is_link
from re6st.core.machine.uplinks import Uplink
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.capacity import UNKNOWN, Capacities, cost
from re6st.core.routing.packet_train import TrainSchedule
from re6st.core.telemetry.report import Record
from re6st.linux import interface_counters
from re6st.noded.link_counts import TableSource

LOOK = 1.0
"""Seconds between two looks at what has passed, and at who the neighbours are."""
SETTLED = 8.0
"""Seconds after which a tunnel is measured: one that becomes a WireGuard link is none any more by then, and a machine
that has just begun has had time for it."""
PATIENCE = 25.0
"""Seconds after which a tunnel is used, though it is not known what it carries."""
COLLECT = 300.0
"""Seconds between two changes of the costs of tunnels that are used."""

log = logging.getLogger(__name__)


class Priced(Protocol):
    """The throughput plane."""

    def price(self, costs: Mapping[str, int]) -> None: ...


class OwnerLookup(Protocol):
    """Who is at the other ends of our tunnels."""

    def owner_at(self, hop: NextHop) -> Prefix | None: ...


Carried = tuple[Hashable, bool]
"""What a measurement holds for: our tunnel with a peer, or a link beside it, by WireGuard or not."""
Measure = Callable[[IPv6Address, int], float | None]
"""What a link to a neighbour carries, in Mbit/s; it takes its time, and raises OSError."""


class LinkCapacities:
    """Those of the tunnels on `own()` interfaces, whose neighbours `routing` knows. `measure` is None where no packets
    are to be sent for it; `user` tells who uses the line of a link with a peer (contracts.Links), and `uplink` is that
    line, where it is bound to one.
    """

    def __init__(
        self,
        routing: TableSource,
        ends: OwnerLookup,
        own: Callable[[], Collection[str]],
        measure: Measure | None,
        user: Callable[[Prefix, str], Hashable],
        uplink: Callable[[Hashable], Uplink | None],
        clock: Callable[[], float] = time.monotonic,
        interfaces: Path = interface_counters.INTERFACES,
    ) -> None:
        self.measured = 0
        """How many times."""
        self._routing = routing
        self._ends = ends
        self._own = own
        self._measure = measure
        self._user = user
        self._uplink = uplink
        self._clock = clock
        self._interfaces = interfaces
        self._capacities: Capacities[NextHop] = Capacities()
        self._schedule: TrainSchedule[Carried] = TrainSchedule()
        self._since: dict[NextHop, float] = {}
        """Since when each neighbour is there."""
        self._passed: dict[str, tuple[float, int]] = {}
        """When we looked, and the bytes that had come by an interface then."""
        self._plane: Priced | None = None
        self._prices: dict[str, int] = {}
        """What the plane was told."""
        self._changed = float("-inf")

    def follow(self, plane: Priced | None) -> None:
        """The throughput plane is there, or gone."""
        self._plane, self._prices = plane, {}
        if plane is not None:
            self._price(self._clock())

    def record(self) -> dict[str, Record]:
        """For the operator: what is known of each interface."""
        now = self._clock()
        return {
            hop.interface: {"mbits": self._capacities.of(hop, now), "cost": self._prices.get(hop.interface)}
            for hop in self._since
        }

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._plane is not None:
                await self.look()
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Look once, and measure a link if it is time."""
        now = self._clock()
        self._follow_neighbours(now)
        self._note_passed(now)
        self._price(now)
        if self._measure is None:
            return
        settled = (hop for hop, since in self._since.items() if now - since >= SETTLED and not self._is_spared(hop))
        found = {carried: hop for hop in settled if (carried := self._carried(hop)) is not None}
        while (carried := self._schedule.due(list(found), self._clock())) is not None:
            await self._send_train(self._measure, carried, found[carried])
            self._price(self._clock())

    def _carried(self, hop: NextHop) -> Carried | None:
        peer = self._ends.owner_at(hop)
        return None if peer is None else (self._user(peer, hop.interface), is_link(hop.interface))

    def _line(self, hop: NextHop) -> Uplink | None:
        peer = self._ends.owner_at(hop)
        return None if peer is None else self._uplink(self._user(peer, hop.interface))

    def _is_spared(self, hop: NextHop) -> bool:
        """Whether no train is to be sent by a link: what its line carries is said, or it is paid by volume."""
        line = self._line(hop)
        return line is not None and (line.metered or line.slower is not None)

    async def _send_train(self, measure: Measure, carried: Carried, hop: NextHop) -> None:
        peer = self._ends.owner_at(hop)
        try:
            index = socket.if_nametoindex(hop.interface)
            mbits = await asyncio.to_thread(measure, hop.address, index)
        except OSError as error:
            log.debug("what the link with %s carries is not known: %s", peer, error)
            mbits = None
        self.measured += 1
        self._schedule.note(carried, mbits, self._clock())
        if mbits is not None:
            log.debug("the link with %s on %s carries %.0f Mbit/s", peer, hop.interface, mbits)
            self._capacities.measured(hop, mbits)

    def _follow_neighbours(self, now: float) -> None:
        own = self._own()
        hops = dict.fromkeys(each.key for each in self._routing.table.neighbours.values() if each.interface in own)
        self._capacities.follow(hops)
        for hop in hops.keys() - self._since.keys():
            carried = self._carried(hop)
            if carried is not None and (mbits := self._schedule.known(carried, now)) is not None:
                self._capacities.measured(hop, mbits)
        self._since = {hop: self._since.get(hop, now) for hop in hops}
        for hop in hops:
            line = self._line(hop)
            self._capacities.said(hop, None if line is None else line.slower)

    def _note_passed(self, now: float) -> None:
        """What has come has passed the link. Of what was sent nobody knows whether it arrived."""
        passed, self._passed = self._passed, {}
        for hop in self._since:
            if (count := interface_counters.count(hop.interface, "rx_bytes", self._interfaces)) is None:
                continue
            self._passed[hop.interface] = now, count
            at, before = passed.get(hop.interface, (now, 0))
            if now - at >= LOOK / 2:
                self._capacities.passed(hop, 8 * max(0, count - before) / (now - at) / 1e6, now)

    def _price(self, now: float) -> None:
        """Tell the plane of costs: of tunnels that it does not use yet at once, of others now and then."""
        if self._plane is None:
            return
        classes = self._capacities.classes(now)
        wanted = {hop.interface: cost(each) for hop, each in classes.items()}
        unmeasured = (hop for hop in self._since if self._measure is None or self._is_spared(hop))
        late = (*unmeasured, *(hop for hop, since in self._since.items() if now - since >= PATIENCE))
        wanted |= {hop.interface: cost(UNKNOWN) for hop in late if hop not in classes}
        new = {name: each for name, each in wanted.items() if name not in self._prices}
        other = {name: each for name, each in wanted.items() if self._prices.get(name, each) != each}
        if other and now - self._changed >= COLLECT:
            self._changed = now
            new |= other
        if new:
            self._prices |= new
            self._plane.price(new)
