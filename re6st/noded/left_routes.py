"""Routes in the kernel of a babeld that ended: what was left runs on, until the next babeld knows its way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Set, Sized
from typing import Protocol

from re6st.babel import Network, RouteKey6
from re6st.core.machine.wanted_state import AddressPlan

log = logging.getLogger(__name__)


class SweptRoutes(Protocol):
    """Those of babelds, in one table of the kernel: linux/babel_routes.py."""

    async def sweep(
        self, plans: Collection[AddressPlan], priority: int | None, only: Set[tuple[Network, Network]] | None = None
    ) -> Sized:
        """Remove those of other priorities, or `only` to some destinations; returns them."""

    async def sweep_lost(self, plans: Collection[AddressPlan]) -> Sized:
        """Remove those that say that there is no way; returns them."""


class FormerNetworks(Protocol):
    """Our networks: those of now, and those that were given up, in which routes may be left too."""

    @property
    def wanted(self) -> Collection[AddressPlan]: ...
    @property
    def former(self) -> Collection[AddressPlan]: ...


class NextBabeld(Protocol):
    """The babeld that takes over."""

    name: str
    followed: asyncio.Event
    ready: asyncio.Event
    priority: int

    def take_over(self) -> AsyncIterator[frozenset[RouteKey6]]: ...


class LeftRoutes:
    """Removes them."""

    def __init__(self, routes: SweptRoutes, networks: FormerNetworks) -> None:
        self._routes = routes
        self._networks = networks

    async def forget_lost(self) -> None:
        """Remove what a babeld that ended held as unreachable, before the next one starts.

        The ways that it had may still lead there; what it had just lost says nothing of the network of now. Where
        regions come into force, each way to a node of another region is lost, for the region's own route.
        """
        try:
            await self._routes.sweep_lost({*self._networks.wanted, *self._networks.former})
        except OSError as error:
            log.warning("cannot remove what the previous babeld held as unreachable: %s", error)

    async def sweep(self, babel: NextBabeld) -> None:
        """Remove what one that ended left, once the next one knows its way; until cancelled."""
        while True:
            await babel.followed.wait()
            babel.followed.clear()
            count = 0
            async for ways in babel.take_over():
                count += len(await self._routes.sweep(self._networks.wanted, babel.priority, ways))
            if babel.ready.is_set() and not babel.followed.is_set():
                everywhere = {*self._networks.wanted, *self._networks.former}
                count += len(await self._routes.sweep(everywhere, babel.priority))
                log.info("the new %s knows the network: removed %s routes of the previous one", babel.name, count)


def lead_out(routes: Iterable[tuple[Network, Network]]) -> bool:
    """Whether one of these, each with the source of its packets, led to a gateway of the network."""
    return any(not destination.prefixlen for destination, _ in routes)
