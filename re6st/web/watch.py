"""Follows the mesh for the operator's page: which nodes have a route, and who has tunnels to whom.

A node is online if the babeld beside the registry has a route to it: this is known within a second. Nodes have to be
asked for their tunnels (wire.md 6.5, code 5), which costs the mesh a datagram for each node. So they are asked only
while somebody looks, and no more often than the size of the network allows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from re6st.core.prefix import Prefix
from re6st.core.routing.told_claims import ToldClaims
from re6st.registry import Registry
from re6st.registryd.events import EventKind, Events

logger = logging.getLogger("web")

WATCHED_TIME = 30.0
"""For so many seconds after a request, somebody counts as looking at the page."""
FRESH_TIME = 0.5
"""Seconds that a page waits for a look at the routes, if nobody looked for long."""
ROUTES_INTERVAL = 1.0
IDLE_INTERVAL = 60.0
"""Seconds between two looks at the routes while nobody looks at a page."""
CRAWL_INTERVAL = 3.0
CRAWL_NODES = 20
"""One more second between two surveys for so many nodes: 500 nodes are asked every 28 seconds, and when one comes or
goes.
"""
CRAWL_MOST = 120.0
CRAWL_REST = 1.0
SHARE = 20
"""A look may take at most one part in so many of the time between two looks."""
EVENTS_LIMIT = 50
"""Nodes that come or go at once, each with an event; if there are more, there is one event for all."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The mesh at one moment. Times are Unix times; None: not yet."""

    revision: int = 0
    """Counts changes of what pages show, in the mesh or in the database."""
    own: Prefix | None = None
    """The registry's own node."""
    regions: int = 0
    """How many bits of a prefix tell the region of a node; 0: the network is flat."""
    online: frozenset[Prefix] | None = None
    """The nodes that have a route; None: unknown, since no babeld answers on this host. Of other regions, where only
    the region has one, those that answered when the nodes were last asked."""
    late: bool = False
    """Whether that is old: the registry's own node reads its babeld too slowly."""
    looked: float | None = None
    claims: ToldClaims = field(default_factory=ToldClaims)
    """Who claims what, as far as the registry's own node sees it."""
    by_capacity: frozenset[Prefix] | None = None
    """The nodes that its bulk traffic gets to by capacity; None where all of it goes by latency."""
    uplinks: Mapping[str, str] = field(default_factory=dict)
    """Its lines to the Internet, if it has several, and the state of each."""
    tunnels: frozenset[tuple[Prefix, Prefix]] = frozenset()
    """Who opened tunnels, and to whom."""
    answered: frozenset[Prefix] = frozenset()
    crawled: float | None = None

    def is_online(self, prefix: Prefix) -> bool | None:
        return None if self.online is None else prefix in self.online

    def is_by_capacity(self, prefix: Prefix) -> bool | None:
        """Whether bulk traffic gets there by capacity; None where there is no such plane, or no way."""
        known = self.by_capacity is not None and prefix != self.own and self.is_online(prefix)
        return prefix in (self.by_capacity or ()) if known else None


