"""Runs babeld, and reads its table from its socket (wire.md section 9; babeld(8)).

core/routing/babel_settings.py writes its configuration. The file contains the keys, so only its owner can read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Network
from pathlib import Path
from typing import Protocol

from re6st.babeld import endless_tries
from re6st.babeld.table_reader import TableReader
from re6st.babeld.talk import Talk
from re6st.core.prefix import ipv4_address
from re6st.core.routing.babel_lines import Table
from re6st.core.routing.babel_settings import PRIORITY, BabelSettings, configuration, left_out, live_commands
from re6st.linux import address_monitor
from re6st.linux.process import Child, connected, end_of, keep_running, status_text
from re6st.service import rundir

PROGRAM = "babeld"

START_TIME = 10.0
SLOW_FIRST, SLOW_LAST = 1.0, 30.0
"""Seconds until we connect again to a babeld that closed our connection, as it does to a slow reader; doubled each
time. babeld goes on without us. To restart it, or to read all of its routes at once, would only add to the load that
made us slow.
"""
LATE_TIME = SLOW_LAST + 10.0
"""Seconds that a command waits for the next connection."""
SLOW_CALM = 60.0
"""After a connection of so many seconds, the first pause is enough again."""
COMMAND_TIME = 3.0
"""Seconds that a command waits for babeld to listen, and for its answer once it was sent: it may wait longer for the
end of a dump (babeld/table_reader.py).
"""
LOOK, SURE = 0.5, 0.2
"""Seconds between two looks at whether babeld tries without end to send something, and until one more that makes sure:
neighbours give it up after a few missed hellos.
"""
TAKE_OVER = 5.0
"""Seconds, and three update intervals, that a new babeld has at most to learn all routes."""
SETTLED = 2.0
"""Seconds for which it must know a route before the route counts."""
SETTLE, STEP = 0.1, 0.5
"""Seconds between two looks, for one route and for all."""

_PRIORITY = re.compile(r"kernel-priority ([0-9]{1,9})\n")

log = logging.getLogger(__name__)


Network = IPv4Network | IPv6Network
RouteKey6 = tuple[IPv6Network, IPv6Network]
"""The destination of a route, and the source of packets for which it is used. babeld's table also has IPv4 routes; ours
does not.
"""


@dataclass(frozen=True, slots=True)
class BabeldFiles:
    """The files of one babeld. `output` is for what it prints, and for its log unless that has a file of its own."""

    configuration: Path
    socket: Path
    state: Path
    output: Path | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """What an earlier daemon left: the process of its babeld, if it can be taken over, and the routes in the kernel
    that a babeld made, with their priorities.
    """

    process: int | None = None
    routes: Mapping[tuple[Network, Network], int] = field(default_factory=dict)


def kernel_news() -> AsyncGenerator[None, None]:
    """Yields after each change of the kernel's interfaces, and of babel's routes in it."""
    return address_monitor.changes(address_monitor.open_babel_routes)


class LinkAddresser(Protocol):
    """Gives the interfaces of tunnels what babeld needs on them: the kernel does."""

    async def address_links(self, own: IPv4Interface | None) -> None: ...


def command_line(program: str, files: BabeldFiles, extra: Sequence[str]) -> list[str]:
    """babeld's arguments; `extra` are those of the user (-B)."""
    return [
        program,
        *("-c", str(files.configuration)),
        *("-G", str(files.socket)),
        *("-S", str(files.state)),
        *(() if files.log is None else ("-L", str(files.log))),
        *("-I", ""),
        "-s",
        *extra,
    ]


