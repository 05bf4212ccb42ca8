"""The pulse of a node: has its rooms do what is due, and sleeps until the next deadline, or until something happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from re6st.core.mesh.policy import HEARTBEAT
from re6st.core.wire.news import VersionNews
from re6st.noded.settings import InForce

SHORTEST = 0.01
"""Seconds between two looks at what is due, at least."""


class Room(Protocol):
    """What has something to do at certain moments."""

    def next_deadline(self, now: float) -> float:
        """When `tick` is to be called, by the monotonic clock; infinite where the next heartbeat is soon enough."""

    def tick(self) -> None:
        """Do what is due. It does no harm where nothing is."""


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
        return self._in_force.plan.parameters.babel_hello is None


class Pulse:
    """`happened` is set when a room may have another deadline than before."""

    def __init__(self, rooms: Sequence[Room], happened: asyncio.Event) -> None:
        self._rooms = rooms
        self._happened = happened
        self._beat = float("-inf")
        self._last = 0.0

    def last(self) -> float:
        """When we last looked what is due, by the monotonic clock: at most a heartbeat ago, unless we are stuck."""
        return self._last

    def wake(self) -> None:
        """Look at the deadlines again."""
        self._happened.set()

    def step(self, now: float) -> float:
        """Have the rooms do what is due now, all of them at a heartbeat; returns when to do that again."""
        is_beat = now >= self._beat
        if is_beat:
            self._beat = now + HEARTBEAT
        for room in self._rooms:
            if is_beat or room.next_deadline(now) <= now:
                room.tick()
        self._last = now
        return min(self._beat, *(room.next_deadline(now) for room in self._rooms))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due = self.step(time.monotonic())
            self._happened.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(SHORTEST, due - time.monotonic())):
                    await self._happened.wait()
