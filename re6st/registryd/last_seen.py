"""When nodes last called the registry, and with which software: kept in memory, and written once a minute (wire.md
3.3).

A call costs one entry in a dictionary. If the registry is killed, no more than a minute of this is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from re6st.core.prefix import Prefix
from re6st.core.registry.sessions import CONFIRMED_LIMIT, HelloClaims
from re6st.core.routing.twins import ADVICE, Twins
from re6st.core.wire import extensions
from re6st.core.wire.extensions import needs_long_hellos
from re6st.registryd.records import LastCall
from re6st.registryd.repository import Changes, Repository, RepositoryError

logger = logging.getLogger("registry")

WRITE_INTERVAL = 60.0
NEWS_INTERVAL = 1.0
CALLS_WINDOW = 600.0
"""Two machines with one certificate call in turn within so many seconds."""
CHUNK = 500
"""Number of nodes in one job of the store, so that others need not wait."""
SOFTWARE_LIMIT = 200
AGENT = "re6stnet/"
"""How the User-Agent of nodes begins (wire.md 3.1)."""


class Served:
    """The version of the parameters that each node last fetched since the registry started.

    If there are more than `limit` nodes, those that fetched them longest ago are forgotten: nobody tells us when a node
    is gone.
    """

    def __init__(self, limit: int = CONFIRMED_LIMIT) -> None:
        self._limit = limit
        self._versions: OrderedDict[Prefix, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._versions)

    def note(self, prefix: Prefix, version: int) -> None:
        self._versions[prefix] = version
        self._versions.move_to_end(prefix)
        if len(self._versions) > self._limit:
            self._versions.popitem(last=False)

    def forget(self, prefix: Prefix) -> None:
        """The node has no certificate any more, or another one."""
        self._versions.pop(prefix, None)

    def version(self, prefix: Prefix) -> int | None:
        return self._versions.get(prefix)

    def having(self, version: int | None) -> set[Prefix]:
        """The nodes that fetched this version last."""
        return {prefix for prefix, number in self._versions.items() if number == version}


class CallsSeen:
    """The calls of nodes since the last writing. No more than nodes, since only authenticated calls count."""

    def __init__(
        self, repository: Repository, clock: Callable[[], float], review: Callable[[], Awaitable[None]]
    ) -> None:
        """`review` is called when the new calls may change the parameters of the network."""
        self._repository = repository
        self._clock = clock
        self._review = review
        self._calls: dict[Prefix, LastCall] = {}
        self._twins = Twins(CALLS_WINDOW)
        self._older_called = False
        """Calls of this minute that were written at once."""
        self._news = asyncio.Event()

    def note(self, prefix: Prefix, claims: HelloClaims, agent: str, address: str = "") -> None:
        """A node has made an authenticated call; `agent` is its User-Agent, which may be anything."""
        twin = self._twins.came(prefix, address, self._clock()) if address else None
        if twin is not None:
            logger.warning("%s: %s", twin, ADVICE)
        names = extensions.text(claims.extensions)
        self._calls[prefix] = LastCall(prefix, int(self._clock()), claims.protocol, agent, names)
        if needs_long_hellos(claims.extensions) and not self._older_called:
            self._older_called = True
            self._news.set()

    async def flush(self) -> None:
        """Write new calls. Raises RepositoryError, and nothing is forgotten then."""
        calls, self._calls = self._calls, {}
        waiting = list(calls.items())
        try:
            while waiting:
                found = [replace(call, software=software(call.software)) for _, call in waiting[:CHUNK]]
                await self._repository.change(partial(_write, calls=found))
                del waiting[:CHUNK]
        finally:
            self._calls = dict(waiting) | self._calls

    async def run(self, rest: float = NEWS_INTERVAL) -> None:
        """Write once a minute, for ever; and soon after an older node called, which has no neighbours until then.

        `rest` is how many more seconds to wait for such calls.
        """
        while True:
            try:
                async with asyncio.timeout(WRITE_INTERVAL):
                    await self._news.wait()
            except TimeoutError:
                self._older_called = False
            await asyncio.sleep(rest)
            self._news.clear()
            await self.try_flush()
            try:
                await self._review()
            except RepositoryError as error:
                logger.warning("cannot review the parameters: %s", error)

    async def try_flush(self) -> None:
        """Write new calls, or log why that failed."""
        try:
            await self.flush()
        except RepositoryError as error:
            logger.warning("cannot write when nodes called last: %s", error)


def software(agent: str) -> str:
    """What a node's User-Agent says about its software, `VERSION, PLATFORM`; empty for that of another program."""
    text = agent.removeprefix(AGENT) if agent.startswith(AGENT) else ""
    return "".join(letter for letter in text[:SOFTWARE_LIMIT] if letter.isprintable())


def _write(changes: Changes, calls: Sequence[LastCall]) -> None:
    changes.mark_seen(calls)