class Babel:
    """A babeld that is kept running. `table` is what it knows now; `changed` is called after each change of it.

    If it gets other settings, or dies, it leaves its routes in the kernel, and traffic uses them while the next babeld
    learns. That one has another `priority`, since it would take an existing route for its own, wherever it leads. The
    old routes are preferred until they are removed, one after the other. `followed` is set when a babeld took over from
    another, which knew the routes that are `left`. A babeld that an earlier daemon left running, as `found` says, is
    taken over if it has these settings. `links` is told what has to be on the interfaces, before each start and for a
    babeld that is taken over. `name` is what log lines call it. `before` is called
    whenever one has ended, and the next one is to start.
    """

    def __init__(
        self,
        argv: Sequence[str],
        files: BabeldFiles,
        settings: BabelSettings,
        changed: Callable[[], None],
        links: LinkAddresser,
        found: Left | None = None,
        name: str = PROGRAM,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        found = found or Left()
        self.name = name
        self.table = Table()
        self.ready = asyncio.Event()
        """Set while babeld runs and has told its table."""
        self.followed = asyncio.Event()
        self.left = frozenset(
            (destination, source)
            for destination, source in found.routes
            if isinstance(destination, IPv6Network) and isinstance(source, IPv6Network)
        )
        self._has_all = False
        self._others_until = 0.0
        """Until when other nodes restart their babeld."""
        self.priority = max((*found.routes.values(), PRIORITY - 1)) + 1
        self.settings = settings
        self._argv = argv
        self._files = files
        self._changed = changed
        self._links = links
        self._before = before
        self._found = found.process
        self._child: Child | None = None
        self._replaced = ""
        self.renewing = ""
        """Why we ended it, while the next one is not ready yet."""
        self._talk: Talk
        self._reader: TableReader
        self._size = 0
        """Of the table, when it was last read."""
        self._listening = asyncio.Event()
        """Set while there is a babeld whose lines are read."""

    @property
    def informed(self) -> bool:
        """Whether the table has all news: not before it is ready, nor while it is `late`."""
        return self.ready.is_set() and self._listening.is_set()

    @property
    def late(self) -> bool:
        """Whether babeld runs, but has closed our connection, so that the table says what was."""
        return self.ready.is_set() and not self._listening.is_set()

    @property
    def age(self) -> float:
        """How many seconds ago it knew what the table says; 0 while it tells each change."""
        return self._reader.age if self.informed else 0.0

    def read_soon(self) -> None:
        """Something follows from the table: it is to be read soon, if it is not told, and `changed` called then."""
        if self.informed:
            self._reader.read_soon(tell=True)

    @property
    def ways(self) -> frozenset[RouteKey6]:
        """The destinations to which it has usable routes."""
        return frozenset((each.destination, each.source) for each in self.table.routes.values() if each.usable)

    async def settle(self) -> None:
        """Wait until it has had a route for a while, or for long enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKE_OVER + 3 * self.settings.longest_update):
                settled = 0.0
                while settled < SETTLED:
                    await asyncio.sleep(SETTLE)
                    settled = settled + SETTLE if self.ways else 0.0

    async def take_over(self) -> AsyncIterator[frozenset[RouteKey6]]:
        """The routes that it has had for a while, as they come, until it has all that the last babeld left.

        They do not count at once: the first route to a destination may lead back to us, because of what the last babeld
        announced. Nor do they while others restart their babeld for the same reason: each first tells its neighbours to
        forget its routes. This ends early if the next babeld has followed.
        """
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._others_until):
                await self.followed.wait()
        since: dict[RouteKey6, float] = {}
        told: set[RouteKey6] = set()
        soonest = clock() + SETTLED
        latest = soonest + TAKE_OVER + 3 * self.settings.longest_update
        while True:
            await asyncio.sleep(STEP)
            if self.followed.is_set():
                return
            now = clock()
            if self.late:
                continue
            since = {way: since.get(way, now) for way in self.ways}
            if taken := {way for way, began in since.items() if now - began >= SETTLED} - told:
                told |= taken
                yield frozenset(taken)
            if now >= soonest and (self.left <= told or now >= latest):
                self._has_all = self.ready.is_set()
                return

    async def run(self) -> None:
        """Start it, read its table, and start it again when it ends, until cancelled; then stop it cleanly."""
        await keep_running(self.name, self._once, self._files.output, self._files.log)

    def can_follow(self, settings: BabelSettings) -> bool:
        """Whether babeld can use these settings without a restart."""
        return settings == self.settings or bool(live_commands(self.settings, self._more(settings)))

    async def reconfigure(self, settings: BabelSettings, spread: float = 0, *, stale: bool = False) -> None:
        """Use other settings: another key and more tunnels at once; for anything else babeld is restarted.

        Its filters and flags cannot change while it runs (wire.md 9.5), but the value of a key can (9.4), and
        interfaces can be added. `spread`: seconds within which other nodes restart their babeld, too; `stale`: see
        `renew`.
        """
        old = self.settings
        settings = self._more(settings)
        self.settings = settings
        if settings == old:
            return
        commands = live_commands(old, settings)
        if not commands:
            self._others_until = asyncio.get_running_loop().time() + spread
        elif self._child is None:
            return
        else:
            try:
                await self._tell(commands)
                self._write()
                return
            except (OSError, ValueError) as error:
                log.warning("%s does not accept its new settings: %s", self.name, error or type(error).__name__)
        await self.renew("new settings", stale=stale)

    async def renew(self, reason: str, *, stale: bool = False) -> None:
        """Restart it, so that it forgets everything (core/routing/babel_restart.py). Routes that are not `stale` are
        used meanwhile.
        """
        if self._child is not None:
            self._replaced = self.renewing = reason
            # When it ends cleanly, it takes its routes out of the kernel.
            await (self._child.stop() if stale else self._child.stop(grace=0))

    def _more(self, settings: BabelSettings) -> BabelSettings:
        """With the interfaces that it knows already: an interface that no longer exists does no harm."""
        tunnels = tuple(dict.fromkeys((*self.settings.tunnels, *settings.tunnels)))
        return replace(settings, tunnels=tunnels, links=self.settings.links | settings.links)

    async def _tell(self, commands: list[str]) -> None:
        """Send commands to babeld. Raises OSError (also TimeoutError)."""
        async with asyncio.timeout(LATE_TIME if self.late else COMMAND_TIME):
            await self._listening.wait()
        for command in commands:
            await self._talk.command(command, seconds=COMMAND_TIME)
        if any(command.startswith("key ") for command in commands):
            log.info("%s signs with the new key now", self.name)

    def reopen_log(self) -> None:
        """babeld opens its log file again on SIGUSR2."""
        if self._child is not None:
            self._child.signal(signal.SIGUSR2)

    async def watch(self) -> None:
        """Start it anew when it tries without end to send what it cannot send, and reads nothing, until cancelled.

        What it wrote about that is taken out of its log.
        """
        tries = endless_tries.EndlessTries(self._files.log or self._files.output)
        while True:
            await asyncio.sleep(LOOK)
            child = self._child
            if tries.began() and child is not None:
                await asyncio.sleep(SURE)
                if tries.goes_on() and self._child is child:
                    await self.renew(endless_tries.REASON)
                tries.cut()

    async def keeps_up(self) -> bool:
        """Wait until everything that it has told is in the table; False if it does not answer."""
        try:
            await self._tell([])
            await self._reader.catch_up()
        except OSError:
            return False
        return self.ready.is_set()

    async def _once(self) -> str | None:
        """One run; None if it ended because we replace it."""
        try:
            reason = await self._run_once()
        except (OSError, ValueError) as error:
            reason = str(error) or "its socket does not answer"
        if not self._replaced:
            return reason
        log.info("starting %s again: %s", self.name, self._replaced)
        self._replaced = ""
        return None

    async def _run_once(self) -> str:
        found, self._found = self._found, None
        child = await self._resume(found) if found is not None else None
        settings = self.settings
        subnet = settings.ipv4
        own = None if subnet is None else IPv4Interface((ipv4_address(subnet), subnet.prefixlen))
        await self._links.address_links(own)
        if child is None:
            if self._before is not None:
                await self._before()
            self._files.socket.unlink(missing_ok=True)
            self._write()
            if self._files.output is not None:
                self._files.output.unlink(missing_ok=True)
            child = await Child.start(PROGRAM, self._argv, self._files.output)
        self._child = child
        try:
            if self.settings != settings:  # they came while it started
                await self.renew("new settings")
            return await self._connect_until_end(child)
        finally:
            self.ready.clear()
            await child.stop()
            self._child = None
            self.priority += 1
            # A babeld that ended before it knew all routes leaves what the previous one left.
            self.left = self.ways if self._has_all else self.ways | self.left
            self._has_all = False
            self.table.clear()
            self._changed()

    async def _connect_until_end(self, child: Child) -> str:
        """Follow a babeld as long as it runs, over one connection after the other. Returns why it ended. Raises OSError
        as _connect does.
        """
        clock, pause = asyncio.get_running_loop().time, SLOW_FIRST
        while True:
            began = clock()
            reason = await self._connect(child)
            if not child.running:
                return reason
            if clock() >= began + SLOW_CALM:
                pause = SLOW_FIRST
            log.warning(
                "%s closed its socket, which this node read too slowly: reading all routes again in %g s",
                self.name,
                pause,
            )
            self._changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    return status_text(await child.wait())
            pause = min(2 * pause, SLOW_LAST)

    async def _connect(self, child: Child) -> str:
        """One connection to its socket; returns why it ended. Raises OSError if there is no socket, or no table."""
        talk = await connected(child, START_TIME, lambda: Talk.open(self._files.socket))
        try:
            await self._follow(talk)
        except ConnectionError:
            pass
        finally:
            self._listening.clear()
            talk.close()
        return await end_of(child)

    def _write(self) -> None:
        """The file that babeld reads when it starts, and that tells the next daemon how this babeld was started."""
        for name in left_out(self.settings.babel_default):
            log.warning("ignoring the option %s of the registry's babel_default", name)
        text = configuration(self.settings, self.priority).encode("ascii")
        rundir.write(self._files.configuration, text)

    async def _resume(self, pid: int) -> Child | None:
        """The babeld of an earlier daemon, if it has the settings that ours would have. Otherwise it is ended, as if
        the settings had changed.
        """
        try:
            child = Child.adopt(PROGRAM, pid)
        except OSError:
            return None
        try:
            text = self._files.configuration.read_text("ascii")
        except (OSError, ValueError):
            text = ""
        number = _PRIORITY.match(text)
        priority = int(number[1]) if number else self.priority
        if text == configuration(self.settings, priority):
            self.priority = priority
            log.info("taking over %s, process %s", self.name, pid)
            return child
        log.info("starting %s again: new settings", self.name)
        await child.stop(grace=0)
        self.priority = max(self.priority, priority + 1 if number else 0)
        return None

    async def _follow(self, talk: Talk) -> None:
        """Read the greeting, ask for the table and its changes, and follow them until the end."""
        await talk.greeting()
        reader = TableReader(talk, self.table, self._size, kernel_news, self._changed)
        await reader.begin()
        if not self.ready.is_set():
            self.ready.set()
            self.renewing = ""
            if self.priority != PRIORITY:
                self.followed.set()
            else:
                self._has_all = True
        self._changed()
        self._talk, self._reader = talk, reader
        self._listening.set()
        try:
            await reader.follow()
        finally:
            self._size = self.table.size
