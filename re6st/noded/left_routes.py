"""Routes in the kernel of a babeld that ended: what was left runs on, until the next babeld knows its way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from re6st.babel import Babel
from re6st.linux.kernel import Kernel, Network, Presence

log = logging.getLogger(__name__)


class LeftRoutes:
    """Finds them at the start, and removes them later: in our networks, and in those that were given up (`former`)."""

    def __init__(
        self, kernel: Kernel, presences: Callable[[], Sequence[Presence]], former: Callable[[], Collection[Presence]]
    ) -> None:
        self.routes: dict[tuple[Network, Network], int] = {}
        """Destination and source of each that an earlier daemon's babeld made, and its priority."""
        self._kernel = kernel
        self._presences = presences
        self._former = former

    async def find(self) -> None:
        """Read what is there."""
        self.routes = await self._kernel.babel_routes(self._presences())

    @property
    def has_way_out(self) -> bool:
        """Whether one led to a gateway of the network."""
        return any(not destination.prefixlen for destination, _ in self.routes)

    async def sweep(self, babel: Babel) -> None:
        """Remove what one that ended left, once the next one knows its way; until cancelled."""
        while True:
            await babel.followed.wait()
            babel.followed.clear()
            count = 0
            async for ways in babel.take_over():
                count += await self._kernel.sweep(self._presences(), babel.priority, ways)
            if babel.ready.is_set() and not babel.followed.is_set():
                count += await self._kernel.sweep({*self._presences(), *self._former()}, babel.priority)
                log.info("babeld took over; %s routes that the last one left are removed", count)
