"""Who is online, and since when: the registry looks at the routes of its own node, and remembers over restarts.

In a network of regions, the registry's node knows the nodes of its own region. Those of others count if their region
has a route, and they answered when all nodes were asked last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from re6st.core.prefix import Prefix
from re6st.core.registry.presence import ABSENCE, Presence, Stay
from re6st.core.routing.regions import region_of
from re6st.registryd.local_node import LocalNode
from re6st.registryd.mesh_view import MeshView
from re6st.registryd.parameters import ParameterService
from re6st.registryd.records import ListedNode
from re6st.registryd.repository import Changes, NotFound, Queries, Repository, RepositoryError

logger = logging.getLogger("registry")

LOOK_INTERVAL = 60.0
"""Seconds between two looks at the routes while nobody looks at the operator's page."""
FRESH = 2.0
"""Seconds for which the last look is good enough for who asks."""
ASK_INTERVAL = 300.0
"""Seconds between two times that nodes of other regions are asked."""
ASK_NODES = 20
"""One more second between them for so many nodes."""
CHUNK = 500
"""Number of nodes in one job of the store, so that others need not wait."""
LOOKED = "re6st_looked"
"""Our row of the configuration: when the routes were looked at last."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look has found. `online`: None if no babeld answers on this host. Prefixes of so many bits are
    `regions`, if the network has them.
    """

    own: Prefix | None = None
    regions: int = 0
    online: frozenset[Prefix] | None = None


@dataclass(frozen=True, slots=True)
class EarlierStays:
    """What the last run knew."""

    stays: tuple[Stay, ...]
    looked: float | None


def earlier_stays(queries: Queries) -> EarlierStays:
    looked = queries.config(LOOKED)
    return EarlierStays(tuple(queries.stays()), looked if isinstance(looked, int) else None)


class PresenceService:
    """Looks, and stores what it sees."""

    def __init__(
        self,
        repository: Repository,
        node: LocalNode,
        mesh: MeshView,
        parameters: ParameterService,
        clock: Callable[[], float],
        earlier: EarlierStays,
    ) -> None:
        self.sight = Sight()
        self.answered: frozenset[Prefix] = frozenset()
        """The nodes that answered when all were asked last."""
        self._repository = repository
        self._node = node
        self._mesh = mesh
        self._parameters = parameters
        self._clock = clock
        self._presence = Presence(earlier.stays, earlier.looked)
        self._looked = self._asked = float("-inf")
        """Times of the event loop."""

    async def look(self) -> Sight:
        """Look at the routes now."""
        own, regions = await self._own_and_regions()
        routes = None if own is None else await self._node.routes()
        online = None if routes is None or own is None else online_nodes(own, routes, self.answered, regions)
        self.sight = Sight(own, regions, online)
        self._looked = asyncio.get_running_loop().time()
        if online is not None and own is not None:
            interval = ask_interval(len(online)) if regions else 0.0
            home = region_of(own, regions)

            def patience(prefix: Prefix) -> float:
                return ABSENCE if not regions or region_of(prefix, regions) == home else ABSENCE + interval

            self._presence.look(online, self._clock(), patience)
        return self.sight

    async def fresh(self) -> Sight:
        """What a look found a moment ago, or finds now."""
        if asyncio.get_running_loop().time() - self._looked > FRESH:
            return await self.look()
        return self.sight

    def note_answers(self, answered: frozenset[Prefix]) -> None:
        """These nodes answered when all were asked."""
        self.answered = answered
        self._asked = asyncio.get_running_loop().time()

    def since(self, prefix: Prefix, stored: ListedNode) -> int | None:
        """Since when a node is online or offline, as Unix time; None: not known, or it was never there."""
        if self.sight.online is None:
            return None
        if prefix in self.sight.online:
            return self._presence.since(prefix)
        if (seen := self._presence.seen(prefix)) is not None:
            return seen
        if stored.stay is not None and not stored.stay.online:
            return stored.stay.since
        return stored.seen  # it called then: nobody has seen it since

    def forget(self, prefix: Prefix) -> None:
        """Another node has this prefix from now on, or nobody."""
        self._presence.forget(prefix)

    async def run(self) -> None:
        """Look and store once a minute, for ever; and ask the nodes of other regions now and then."""
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() - self._looked >= LOOK_INTERVAL / 2:
                await self.look()
            await self._ask(self.sight)
            await self.try_flush()
            await asyncio.sleep(LOOK_INTERVAL)

    async def _ask(self, sight: Sight) -> None:
        """Ask the nodes of other regions, if it is time."""
        if sight.own is None or sight.online is None or not sight.regions:
            return
        if asyncio.get_running_loop().time() - self._asked >= ask_interval(len(sight.online)):
            graph = await self._mesh.topology(sight.own, sight.regions)
            self.note_answers(frozenset(map(Prefix.from_cn, graph[""])))

    async def try_flush(self) -> None:
        """Store what has changed, or log why that failed."""
        if (looked := self._presence.looked) is None:
            return
        news = self._presence.take_news()
        try:
            for start in range(0, max(1, len(news)), CHUNK):
                await self._repository.change(partial(_write, news[start : start + CHUNK], int(looked)))
        except RepositoryError as error:
            self._presence.give_back(news)
            logger.warning("cannot write who is online: %s", error)

    async def _own_and_regions(self) -> tuple[Prefix | None, int]:
        try:
            parameters = await self._parameters.parameters()
        except (NotFound, RepositoryError):
            return None, 0  # there is no certificate yet
        return parameters.registry_prefix, parameters.regions


def _write(stays: list[Stay], looked: int, changes: Changes) -> None:
    changes.mark_stays(stays)
    changes.set_config(LOOKED, looked)


def ask_interval(nodes: int) -> float:
    """Seconds between two times that so many nodes are asked."""
    return max(ASK_INTERVAL, nodes / ASK_NODES)


def online_nodes(own: Prefix, routes: Iterable[Prefix], answered: frozenset[Prefix], regions: int) -> frozenset[Prefix]:
    """The nodes with a route; and those that answered, of regions with one."""
    found = frozenset((own, *routes))
    if not regions:
        return found
    elsewhere = (prefix for prefix in answered if region_of(prefix, regions) in found)
    return frozenset((*(prefix for prefix in found if prefix.length != regions), *elsewhere))
