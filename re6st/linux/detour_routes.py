"""The kernel's routes of detours (core/routing/detours.py): preferred to those of babel, which stay beneath them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress

from re6st.core.machine.wanted_state import AddressPlan, KernelRoute
from re6st.core.routing.detours import ANYWHERE, Detour, Way
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import Netlink

RTPROT_DETOUR = 147
"""Marks them; a number that nobody registered (/etc/iproute2/rt_protos)."""
PRIORITY = 1000
"""Before babel's, of which the first is core/routing/babel_settings.py's."""
LASTS = 60
"""Seconds after which the kernel removes one of IPv6 by itself: a node that was killed, and is started again as a
version that knows nothing of them, would leave them for good. Babel has other ways much sooner."""
AT_ONCE = 200
"""Routes that are changed before others have their turn: two milliseconds or so."""


class DetourRoutes:
    """Those that are there, in the kernel's main table."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._there: dict[Way, KernelRoute] = {}

    async def follow(self, wanted: Mapping[Way, Detour], plans: Iterable[AddressPlan]) -> None:
        """Have these and no others. One that the kernel refuses is left out: babel's own route is there."""
        sources = {each.network.version: each.address for each in plans if not each.shared}
        indexes: dict[str, int] = {}
        for name in {detour.by.interface for detour in wanted.values()}:
            with suppress(OSError):  # it is not there any more
                indexes[name] = socket.if_nametoindex(name)
        routes, count = {}, 0
        for way, detour in wanted.items():
            destination, source = way
            if detour.by.interface in indexes:
                routes[way] = KernelRoute(
                    destination,
                    None if source == ANYWHERE else source,
                    detour.by.address,
                    indexes[detour.by.interface],
                    RTPROT_DETOUR,
                    priority=PRIORITY,
                    preferred=sources.get(destination.version),
                    lasts=LASTS if destination.version == 6 else None,
                )
            if (count := count + 1) % AT_ONCE == 0:
                await asyncio.sleep(0)
        for way in [way for way, route in self._there.items() if routes.get(way) != route]:
            route = self._there.pop(way)
            if way not in routes:
                with suppress(NetlinkError):
                    self._netlink.delete_route(route)
            if (count := count + 1) % AT_ONCE == 0:
                await asyncio.sleep(0)
        for way, route in routes.items():
            if way not in self._there:
                with suppress(NetlinkError):
                    self._netlink.add_route(route, replace=True)
                    self._there[way] = route
                if (count := count + 1) % AT_ONCE == 0:
                    await asyncio.sleep(0)


def clear(netlink: Netlink) -> int:
    """Remove those that an earlier run left; how many there were."""
    count = 0
    for family in (socket.AF_INET6, socket.AF_INET):
        for route in list(netlink.routes(family, protocol=RTPROT_DETOUR)):
            with suppress(NetlinkError):
                netlink.delete_route(route)
                count += 1
    return count
