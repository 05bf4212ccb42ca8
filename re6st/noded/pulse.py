"""The pulse of a node: keeps the rhythm of its rooms; it sleeps until the next deadline, or until something happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from re6st.core.wire.news import VersionNews
from re6st.noded.rhythm import Rhythm, Room
from re6st.noded.settings import InForce

SHORTEST = 0.01
"""Seconds between two looks at what is due, at least."""


class VersionTeller:
    """Has the version of the network's parameters told, as one of the rooms."""

    def __init__(self, news: VersionNews, in_force: InForce) -> None:
        self._news = news
        self._in_force = in_force

    def next_deadline(self, now: float) -> float:
        return self._news.next_deadline(now, older=self._has_older())

    def tick(self) -> None:
        self._news.tick(time.monotonic(), older=self._has_older())

    def _has_older(self) -> bool:
        """Whether there may be nodes of the older software in the network."""
        return self._in_force.effective.parameters.babel_hello is None


class Pulse:
    """Keeps the rhythm of a node. `happened` is set when a room may have another deadline than before."""

    def __init__(self, rooms: Sequence[Room], happened: asyncio.Event) -> None:
        self._rhythm = Rhythm(rooms)
        self._happened = happened
        self._last = 0.0

    def last(self) -> float:
        """When we last looked what is due, by the monotonic clock: at most a heartbeat ago, unless we are stuck."""
        return self._last

    def wake(self) -> None:
        """Look at the deadlines again."""
        self._happened.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._last = time.monotonic()
            due = self._rhythm.step(self._last)
            self._happened.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(SHORTEST, due - time.monotonic())):
                    await self._happened.wait()
