"""A routing plane: one babeld, with all that keeps its routes right; and `Planes`, those that a node has.

A plane owns its babeld and that one's files, port and table (core/routing/planes.py). It decides when babeld is started
anew and when it gets other settings, removes the routes that the one before left, and remembers since when each way is
what it is. Who follows it hears of each change of the table, with what that says about the mesh.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from re6st import babel
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.babel_restart import BabelRestartPolicy
from re6st.core.routing.babel_settings import BabelSettings, outgrown, update_interval
from re6st.core.routing.planes import Plane
from re6st.core.routing.regions import RecentLengths
from re6st.core.routing.route_history import RouteHistory
from re6st.core.routing.survey import Survey, survey
from re6st.noded.left_routes import FormerNetworks, LeftRoutes, SweptRoutes
from re6st.noded.settings import InForce
from re6st.service.tasks import news_or_moment

SETTLE = 0.1
"""Seconds that changes of the routing table are collected for, at least."""
ROUTES_PER_SECOND = 20_000
ANYWAY, ANYWAY_PER_ROUTE, ANYWAY_LAST = 5.0, 0.005, 20.0
"""Seconds after which those who follow the table are told of it though nothing in it has changed but metrics, as it
does not for minutes in an idle network: they also go by these, and by other things, such as tunnels.
"""
NOTICE, NOTICE_STEP = 1.0, 0.01
"""Seconds that babeld has to see that an interface is down, and between two looks whether it has."""
LOOK = 1.0
"""Seconds between two looks at whether babeld is to be started anew."""
SPREAD_FIRST, SPREAD_PER_ROUTE, SPREAD_LAST = 5.0, 0.02, 60.0
"""Seconds that the nodes of a network spread a restart of babeld over."""
GROWTH_FIRST, GROWTH_LAST = 60.0, 180.0
"""Seconds after which babeld is started again as the network has grown. It has time: a network that starts grows on all
its nodes at once, while they have much else to do.
"""
NEWS_TIME = 2.0
"""Seconds in which news of the registry get to all nodes."""

log = logging.getLogger(__name__)


class PlaneKernel(babel.LinkAddresser, Protocol):
    """What a plane needs of the kernel."""

    def babel_routes(self, plane: Plane) -> SweptRoutes: ...

    def has_babel(self, interface: str) -> bool:
        """Whether a babeld uses an interface, which may be down. Raises OSError where there is none."""


class Memory(Protocol):
    """What outlives a daemon: how many routes the network had when we last looked."""

    @property
    def routes(self) -> int: ...
    @routes.setter
    def routes(self, count: int) -> None: ...


@dataclass(slots=True)
class ShortMemory:
    """The memory of a plane beside the main one: it ends with the daemon."""

    routes: int = 0


class Follower(Protocol):
    """Who is told of each change of the table."""

    async def follow(self, table: Table, seen: Survey) -> None: ...


class AnyPlane(Protocol):
    """What a node does with each of its planes. RoutingPlane is one with a babeld."""

    async def run(self, follower: Follower) -> None:
        """Until cancelled. It tells the follower of each change of its table."""

    def follow_settings(self) -> None:
        """Other settings are in force."""

    def forward(self, forwards: bool) -> None:
        """Whether this machine forwards packets from one tunnel to another."""

    async def until_unused(self, interface: str) -> None:
        """Until it does not use an interface any more, which is down, or gone; not long."""

    def reopen_log(self) -> None:
        """Its log file was moved away."""


class RoutingPlane:
    """`plane` says what is its own; `memory` outlives the daemon, and `found` is what an earlier daemon left: both are
    for the main one.
    """

    def __init__(
        self,
        plane: Plane,
        in_force: InForce,
        networks: FormerNetworks,
        machine: PlaneKernel,
        chance: Random,
        memory: Memory | None = None,
        found: babel.Left | None = None,
    ) -> None:
        self.plane = plane
        self._in_force = in_force
        self._memory = ShortMemory() if memory is None else memory
        self._chance = chance
        self._machine = machine
        self._forwards = True
        self._clean = plane.table is not None
        """A babeld that we end takes its routes along: packets take the main table, until the next one knows its way.
        Those of the main plane stay, as its packets have no other."""
        self._costs: dict[str, int] = {}
        self._grown_at: float | None = None
        """When babel gets the settings of a larger network (Unix time)."""
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._restarts = BabelRestartPolicy(chance)
        self._left = LeftRoutes(machine.babel_routes(plane), networks)
        effective = in_force.effective
        self.babel = babel.Babel(
            effective.babel_command(plane),
            effective.babel_files(plane),
            self._settings(),
            self.look_again,
            machine,
            found,
            plane.babeld,
            self._left.forget_lost,
        )
        self.history = RouteHistory()
        """Since when each way is what it is."""
        self.as_one: Callable[[], Mapping[str, NextHop]] = dict
        """Which links count as another one with the same peer; see core/routing/survey.py."""
        self.silent: Callable[[], frozenset[Prefix]] = frozenset
        """Peers of whom nothing is heard by any way, so that babel was to forget them: others offer ways to them until
        they have noticed, and that babel uses none of those says nothing."""
        self._lengths = RecentLengths()
        self.seen = Survey()
        """What the table said of the mesh when it last changed."""
        self._known_at = 0.0
        """When babeld knew that: the table may have been read again since."""

    @property
    def table(self) -> Table:
        """What babeld knows now."""
        return self.babel.table

    @property
    def age(self) -> float | None:
        """How many seconds ago babeld knew what the table says; None while no babeld tells it."""
        return self.babel.age if self.babel.informed else None

    def read_soon(self) -> None:
        """Something follows from the table."""
        self.babel.read_soon()

    @property
    def ready(self) -> asyncio.Event:
        """Set while babeld runs and has told its table."""
        return self.babel.ready

    @property
    def priority(self) -> int:
        """Of the routes in the kernel that are of the babeld of now: each has another one."""
        return self.babel.priority

    def survey(self) -> Survey:
        """What the table said of the mesh when it last changed."""
        return self.seen

    def ending(self) -> str:
        """Why we end babeld; empty while we do not."""
        return self.babel.renewing

    async def run(self, follower: Follower) -> None:
        """Until cancelled, which ends babeld in good order, so that it retracts our routes (wire.md 10.9)."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.babel.run(), name="babeld")
            group.create_task(self.babel.watch(), name="whether babeld does anything")
            group.create_task(self._watch(follower), name="routes")
            group.create_task(self._look(), name="whether babeld starts anew")
            group.create_task(self._configure(), name="babel's settings")
            group.create_task(self._left.sweep(self.babel), name="routes left over")

    # -- what others tell --

    def look_again(self) -> None:
        """The table has changed, or what is made of it would be something else now."""
        self._changed.set()

    def follow_settings(self) -> None:
        """Other settings are in force."""
        self._news.set()

    def forward(self, forwards: bool) -> None:
        """Whether packets from one tunnel may leave by another: else nobody is told of ways through us."""
        self._forwards = forwards
        self._news.set()

    def price(self, costs: Mapping[str, int]) -> None:
        """Use these interfaces too, at these costs. For another cost of one that is used babeld has to start anew."""
        self._costs |= costs
        self._news.set()

    async def until_unused(self, interface: str) -> None:
        """Until babel does not use an interface any more, which is down, or gone; not longer than NOTICE."""
        with suppress(TimeoutError):
            async with asyncio.timeout(NOTICE):
                while self._uses(interface):  # noqa: ASYNC110
                    await asyncio.sleep(NOTICE_STEP)

    def _uses(self, interface: str) -> bool:
        """Whether babeld uses it still: as it says itself, or as the kernel does, who hears of it at once.

        babeld's own word comes late where the machine is busy, and not at all while it does not speak with us. What the
        kernel knew of an interface that is gone says nothing.
        """
        if self.babel.informed and not self.table.is_up(interface):
            return False
        try:
            return self._machine.has_babel(interface)
        except OSError:
            return True

    def reopen_log(self) -> None:
        self.babel.reopen_log()

    # -- loops --

    async def _watch(self, follower: Follower) -> None:
        identity = self._in_force.effective.identity
        network, own = identity.trust.network, identity.prefix
        while True:
            with suppress(TimeoutError):
                anyway = min(max(ANYWAY, ANYWAY_PER_ROUTE * len(self.table.routes)), ANYWAY_LAST)
                async with asyncio.timeout(anyway if self.babel.informed else None):
                    await self._changed.wait()
            # The larger the table, the longer it takes to read, so the less often.
            await asyncio.sleep(max(SETTLE, len(self.table.routes) / ROUTES_PER_SECOND))
            self._changed.clear()
            regions = self._in_force.effective.parameters.regions
            self._known_at = _now() - self.babel.age
            found = survey(self.table, network, own, regions, self.as_one(), self._lengths.note(regions, _now()))
            running, late = self.babel.informed, self.babel.late
            self.seen = seen = replace(found, running=running, late=late, generation=self.priority)
            self.history.note(self.table, time.time())
            await follower.follow(self.table, seen)
            if start := self._restarts.note(seen, _now()):
                await self.babel.renew(start.reason, stale=self._clean)
            self._count_routes(len(seen.peers))

    async def _look(self) -> None:
        while True:
            now = _now()
            age = now - self._known_at if self.babel.age else 0.0
            silent = self.silent()
            seen = replace(self.seen, starved=self.seen.starved - silent) if silent else self.seen
            if start := self._restarts.due(seen, now, self._in_force.effective.babel_hello, age):
                await self.babel.renew(start.reason, stale=start.stale or self._clean)
            elif self._restarts.doubts:
                self.babel.read_soon()
            await asyncio.sleep(LOOK)

    def _count_routes(self, count: int) -> None:
        """A network that has grown is told of less often; one that shrinks may be a network that is cut."""
        if self._grown_at is not None and self._grown_at <= time.time() + GROWTH_LAST:  # else the clock was set back
            return
        if outgrown(self.babel.settings.update, count) and outgrown(update_interval(self._memory.routes), count):
            log.info("the network has %s nodes now: %s will repeat its routes less often", count, self.babel.name)
            self._grown_at = time.time() + self._chance.uniform(GROWTH_FIRST, GROWTH_LAST)
            self._news.set()

    async def _configure(self) -> None:
        """Hand babel its settings when they change, and another key at the time the registry says (wire.md 5.4)."""
        while True:
            key = self._in_force.effective.parameters.babel_switch_time
            moments = (None if key is None or key <= time.time() else key, self._grown_at)
            await news_or_moment(self._news, min((each for each in moments if each is not None), default=None))
            self._news.clear()
            if self._grown_at is not None and time.time() >= self._grown_at:
                self._grown_at = None
                self._memory.routes = max(self._memory.routes, len(self.seen.peers))
            spread = min(SPREAD_FIRST + SPREAD_PER_ROUTE * len(self.seen.peers), SPREAD_LAST)
            if not self.babel.can_follow(self._settings()):
                delay = self._chance.uniform(0, spread)
                await asyncio.sleep(delay)
                spread += NEWS_TIME - delay
                self._memory.routes = max(self._memory.routes, len(self.seen.peers))  # meanwhile
            await self.babel.reconfigure(self._settings(), spread, stale=self._clean)

    def _settings(self) -> BabelSettings:
        settings = self._in_force.effective.babel(self.plane, self._memory.routes, time.time())
        tunnels = tuple(dict.fromkeys((*settings.tunnels, *self._costs)))
        return replace(settings, forwards=self._forwards, tunnels=tunnels, costs=tuple(sorted(self._costs.items())))


