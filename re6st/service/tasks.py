"""The tasks of a daemon: all are in one group, so that the daemon ends, with an error, when one of them fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from re6st.linux.process import Backoff

AGAIN_FIRST, AGAIN_LAST = 1.0, 60.0
"""Seconds until work that was not finished is tried again."""
LOOK = 2.0
"""Seconds between two looks at the wall clock."""

T = TypeVar("T")


class Tasks:
    """An asyncio.TaskGroup that knows which of its tasks still run. Use it with `async with`."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Tasks:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._group.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def end_all(self) -> None:
        """End every task that still runs."""
        await asyncio.gather(*map(end, tuple(self._running)))


class Latest:
    """Carries out `work` after each `news`, one run at a time, with the newest state.

    Setting the event `given` is news, too.

    `work` says whether it finished everything; if not, it is tried again, soon at first, then less and less often.
    """

    def __init__(self, work: Callable[[], Awaitable[bool]], given: asyncio.Event | None = None) -> None:
        self._work = work
        self._news = given or asyncio.Event()

    def news(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """Run until cancelled."""
        pauses, delay = Backoff(AGAIN_FIRST, AGAIN_LAST), None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._news.wait()
            if self._news.is_set():
                pauses.reset()
            self._news.clear()
            delay = None if await self._work() else pauses.next()


async def news_or_moment(news: asyncio.Event, at: float | None, wall: Callable[[], float] = time.time) -> None:
    """Wait until there is news, or until the wall clock says `at` (Unix time).

    The clock may be set meanwhile, and the machine may sleep, which no timer notices: so we look again every few
    seconds.
    """
    while not news.is_set() and (at is None or wall() < at):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if at is None else min(max(at - wall(), 0.0), LOOK)):
                await news.wait()


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for it; its failure has been reported elsewhere."""
    task.cancel()
    await asyncio.wait([task])


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None if `stop` is set first."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        stopped.cancel()
