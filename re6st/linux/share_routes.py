"""The kernel's routes over each line of ours (core/routing/line_ways.py), or of others (handing.py), by table."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Network

from re6st.core.machine.wanted_state import KernelRoute
from re6st.core.routing.line_ways import LineWays
from re6st.linux.detour_routes import AT_ONCE, PRIORITY, RTPROT_DETOUR
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import Netlink

_Key = tuple[int, IPv6Network]
"""Slot and destination."""
_Hop = tuple[IPv6Address, int]
"""Address and the interface's index."""


class ShareRoutes:
    """Those that are there. They are marked as detours are: whoever starts removes both."""

    def __init__(self, netlink: Netlink, table: Callable[[int], int]) -> None:
        self._netlink = netlink
        self._table = table
        self._there: dict[_Key, _Hop] = {}

    async def follow(
        self, wanted: LineWays, source: IPv6Address, *, anew: bool = False
    ) -> frozenset[tuple[int, IPv6Network]]:
        """Have these and no others; `source` is our address. One that the kernel refuses is left out, and tried again
        the next time: what would go by it goes as babel says. `anew`: also put there what is, or was, there. Returns
        the slots and destinations of which there is none.
        """
        indexes: dict[str, int] = {}
        for name in {hop.interface for ways in wanted.values() for hop in ways.values()}:
            with suppress(OSError):  # it is not there any more
                indexes[name] = socket.if_nametoindex(name)
        routes = {
            (slot, to): (hop.address, indexes[hop.interface])
            for slot, ways in wanted.items()
            for to, hop in ways.items()
            if hop.interface in indexes
        }
        await self._remove([key for key in self._there if key not in routes])
        count = 0
        for key, by in routes.items():
            if anew or self._there.get(key) != by:
                with suppress(NetlinkError):
                    self._there.pop(key, None)
                    self._netlink.add_route(self._route(key, by, source), replace=True)
                    self._there[key] = by
                if (count := count + 1) % AT_ONCE == 0:
                    await asyncio.sleep(0)
        return frozenset((slot, to) for slot, ways in wanted.items() for to in ways) - self._there.keys()

    async def _remove(self, keys: Collection[_Key]) -> None:
        for count, key in enumerate(keys, 1):
            by = self._there.pop(key)
            with suppress(NetlinkError):
                self._netlink.delete_route(self._route(key, by))
            if count % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _route(self, key: _Key, by: _Hop, source: IPv6Address | None = None) -> KernelRoute:
        return KernelRoute(
            key[1],
            gateway=by[0],
            interface=by[1],
            protocol=RTPROT_DETOUR,
            priority=PRIORITY,
            table=self._table(key[0]),
            preferred=source,
        )
