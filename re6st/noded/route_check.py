"""Babel's routes that others removed from the kernel: babeld, which does not look there again, is started anew.

What is left of its routes serves meanwhile, so that only the traffic is concerned that had no way any more. The kernel
tells that routes have changed, not what that means: then all are compared, and while some are missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import aclosing, suppress
from typing import Protocol

from re6st.core.limits.restarts import Restarts
from re6st.core.machine.wanted_state import AddressPlan, KernelRoute
from re6st.core.routing.babel_lines import Table
from re6st.core.routing.lost_routes import LASTING, LostRoutes, RouteKey, installed
from re6st.core.words import plural
from re6st.linux import address_monitor
from re6st.linux.babel_routes import Installed
from re6st.linux.netlink import NetlinkError

LOOK_FIRST, LOOK_PER_ROUTE, LOOK_LAST = LASTING / 2, 0.003, 10.0
"""Seconds between two looks, so that they cost a hundredth of a core, at most."""
QUIET_PER_ROUTE, QUIET_LAST = 0.01, 60.0
"""Seconds between two looks where nothing is told; not fewer than LOOK_LAST."""
AGAIN_FIRST, AGAIN_LAST = 5.0, 300.0
"""Seconds between two restarts for this reason, where routes are removed all the time: doubled with each."""

log = logging.getLogger(__name__)


class InstalledRoutes(Protocol):
    """Those that a babeld gave the kernel: linux/babel_routes.py."""

    async def installed(self, plans: Collection[AddressPlan], priority: int, expected: int) -> Installed: ...
    async def name_source(self, routes: Collection[KernelRoute]) -> None: ...


class Babeld(Protocol):
    """What is known of a babeld, and what can be done with it."""

    table: Table
    priority: int

    @property
    def informed(self) -> bool: ...
    async def keeps_up(self) -> bool: ...
    async def renew(self, reason: str) -> None: ...


class WantedNetworks(Protocol):
    """Our networks."""

    @property
    def wanted(self) -> Collection[AddressPlan]: ...


class RouteCheck:
    """Compares what a babeld says with what the kernel has in our networks.

    A node does this for its main plane. The others are detours by choice: a packet for which the table of one has no
    route goes on to the main table, so what is removed there costs the better way, and cuts nobody off.
    """

    def __init__(
        self,
        routes: InstalledRoutes,
        babel: Babeld,
        networks: WantedNetworks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._babel = babel
        self._networks = networks
        self._clock = clock
        self._lost = LostRoutes()
        self._restarts = Restarts(AGAIN_FIRST, AGAIN_LAST)
        self._most = 0
        """The most routes that babeld has used."""
        self._news = asyncio.Event()
        self.missing: frozenset[RouteKey] = frozenset()
        """What is lost, until babeld has put it there again."""

    def problems(self) -> list[str]:
        """What is wrong now, in words."""
        if not self.missing:
            return []
        return [f"the kernel lacks {_routes(len(self.missing))} of babel that another program removed"]

    async def run(self) -> None:
        """Until cancelled. Raises OSError where the kernel tells nothing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="news of routes")
            group.create_task(self._look_again(), name="babel's routes that the kernel lost")

    async def _listen(self) -> None:
        async with aclosing(address_monitor.changes(address_monitor.open_routes)) as changes:
            async for _ in changes:
                self._news.set()

    async def _look_again(self) -> None:
        while True:
            self._news.clear()
            try:
                await self.look()
            except NetlinkError as error:  # it changed all the time
                log.debug("babel's routes: %s", error)
                self._news.set()
            routes = len(self._babel.table.routes)
            pause = min(max(LOOK_FIRST, LOOK_PER_ROUTE * routes), LOOK_LAST)
            await asyncio.sleep(pause)
            if not self._lost.pending:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(max(LOOK_LAST, QUIET_PER_ROUTE * routes), QUIET_LAST) - pause):
                        await self._news.wait()

    async def look(self) -> None:
        """Look once. Raises NetlinkError."""
        if not self._babel.informed:
            return
        missing = await self._missing()
        self.missing = self._lost.note(missing, self._clock())
        if not self.missing:
            self._restarts.rest(self._clock())
            return
        # What it said before is read by then, so that it is not we who are late.
        if self._restarts.wait(self._clock()) or not await self._babel.keeps_up():
            return
        self.missing = self._lost.note(missing & await self._missing(), self._clock())
        if self.missing:
            self._restarts.note(self._clock())
            log.warning("another program removed %s of babel from the kernel", _routes(len(self.missing)))
            await self._babel.renew("the kernel lost its routes")

    async def _missing(self) -> frozenset[RouteKey]:
        plans = self._networks.wanted
        # A babeld that has just been started knows few, but the kernel still has those of the one before.
        self._most = max(self._most, sum(each.usable for each in self._babel.table.routes.values()))
        kernel = await self._routes.installed(plans, self._babel.priority, self._most)
        if kernel.sourceless:
            await self._routes.name_source(kernel.sourceless)
        return frozenset(installed(self._babel.table, [each.network for each in plans]) - kernel.ways)


def _routes(count: int) -> str:
    return plural(count, "route")
