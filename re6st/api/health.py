"""Whether this registry works, for balancers and for what watches services: two paths that anybody may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from re6st.registryd.repository import Repository, RepositoryError

ALIVE = "/healthz"
"""The process answers."""
READY = "/readyz"
"""It can use its database too, so it can answer calls."""
TIMEOUT = 2.0
REMEMBERED = 1.0
"""Seconds for which an answer is given again, so that strangers who ask cost nothing."""
RETRY_AFTER = {"Retry-After": "2"}
"""Seconds after which to come again, with each answer 503: a database is away for moments."""


class Health:
    """`clock` gives monotonic seconds."""

    def __init__(self, repository: Repository, clock: Callable[[], float]) -> None:
        self._repository = repository
        self._clock = clock
        self._found: tuple[float, bool] | None = None
        self._asking = asyncio.Lock()

    async def response(self, path: str) -> web.Response | None:
        """None: the request is for something else."""
        if path == ALIVE or (path == READY and await self._ready()):
            return web.Response(text="ok\n")
        if path == READY:
            text = "the database cannot be used now\n"
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text=text, headers=RETRY_AFTER)
        return None

    async def _ready(self) -> bool:
        async with self._asking:
            if self._found is None or self._clock() - self._found[0] >= REMEMBERED:
                ready = await self._ask()
                self._found = self._clock(), ready
            return self._found[1]

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._repository.read(lambda queries: queries.config("version"))
        except (RepositoryError, TimeoutError):
            return False
        return True
