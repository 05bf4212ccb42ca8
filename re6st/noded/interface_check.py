"""Interfaces that were deleted while babel had neighbours on them, and are there again by the same name.

A network manager does so with a bridge, and we do with our own that another program deleted. babeld 1.12.1 goes on
sending what is for such a neighbour alone to the interface that is gone, and as the neighbour is heard on the new one,
it is never forgotten: the link is lost for both of them, for good. So babeld is started anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Protocol

from re6st.core.limits.restarts import Restarts
from re6st.core.routing.babel_lines import Table
from re6st.linux import address_monitor

AGAIN_FIRST, AGAIN_LAST = 5.0, 300.0
"""Seconds between two restarts for this reason, where interfaces are replaced all the time: doubled with each."""


class RestartableRouting(Protocol):
    """What knows babel's neighbours: babel.py."""

    @property
    def table(self) -> Table: ...

    async def renew(self, reason: str) -> None: ...


def indexes() -> dict[str, int]:
    """This machine's interfaces, with the index of each. Raises OSError."""
    return {name: index for index, name in socket.if_nameindex()}


class InterfaceCheck:
    """Compares what each name of an interface stands for with what it stood for before."""

    def __init__(
        self,
        babel: RestartableRouting,
        indexes: Callable[[], Mapping[str, int]] = indexes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._babel = babel
        self._indexes = indexes
        self._clock = clock
        self._news = asyncio.Event()
        self._known: dict[str, int] = {}
        self._replaced: set[str] = set()
        """Those that babel is to be told of by a restart."""
        self._restarts = Restarts(AGAIN_FIRST, AGAIN_LAST)

    async def run(self) -> None:
        """Until cancelled. Raises OSError where the kernel tells nothing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="news of interfaces")
            group.create_task(self._look_again(), name="interfaces that were replaced")

    async def _listen(self) -> None:
        async with aclosing(address_monitor.changes()) as changes:
            async for _ in changes:
                self._news.set()

    async def _look_again(self) -> None:
        wait = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
            self._news.clear()
            with contextlib.suppress(OSError):  # it changed meanwhile, which is told too
                wait = await self.look()

    async def look(self) -> float | None:
        """Look once; returns the seconds until it is to be done again without news, if it is. Raises OSError."""
        table = self._babel.table
        used = {neighbour.interface for neighbour in table.neighbours.values()}
        now = self._indexes()
        replaced = {name for name in used & now.keys() if self._known.get(name, now[name]) != now[name]}
        # Of one that is not there now, it is remembered what it was, as long as there are neighbours on it.
        self._known = {**{name: index for name, index in self._known.items() if name in used}, **now}
        self._replaced = (self._replaced | replaced) & used
        if not self._replaced:
            self._restarts.rest(self._clock())
            return None
        if wait := self._restarts.wait(self._clock()):
            return wait
        names, self._replaced = sorted(self._replaced), set()
        many = (
            "other interfaces than before have the names" if names[1:] else "another interface than before has the name"
        )
        self._restarts.note(self._clock())
        await self._babel.renew(f"{many} {', '.join(names)}")
        return None
