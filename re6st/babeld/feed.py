"""Feeds a table with babeld's news: urgent lines at once, those that can wait together with others.

An idle network has some twenty groups of lines a second. Most only say of routes what their metrics are now, so nothing
is woken for a group: the lines are looked at as they come, and a timer is set for what can wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from re6st.core.routing.babel_lines import LineError, News, Table

LATE_FIRST, LATE_PER_LINE, LATE_LAST = 1.0, 0.005, 20.0
"""Seconds after which changed metrics are taken in, so that they take at most a five hundredth of a core."""

log = logging.getLogger(__name__)


class Feed:
    """`changed` is called after each change of the table. It is for a running event loop."""

    def __init__(self, table: Table, changed: Callable[[], None]) -> None:
        self._table = table
        self._changed = changed
        self._news = News(table)
        self._loop = asyncio.get_running_loop()
        self._late_at = 0.0
        """When those that can wait are taken in next."""
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Take in nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def hear(self, lines: Iterable[str]) -> None:
        """Lines that came."""
        for line in lines:
            try:
                self._news.add(line)
            except LineError as error:
                not_understood(error)
        if self._news:
            # Not before the lines that are there already have come too.
            self._wake(self._loop.time() if self._news.urgent else self._late_at)

    def _wake(self, at: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._take)

    def _take(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = now >= self._late_at
        if late:
            self._late_at = now + min(max(LATE_FIRST, LATE_PER_LINE * len(self._news)), LATE_LAST)
        changes = [feed(self._table, line) for line in self._news.take(late=late)]
        if late:
            changes += [self._measure(ident, text) for ident, text in self._news.metrics().items()]
        if any(changes):
            self._changed()
        if self._news:
            self._wake(self._late_at)

    def _measure(self, ident: str, text: str) -> bool:
        try:
            return self._table.measure(ident, text)
        except LineError as error:
            not_understood(error)
            return False


def feed(table: Table, line: str) -> bool:
    """Take in one line; whether the table is another now. What cannot be read is logged."""
    try:
        return table.feed(line.strip()) is not None
    except LineError as error:
        not_understood(error)
        return False


def not_understood(error: LineError) -> None:
    """Log that a line cannot be read."""
    log.warning("cannot read a line of babeld's socket: %s", error)
