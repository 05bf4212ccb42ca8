"""The log of a running node for those who follow it over the control socket, and its level (docs/control.md).

Everybody who follows may see more than the log itself keeps: a level of their own costs the log nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator

from re6st.core.telemetry.report import Record
from re6st.service.control import ControlError
from re6st.service.json_lines import Status
from re6st.service.logs import LEVELS, LogHandler, set_verbosity

BEHIND_LIMIT = 500
"""Lines that wait for somebody who reads slowly; the oldest are left out, and counted."""
TEXT_LIMIT = 8192
"""Characters of one message."""

log = logging.getLogger(__name__)


class LogStream:
    """`verbosity` is the node's -v; as with that, levels are 0 to 4."""

    def __init__(self, verbosity: int) -> None:
        self.verbosity = verbosity
        self._silent = verbosity == 0
        self._followers: dict[_Follower, int] = {}

    def change(self, level: int) -> Record:
        """Keep another level from now on. Raises ControlError."""
        if self._silent:
            raise ControlError(Status.FAILED, "started with -v 0, so there is no log: start again with another level")
        was = self.verbosity
        self._use(max(was, level))
        log.warning("the log level is %s now, it was %s", level, was)
        self._use(level)
        return {"level": level, "was": was}

    def follow(self, level: int | None) -> AsyncGenerator[Record, None]:
        """What is logged from now on, up to a level (None: that of the log). Raises ControlError."""
        if self._silent and level is None:
            raise ControlError(Status.FAILED, "started with -v 0, so there is no log: follow it with a level")
        return self._lines(self.verbosity if level is None else level)

    async def _lines(self, level: int) -> AsyncGenerator[Record, None]:
        follower = _Follower(level)
        root = logging.getLogger()
        root.addHandler(follower)
        self._followers[follower] = level
        self._use(self.verbosity)
        try:
            yield {"following": True, "level": level}
            while True:
                for record in await follower.next():
                    yield record
        finally:
            root.removeHandler(follower)
            del self._followers[follower]
            self._use(self.verbosity)

    def _use(self, verbosity: int) -> None:
        """What somebody wants is logged, and the log gets no more of it than is its own."""
        self.verbosity = verbosity
        set_verbosity(max(verbosity, *self._followers.values(), 0))
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LogHandler):
                handler.setLevel(LEVELS[verbosity])


class _Follower(logging.Handler):
    """Keeps lines for one who follows. Other threads log too."""

    def __init__(self, level: int) -> None:
        super().__init__(LEVELS[level])
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Record] = deque(maxlen=BEHIND_LIMIT)
        self._dropped = 0
        self._news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)[:TEXT_LIMIT]
        except Exception:  # a wrong logging call is no reason to break off
            self.handleError(record)
            return
        self._dropped += len(self._waiting) == BEHIND_LIMIT
        line = {"time": round(record.created, 3), "level": record.levelname, "name": record.name, "text": text}
        self._waiting.append(line)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._news.set)

    async def next(self) -> list[Record]:
        """The lines since the last time, with the number of those that were left out before each."""
        await self._news.wait()
        self._news.clear()
        with self.lock or contextlib.nullcontext():
            lines, dropped = list(self._waiting), self._dropped
            self._waiting.clear()
            self._dropped = 0
        if lines and dropped:
            lines[0] = {**lines[0], "left_out": dropped}
        return lines
