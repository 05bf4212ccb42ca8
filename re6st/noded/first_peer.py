"""The first peer of a node that knows nobody, from the registry."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from re6st.client.counted_client import CountedClient
from re6st.client.registry_client import RegistryError
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Endpoint, parse_addresses
from re6st.noded.contracts import PolicyInput
from re6st.service.tasks import Tasks

PATIENCE = 10.0
"""Seconds for the registry."""
FORESEEN = 1.0
"""Seconds to wait for what was asked ahead of time, when it is wanted. Routes of an earlier run, which were not removed
yet, may have led that question astray.
"""

log = logging.getLogger(__name__)


async def first_peer(client: CountedClient) -> tuple[Prefix, tuple[Endpoint, ...]] | None:
    """A peer, with its addresses; None, and a line in the log, where the registry names none."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await client.get_bootstrap_peer()
    except TimeoutError:
        log.warning("no first peer: the registry does not answer")
    except RegistryError as error:
        log.warning("no first peer: %s", error)
    else:
        return (found[0], parse_addresses(found[1])) if found else None
    return None


class FirstPeer:
    """Asks the registry for a first peer, for the first time already before anybody wants one."""

    def __init__(self, client: CountedClient) -> None:
        self._client = client
        self._asked: asyncio.Task[tuple[Prefix, tuple[Endpoint, ...]] | None] | None = None

    def foresee(self) -> None:
        """One will be wanted in a moment."""
        self._asked = asyncio.create_task(first_peer(self._client), name="bootstrap, ahead of time")

    async def get(self) -> tuple[Prefix, tuple[Endpoint, ...]] | None:
        """A peer, with its addresses; see `first_peer`. If what was asked ahead of time gave none, ask once more."""
        asked, self._asked = self._asked, None
        if asked is not None:
            try:
                await asyncio.wait([asked], timeout=FORESEEN)
                if asked.done() and (found := asked.result()):
                    return found
            finally:
                asked.cancel()
        return await first_peer(self._client)


class EndpointMemory(Protocol):
    """Who remembers where peers are."""

    def remember(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None: ...


class DoubtListener(Protocol):
    """Who keeps parameters and certificates up to date."""

    def doubt(self) -> None: ...


class AskRegistry:
    """Asks the registry where the mesh does not help. What it answers comes as an event."""

    def __init__(
        self, first: FirstPeer, known: EndpointMemory, driver: PolicyInput, updates: DoubtListener, tasks: Tasks
    ) -> None:
        self._first = first
        self._known = known
        self._driver = driver
        self._updates = updates
        self._tasks = tasks

    def ask_first_peer(self) -> None:
        """Ask for somebody to have a tunnel with."""
        self._tasks.start(self._ask(), "bootstrap")

    def doubt(self) -> None:
        """Parameters or certificates may have changed."""
        self._updates.doubt()

    async def _ask(self) -> None:
        peer, endpoints = await self._first.get() or (None, ())
        if peer is not None:
            self._known.remember(peer, endpoints)
        self._driver.event(policy.BootstrapAnswered(peer, endpoints))
