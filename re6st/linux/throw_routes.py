"""Routes that send packets on from a plane's table to the main one (ip-route(8), `throw`).

Where babeld has lost a way, it leaves an unreachable route in its table, and all that comes there is dropped. A route
before that one has the kernel look into the next table instead. One before babeld's own does so for a destination whose
way, as we know already, leads by a dead link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv6Network

from re6st.core.machine.wanted_state import KernelRoute
from re6st.linux import detour_routes
from re6st.linux.detour_routes import AT_ONCE, RTPROT_DETOUR
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import Netlink

RTN_THROW = 9  # linux/rtnetlink.h
BEFORE_BABEL = detour_routes.PRIORITY
AFTER_BABEL = 0x7FFFFFFF
"""After babeld's routes, and before an unreachable one of babeld's, which has the last priority there is."""


class ThrowRoutes:
    """Those that are there, in one table of the kernel. They are marked as detours are: whoever starts removes both."""

    def __init__(self, netlink: Netlink, table: int) -> None:
        self._netlink = netlink
        self._table = table
        self._there: set[tuple[IPv6Network, int]] = set()
        """The destination and the priority of each."""

    async def follow(self, wanted: Mapping[IPv6Network, bool]) -> None:
        """Have one for each of these destinations and no others: and where it says so, one before babeld's route.

        One that the kernel refuses is tried again the next time.
        """
        routes = {(destination, AFTER_BABEL) for destination in wanted}
        routes |= {(destination, BEFORE_BABEL) for destination, before in wanted.items() if before}
        count = 0
        for each in self._there - routes:
            self._there.discard(each)
            with suppress(NetlinkError):
                self._netlink.delete_route(self._route(*each))
            if (count := count + 1) % AT_ONCE == 0:
                await asyncio.sleep(0)
        for each in routes - self._there:
            with suppress(NetlinkError):
                self._netlink.add_route(self._route(*each), replace=True)
                self._there.add(each)
            if (count := count + 1) % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _route(self, destination: IPv6Network, priority: int) -> KernelRoute:
        return KernelRoute(destination, protocol=RTPROT_DETOUR, type=RTN_THROW, priority=priority, table=self._table)
