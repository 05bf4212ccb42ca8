"""Keeps a table of ours as babeld's is: by its news while the table is small, by dumps once it is large.

With `monitor`, babeld tells each route again with each hello of its neighbour, and there is no way to have news of
neighbours alone: so thousands of routes are tens of thousands of lines a second. A dump tells each route once. When
to read one is decided by core/routing/dump_pace.py: what matters at once also changes the kernel's routes or
interfaces, and the kernel tells us (docs/decisions.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress

from re6st.babeld.feed import Feed, feed, not_understood
from re6st.babeld.talk import Talk
from re6st.core.routing.babel_lines import Table
from re6st.core.routing.dump_pace import DumpPace
from re6st.core.routing.table_dump import TableDump

MANY = 500
"""Entries from which on dumps cost less than news: these are up to 2,000 lines a second then."""
ANSWER_TIME = 3.0
DUMP_TIME = 60.0
"""Seconds for a dump: two hundred thousand routes take a few."""
SETTLE = 0.1
"""Seconds for the lines before an answer."""
NOTHING = ""
"""A command that babeld answers, and that changes nothing."""

log = logging.getLogger(__name__)

KernelNews = Callable[[], AsyncGenerator[None, None]]
"""Yields after each change of the kernel's interfaces and of babel's routes in it. Raises OSError where it cannot."""


class TableReader:
    """Reads over one connection; `changed` is called after each change of the table. `size` is how many entries the
    table is expected to have.
    """

    def __init__(
        self, talk: Talk, table: Table, size: int, kernel_news: KernelNews, changed: Callable[[], None]
    ) -> None:
        self._talk = talk
        self._table = table
        self._kernel_news = kernel_news
        self._changed = changed
        self._dump = TableDump(table)
        self._dumping = asyncio.Lock()
        self._feed: Feed | None = None if size > MANY else Feed(table, self._fed)
        self._grown = asyncio.Event()
        self._wake = asyncio.Event()
        self._awaited = False
        """Whether the end of the next dump is to be told, whatever it says."""
        self._pace = DumpPace(size, self._now())
        self._read_at = self._now()
        """When babeld knew what the table says, while it is read by dumps."""

    async def begin(self) -> None:
        """Read all of the table, before anything else. Raises OSError (also TimeoutError), ValueError."""
        if self._feed is None:
            await self._talk.ask("dump", lambda line: self._take((line,)))
            self._end()
            return
        # The old table is kept until all of the new one was read: half a table would say that nodes are gone.
        told = Table()
        await self._talk.ask("monitor", lambda line: feed(told, line))
        self._table.take(told)
        self._measure()

    async def follow(self) -> None:
        """Follow the changes of the table until the connection is closed. Raises ValueError as Talk.listen does."""
        driving = asyncio.create_task(self._drive(), name="dumps of babeld's table")
        try:
            await self._talk.listen(self._hear)
        finally:
            driving.cancel()
            if self._feed is not None:
                self._feed.close()
            await asyncio.wait([driving])
            if not driving.cancelled():
                driving.result()

    async def catch_up(self) -> None:
        """Wait until the table has all that babeld knows now. Raises OSError (also TimeoutError)."""
        if self._feed is None:
            await self._read_all()
        else:
            async with asyncio.timeout(ANSWER_TIME):
                await self._talk.command(NOTHING)
            await asyncio.sleep(SETTLE)

    @property
    def age(self) -> float:
        """How many seconds ago babeld knew what the table says."""
        return 0.0 if self._feed is not None else self._now() - self._read_at

    def read_soon(self, *, tell: bool = False) -> None:
        """Something has happened, of which the table may tell. `tell`: `changed` is called then, whatever it says."""
        if self._feed is None:
            self._awaited = self._awaited or tell
            self._pace.news(self._now())
            self._wake.set()

    def _hear(self, lines: list[str]) -> None:
        if self._feed is not None:
            self._feed.hear(lines)

    def _fed(self) -> None:
        self._measure()
        self._changed()

    def _measure(self) -> None:
        if self._table.size > MANY:
            self._grown.set()

    async def _drive(self) -> None:
        try:
            if self._feed is not None:
                await self._grown.wait()
                await self._talk.command("unmonitor")
                self._feed.close()
                self._feed, self._read_at = None, self._now()
                log.info(
                    "babel's table has %s entries: it is read when routes change, and now and then", self._table.size
                )
                self.read_soon()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen_to_kernel(), name="news of routes")
                group.create_task(self._dump_again_and_again(), name="dumps")
        except* OSError as errors:
            log.debug("no dump of babeld's table: %s", errors.exceptions[0])
        finally:
            self._talk.close()  # nothing is read any more

    async def _listen_to_kernel(self) -> None:
        with suppress(OSError):  # then dumps come as if nothing happened
            async with aclosing(self._kernel_news()) as changes:
                async for _ in changes:
                    self.read_soon()

    async def _dump_again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while (due := self._pace.due) > loop.time():
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()
            await self._read_all()

    async def _read_all(self) -> None:
        """Raises OSError (also TimeoutError)."""
        async with self._dumping:
            began = self._now()
            awaited, self._awaited = self._awaited, False
            try:
                async with asyncio.timeout(DUMP_TIME):
                    await self._talk.command("dump", self._take)
            except BaseException:
                self._dump.drop()
                self._talk.close()  # else the rest would be taken for a part of the next one
                raise
            self._read_at = began
            if self._end() or awaited:  # other metrics can wait: who follows the table looks at it now and then
                self._changed()

    def _end(self) -> bool:
        news, errors = self._dump.end()
        for error in errors[:1]:
            not_understood(error)
        self._pace.dumped(self._table.size, self._now())
        return news

    def _take(self, lines: Iterable[str]) -> None:
        for error in self._dump.add(lines):
            not_understood(error)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
