"""The throughput plane: a second babeld, whose routes are for bulk traffic (core/routing/planes.py).

It is there as long as the network has two planes, and this machine can do what they need: rules that look at the class
of a packet alone, and nftables, which takes its class from what leaves the plane. Without these it must not be there:
packets could go in a circle between the two planes. A node without it just goes on with one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Network
from typing import Protocol

from re6st.core.machine.wanted_state import Fault, KernelRule, bulk_rules
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.detours import ANYWHERE
from re6st.core.routing.planes import Plane
from re6st.core.routing.route_history import RouteHistory
from re6st.core.routing.survey import Survey
from re6st.noded.left_routes import SweptRoutes
from re6st.noded.routing import AnyPlane, Follower, PlaneKernel
from re6st.noded.settings import InForce

LOOK = 1.0
"""Seconds between two looks at whether nftables does its part."""
AGAIN = 60.0
"""Seconds until the kernel is asked again for what it refused."""

log = logging.getLogger(__name__)


class TablePlane(AnyPlane, Protocol):
    """A plane with a babeld."""

    @property
    def table(self) -> Table: ...
    @property
    def history(self) -> RouteHistory: ...
    @property
    def priority(self) -> int: ...
    @property
    def age(self) -> float | None: ...
    def read_soon(self) -> None: ...
    def look_again(self) -> None: ...
    def survey(self) -> Survey: ...
    def price(self, costs: Mapping[str, int]) -> None:
        """Use these interfaces too, at these costs."""


class LeadingFilter(Protocol):
    """The packet filter."""

    @property
    def leads(self) -> bool: ...


class RuleKernel(Protocol):
    """Who has the kernel lead packets by their class."""

    async def lead(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        """Raises NetlinkError where there are to be any."""

    async def leads_by_class(self) -> bool:
        """Raises NetlinkError."""


class Throws(Protocol):
    """Who sends packets on to the main table: linux/throw_routes.py."""

    async def follow(self, wanted: Mapping[IPv6Network, bool]) -> None: ...


class BesideKernel:
    """The kernel, for a plane beside the main one, whose babeld has put the addresses on the links."""

    def __init__(self, kernel: PlaneKernel) -> None:
        self._kernel = kernel

    async def address_links(self, own: IPv4Interface | None) -> None:
        """Nothing: babeld would forget all routes of an interface whose address changes."""

    def babel_routes(self, plane: Plane) -> SweptRoutes:
        """Those that its babelds gave the kernel."""
        return self._kernel.babel_routes(plane)

    def has_babel(self, interface: str) -> bool:
        """Whether a babeld uses an interface. Raises OSError where there is none."""
        return self._kernel.has_babel(interface)


class Throughput:
    """One of the planes of a node, if it has it. `make` makes it anew each time; `main` is what the main one knows."""

    def __init__(
        self,
        make: Callable[[], TablePlane],
        in_force: InForce,
        packet_filter: LeadingFilter,
        kernel: RuleKernel,
        throws: Throws,
        main: Callable[[], Table] = Table,
    ) -> None:
        self.trouble = ""
        """What keeps it away, where the network has two planes."""
        self._changed: Callable[[TablePlane | None], object] = lambda _: None
        self._watch: Callable[[TablePlane | None], object] = lambda _: None
        self._make = make
        self._in_force = in_force
        self._filter = packet_filter
        self._kernel = kernel
        self._throws = throws
        self._main = main
        self._plane: TablePlane | None = None
        self._forwards = True
        self._by_class: bool | None = None
        self._news = asyncio.Event()
        self._dead: frozenset[NextHop] = frozenset()
        self._lock = asyncio.Lock()

    def start(
        self, changed: Callable[[TablePlane | None], object], watch: Callable[[TablePlane | None], object]
    ) -> None:
        """Work with these: `changed` hears when the plane begins, and when it ends; `watch` sees after each change of
        its table who claims what, and that there is none any more.
        """
        self._changed, self._watch = changed, watch

    @property
    def plane(self) -> TablePlane | None:
        """None while it is not there."""
        return self._plane

    async def run(self, follower: Follower) -> None:
        """Until cancelled."""
        while True:
            if await self._may():
                await self._live()
            pause = LOOK if self._is_wanted and not self._filter.leads else AGAIN
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()
            self._news.clear()

    # -- what others tell --

    def follow_settings(self) -> None:
        """Other settings are in force."""
        self._news.set()
        if self._plane is not None:
            self._plane.follow_settings()

    def forward(self, forwards: bool) -> None:
        """Whether this machine forwards packets from one tunnel to another."""
        self._forwards = forwards
        if self._plane is not None:
            self._plane.forward(forwards)

    async def until_unused(self, interface: str) -> None:
        """Until it does not use an interface any more, which is down, or gone; not long."""
        if self._plane is not None:
            await self._plane.until_unused(interface)

    def reopen_log(self) -> None:
        """Its log file was moved away."""
        if self._plane is not None:
            self._plane.reopen_log()

    async def follow(self, table: Table, seen: Survey) -> None:
        """Its babeld's table has changed."""
        if self._plane is not None and not seen.late:  # else an interface may have another peer by now
            self._watch(self._plane)
        if seen.running:  # else the routes of the babeld that ended stay until the next one knows its way
            await self._throw()

    async def avoid(self, dead: frozenset[NextHop]) -> None:
        """These links are dead, and no others: what would go by them goes by latency, which leads around them."""
        if dead != self._dead:
            self._dead = dead
            await self._throw()

    # -- within --

    @property
    def _network(self) -> IPv6Network:
        return self._in_force.effective.identity.trust.network

    @property
    def _is_wanted(self) -> bool:
        return self._in_force.effective.planes > 1

    async def _may(self) -> bool:
        """Whether it can be there; if not, but wanted, why."""
        if not self._is_wanted:
            await self._kernel.lead(())
            self._tell("")
            return False
        if not self._filter.leads:
            self._tell("nftables does not do its part")
            return False
        try:
            if self._by_class is None:
                self._by_class = await self._kernel.leads_by_class()
            if not self._by_class:
                self._tell("this kernel compares more than the class of packets (it needs Linux 5.18)")
                return False
            faults = await self._kernel.lead(bulk_rules(self._network))
        except OSError as error:
            self._tell(f"the kernel takes no rules for routes: {error.strerror}")
            return False
        self._tell("; ".join(map(str, faults)))
        return not faults

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("bulk traffic goes by latency, as all else: %s", trouble)
        self.trouble = trouble

    async def _live(self) -> None:
        """Until it is not wanted any more, or cannot be there."""
        plane = self._make()
        plane.forward(self._forwards)
        log.info("bulk traffic goes by capacity where it can")
        self._plane = plane
        self._changed(plane)
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(plane.run(self), name="throughput plane")
                while self._is_wanted and self._filter.leads:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK)
                running.cancel()
        finally:
            self._plane = None
            self._changed(None)
            self._watch(None)
            async with self._lock:
                await self._throws.follow({})
        log.info("bulk traffic goes by latency again, as all else")

    async def _throw(self) -> None:
        """Have what comes to a lost way go on by latency, and what would come to a dead link."""
        async with self._lock:
            if self._plane is None:
                return
            # Those of the main plane too: one that is new here may be lost before we hear of it.
            known = (each for each in self._main().routes.values() if each.source == ANYWHERE)
            wanted = {each.destination: False for each in known if each.destination.subnet_of(self._network)}
            for route in self._plane.table.routes.values():
                if route.source == ANYWHERE:
                    dead = route.usable and route.via in self._dead
                    wanted[route.destination] = wanted.get(route.destination, False) or dead
            await self._throws.follow(wanted)