class Watch:
    """Keeps a picture of the mesh."""

    def __init__(self, registry: Registry) -> None:
        self.picture = Picture()
        self._mesh = registry.mesh
        self._registry = registry
        self._events: Events = registry.events
        self._clock = registry.resources.clocks.wall
        self._watched_until = float("-inf")
        self._woken = asyncio.Event()
        self._stale = asyncio.Event()
        self._fresh = asyncio.Event()
        self._changed = asyncio.Event()

    async def look(self) -> None:
        """Somebody looks at a page: the picture is kept up to date for a while. Waits for a new one, but not long."""
        is_first = not self.is_watched
        self._watched_until = asyncio.get_running_loop().time() + WATCHED_TIME
        if is_first:
            self._fresh.clear()
            self._woken.set()
            self._stale.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(FRESH_TIME):
                await self._fresh.wait()

    @property
    def is_watched(self) -> bool:
        return asyncio.get_running_loop().time() < self._watched_until

    async def newer(self, revision: int, timeout: float) -> bool:
        """Wait until there is another picture than this one; False if there is none in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.picture.revision == revision:
                    await self._changed.wait()
        return self.picture.revision != revision

    async def run(self) -> None:
        """Follow the mesh, until cancelled."""
        self._events.listeners.add(self._bump)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_routes(), name="routes")
                group.create_task(self._follow_tunnels(), name="tunnels")
        finally:
            self._events.listeners.discard(self._bump)

    # --- routes ---

    async def _follow_routes(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._woken.clear()
            began = loop.time()
            await self._look_at_routes()
            took = loop.time() - began
            interval = ROUTES_INTERVAL if self.is_watched else IDLE_INTERVAL
            with suppress(TimeoutError):
                async with asyncio.timeout(max(interval, SHARE * took)):
                    await self._woken.wait()

    async def _look_at_routes(self) -> None:
        before = self.picture
        sight = await self._registry.presence.look()
        own, regions, online = sight.own, sight.regions, sight.online
        if (online, own) != (before.online, before.own):
            self._stale.set()
            if online is not None and before.online is not None:
                self._note(EventKind.OFFLINE, before.online - online)
                self._note(EventKind.ONLINE, online - before.online)
            self._bump()
        claims = before.claims if online is None else self._registry.node.claims
        if claims != before.claims:
            self._note_claims(before.claims, claims)
            self._bump()
        late = online is not None and self._registry.node.late
        by_capacity = None if online is None else self._registry.node.by_capacity
        uplinks = {} if online is None else self._registry.node.uplinks
        if (late, by_capacity, uplinks) != (before.late, before.by_capacity, before.uplinks):
            self._bump()
        self.picture = replace(
            self.picture,
            own=own,
            regions=regions,
            online=online,
            late=late,
            claims=claims,
            by_capacity=by_capacity,
            uplinks=uplinks,
            looked=self._clock(),
        )
        self._fresh.set()

    def _note(self, kind: EventKind, prefixes: frozenset[Prefix]) -> None:
        if len(prefixes) > EVENTS_LIMIT:
            self._events.note(kind, f"{len(prefixes)} nodes at once")
            return
        for prefix in sorted(prefixes):
            self._events.note(kind, "has a route" if kind is EventKind.ONLINE else "has no route any more", prefix)

    def _note_claims(self, before: ToldClaims, now: ToldClaims) -> None:
        for prefix in set(now.refused) - set(before.refused):
            text = "announced a subnet that is not its own: the registry's node cut its tunnels and refuses it"
            self._events.note(EventKind.CLAIM, text, prefix)
        for prefix in set(now.doubled) - set(before.doubled):
            self._events.note(EventKind.CLAIM, "two machines have its certificate at one time", prefix)
        if now.own_subnet_from and not before.own_subnet_from:
            names = ", ".join(now.own_subnet_from)
            self._events.note(
                EventKind.CLAIM, f"the subnet of the registry's node is announced by another, by way of {names}"
            )

    # --- tunnels ---

    async def _follow_tunnels(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self.is_watched:
                self._stale.clear()
                await self._stale.wait()
                if not self.is_watched:
                    continue
            self._stale.clear()
            began = loop.time()
            await self._crawl()
            took = loop.time() - began
            interval = min(CRAWL_INTERVAL + len(self.picture.online or ()) / CRAWL_NODES, CRAWL_MOST)
            await asyncio.sleep(max(CRAWL_REST, took))
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._stale.wait()

    async def _crawl(self) -> None:
        own = self.picture.own
        if own is None:
            return
        graph = await self._mesh.topology(own, self.picture.regions)
        answered = frozenset(Prefix.from_cn(cn) for cn in graph.pop("", ()))
        tunnels = frozenset((Prefix.from_cn(cn), Prefix.from_cn(peer)) for cn, peers in graph.items() for peer in peers)
        self._registry.presence.note_answers(answered)
        before = self.picture
        self.picture = replace(before, tunnels=tunnels, answered=answered, crawled=self._clock())
        if (tunnels, answered) != (before.tunnels, before.answered):
            self._bump()

    def _bump(self) -> None:
        self.picture = replace(self.picture, revision=self.picture.revision + 1)
        self._changed.set()
        self._changed.clear()  # all that wait are woken anyway