class Planes:
    """The planes of a node. The policy of the mesh goes by the `main` one; the others have tables of their own.

    For those who make and end tunnels it is one (contracts.Routing): an interface is unused once no plane uses it.
    """

    def __init__(self, main: RoutingPlane, *others: AnyPlane) -> None:
        self.main = main
        self._all: tuple[AnyPlane, ...] = (main, *others)

    async def run(self, follower: Follower) -> None:
        """All of them, until cancelled; the follower is that of the main one."""
        async with asyncio.TaskGroup() as group:
            for plane in self._all:
                group.create_task(plane.run(follower if plane is self.main else Nobody()), name="routing plane")

    def follow_settings(self) -> None:
        """Other settings are in force."""
        for plane in self._all:
            plane.follow_settings()

    def forward(self, forwards: bool) -> None:
        """Whether this machine forwards packets from one tunnel to another."""
        for plane in self._all:
            plane.forward(forwards)

    async def until_unused(self, interface: str) -> None:
        """Until none of them uses an interface any more, which is down, or gone; not long."""
        await asyncio.gather(*(plane.until_unused(interface) for plane in self._all))

    def look_again(self) -> None:
        """It is known better who is at the other ends of tunnels, which the policy goes by."""
        self.main.look_again()

    def reopen_logs(self) -> None:
        """Their log files were moved away."""
        for plane in self._all:
            plane.reopen_log()


class Nobody:
    """The follower of a plane by which nobody goes."""

    async def follow(self, table: Table, seen: Survey) -> None:
        """Nothing follows from it."""


def _now() -> float:
    """A clock that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
