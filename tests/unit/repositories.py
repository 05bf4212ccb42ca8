"""Repositories for tests: they pass on to another one, count, or are away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from re6st.registryd.repository import Changes, Lists, Queries, Repository, RepositoryError

T = TypeVar("T")


class CountedRepository:
    """Counts the longer queries."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.shared = repository.shared
        self.browsed = 0

    async def read(self, query: Callable[[Queries], T]) -> T:
        return await self._repository.read(query)

    async def browse(self, query: Callable[[Lists], T]) -> T:
        self.browsed += 1
        return await self._repository.browse(query)

    async def change(self, change: Callable[[Changes], T]) -> T:
        return await self._repository.change(change)

    async def size(self) -> int:
        return await self._repository.size()

    def close(self) -> None:
        self._repository.close()


class AwayRepository:
    """Cannot be used while `away` says why."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.shared = repository.shared
        self.away = ""

    def _there(self) -> Repository:
        if self.away:
            raise RepositoryError(self.away)
        return self._repository

    async def read(self, query: Callable[[Queries], T]) -> T:
        return await self._there().read(query)

    async def browse(self, query: Callable[[Lists], T]) -> T:
        return await self._there().browse(query)

    async def change(self, change: Callable[[Changes], T]) -> T:
        return await self._there().change(change)

    async def size(self) -> int:
        return await self._there().size()

    def close(self) -> None:
        self._repository.close()
