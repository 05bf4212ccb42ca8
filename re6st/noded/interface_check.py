"""Interfaces that were deleted while babel had neighbours on them, and are there again by the same name.

A network manager does so with a bridge, and we do with our own that another program deleted. babeld 1.12.1 goes on
sending what is for such a neighbour alone to the interface that is gone, and as the neighbour is heard on the new one,
it is never forgotten: the link is lost for both of them, for good. So babeld is started anew.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Protocol

from re6st.core.routing.babel_lines import Table
from re6st.linux import address_monitor


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

    def __init__(self, babel: RestartableRouting, indexes: Callable[[], Mapping[str, int]] = indexes) -> None:
        self._babel = babel
        self._indexes = indexes
        self._known: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled. Raises OSError where the kernel tells nothing."""
        async with aclosing(address_monitor.changes()) as changes:
            async for _ in changes:
                with contextlib.suppress(OSError):  # it changed meanwhile, which is told too
                    await self.look()

    async def look(self) -> None:
        """Look once. Raises OSError."""
        table = self._babel.table
        used = {neighbour.interface for neighbour in table.neighbours.values()}
        now = self._indexes()
        replaced = sorted(name for name in used & now.keys() if self._known.get(name, now[name]) != now[name])
        # Of one that is not there now, it is remembered what it was, as long as there are neighbours on it.
        self._known = {**{name: index for name, index in self._known.items() if name in used}, **now}
        if replaced:
            many = (
                "other interfaces than before have the names"
                if replaced[1:]
                else "another interface than before has the name"
            )
            await self._babel.renew(f"{many} {', '.join(replaced)}")
