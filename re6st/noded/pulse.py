"""The pulse of a node: what its rooms do every second."""

from __future__ import annotations

import asyncio
import time

from re6st.core.wire.news import VersionNews
from re6st.noded.guard import Guard
from re6st.noded.mesh_driver import MeshDriver
from re6st.noded.peer_cache import Cache
from re6st.noded.peer_socket import Peers
from re6st.noded.settings import InForce

TICK = 1.0


class Pulse:
    """Has the rooms do what is due."""

    def __init__(
        self, driver: MeshDriver, peers: Peers, guard: Guard, cache: Cache, news: VersionNews, in_force: InForce
    ) -> None:
        self._driver = driver
        self._peers = peers
        self._guard = guard
        self._cache = cache
        self._news = news
        self._in_force = in_force
        self._last = 0.0

    def last(self) -> float:
        """When that was done last, by the monotonic clock."""
        return self._last

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._driver.tick()
            self._peers.tick()
            self._guard.tick()
            self._cache.tick()
            older = self._in_force.plan.parameters.babel_hello is None
            self._news.tick(time.monotonic(), older=older)
            self._last = time.monotonic()
            await asyncio.sleep(TICK / 4 if self._driver.draining else TICK)
