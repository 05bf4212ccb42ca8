"""One request to the network's registries: to the one that we use, or else to the next one that answers.

A registry that does not take connections, or does not begin to answer, costs a second or two. Which one is asked is
decided in core/registry/registry_choice.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from re6st.client import http
from re6st.client.first_connection import NO_CONNECTION, NoConnection, first_connection
from re6st.core.registry.registry_choice import RegistryChoice

SILENCE = 10.0
"""Seconds for a registry to begin its answer, where another one can be asked the same."""
AWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
"""Statuses by which a proxy says that it cannot reach a registry, or a registry that it cannot work now."""

_ASKED = "asked"
"""In the place of an error: one has the request, and has not answered yet."""

log = logging.getLogger(__name__)


class NoAnswer(Exception):
    """No registry answered; the text says why, of each that was asked."""


class Registries:
    """The registries of one network, at their URLs."""

    def __init__(self, urls: Sequence[http.Url], timeout: float) -> None:
        """`urls` are those that this machine was given, the preferred one first."""
        self._urls = {str(url): url for url in reversed(urls)}
        self.timeout = timeout
        """Seconds for one request, whichever of them are asked."""
        self._unusable: frozenset[str] = frozenset()
        """What the network's parameters name, and is no URL."""
        self.choice = RegistryChoice([str(url) for url in urls])
        self.asked = str(urls[0])
        """The URL of the one that was asked last."""

    def __len__(self) -> int:
        return len(self.choice.all)

    @property
    def preferred(self) -> str:
        """The URL of the one that is to be asked next."""
        return self.choice.order(time.monotonic())[0]

    async def get(
        self, target: str, headers: Mapping[str, str], *, limit: int, repeatable: bool, only: str = ""
    ) -> http.Response:
        """GET `target` from one of them, or from `only` one. Raises NoAnswer, and TooLong for more than `limit` bytes.

        What is not `repeatable` goes to the next one only if the one before it did not get it. What is gets an
        answer soon, or goes there.
        """
        order = [self._urls[url] for url in ([only] if only in self._urls else self.choice.order(time.monotonic()))]
        failures: dict[http.Url, str] = {}
        answer: http.Response | None = None
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self._ask(order, target, headers, limit, repeatable, bool(only), failures)
        except NoConnection:
            pass
        except TimeoutError:
            for url in [each for each, error in failures.items() if error in (_ASKED, NO_CONNECTION)]:
                failures[url] = http.too_late(self.timeout)
        for url, error in failures.items():
            self.note_failure(str(url), error)
        if answer is None:
            raise NoAnswer("; ".join(f"registry {url}: {error}" for url, error in failures.items()))
        if answer.status not in AWAY and self.choice.answered(self.asked, time.monotonic()):
            log.warning("registry %s answers: it is asked from now on", self.asked)
        return answer

    async def _ask(
        self,
        waiting: list[http.Url],
        target: str,
        headers: Mapping[str, str],
        limit: int,
        repeatable: bool,
        only: bool,
        failures: dict[http.Url, str],
    ) -> http.Response | None:
        """The answer of the first one, of those `waiting`, that has one. Raises NoConnection, TooLong."""
        answer = None
        while waiting:
            connection = await _connect(waiting, failures)
            url, self.asked = connection.url, str(connection.url)
            waiting.remove(url)
            failures[url] = _ASKED
            can_go_on = repeatable and (waiting or only) and len(self) > 1
            silence = min(SILENCE, self.timeout / len(self)) if can_go_on else None
            try:
                async with contextlib.aclosing(connection):
                    answer = await connection.get(target, headers, limit=limit, silence=silence)
            except http.HttpError as error:
                failures[url] = str(error)
                if not repeatable:
                    return None
                continue
            if answer.status not in AWAY:
                del failures[url]
                return answer
            failures[url] = f"{answer.status} {http.phrase(answer.status)}."
            if not repeatable:  # it may have done it, though it cannot say so: its database ended in that moment
                return answer
        return answer

    def note_failure(self, url: str, error: str) -> None:
        """One is of no use now: the others are asked before it."""
        if self.choice.failed(url, error, time.monotonic()) and len(self) > 1:
            log.warning("registry %s: %s", url, error)

    def learn(self, texts: Sequence[str]) -> None:
        """The network's parameters name these registries. What is no URL is left out, and logged once."""
        found, unusable = dict[str, http.Url](), set[str]()
        for text in texts:
            try:
                parsed = http.parse_url(text)
            except ValueError:
                unusable.add(text)
            else:
                found[str(parsed)] = parsed
        for text in sorted(unusable - self._unusable):
            log.warning("the network's parameters name a registry %.100a, which is no URL: it is not asked", text)
        self._unusable = frozenset(unusable)
        new, gone = self.choice.learn(list(found))
        self._urls |= {url: found[url] for url in new}
        for url in gone:
            del self._urls[url]
        for url in new:
            log.info("the network has a registry %s, too", url)
        for url in gone:
            log.info("the network no longer has the registry %s", url)

    def record(self) -> list[dict[str, Any]]:
        """Each of them, as `re6st-status` shows it; times are Unix times."""
        offset = time.time() - time.monotonic()
        return [
            {
                "url": each.url,
                "used": each.url == self.choice.present,
                "learned": each.is_learned,
                "failed": None if each.failed is None else round(each.failed + offset),
                "error": each.error or None,
                "works": each.works,
            }
            for each in self.choice.all
        ]


async def _connect(waiting: list[http.Url], failures: dict[http.Url, str]) -> http.Connection:
    """A connection to one of those that wait. Those that take none wait no more, and those that are slow wait longer.

    Raises NoConnection.
    """
    passed: dict[http.Url, str] = {}
    try:
        return await first_connection(waiting, passed)
    finally:
        failures |= passed
        waiting[:] = [url for url in waiting if url not in passed]
        waiting += [url for url, error in passed.items() if error == NO_CONNECTION]
