"""What other registries on the same state change, of what this one remembers: it reads that again at once."""

from __future__ import annotations

import asyncio
import logging

from re6st.registryd.events import StoredEvents
from re6st.registryd.parameters import ParameterService
from re6st.registryd.repository import Outdated, Repository, RepositoryError

RETRY_INTERVAL = 1.0

logger = logging.getLogger("registry")


class OtherRegistries:
    """Hears of other registries, if there can be any."""

    def __init__(self, repository: Repository, parameter_service: ParameterService, event_log: StoredEvents) -> None:
        self._shared = repository.shared
        self._parameter_service = parameter_service
        self._event_log = event_log
        self._news: set[Outdated] = set()
        self._told = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; at once, if nobody else uses the state."""
        if self._shared is None:
            return
        self._shared.watch(self._hear)
        while True:
            await self._told.wait()
            self._told.clear()
            news, self._news = self._news, set()
            try:
                await self._read(frozenset(news))
            except RepositoryError as error:
                logger.warning("cannot read what another registry has changed: %s", error)
                self._hear(frozenset(news))
                await asyncio.sleep(RETRY_INTERVAL)

    async def _read(self, news: frozenset[Outdated]) -> None:
        if Outdated.PARAMETERS in news:
            await self._parameter_service.changed()
        if Outdated.EVENTS in news:
            await self._event_log.read_again()

    def _hear(self, news: frozenset[Outdated]) -> None:
        self._news |= news
        self._told.set()
