"""Multicast routing by pim-dm (--multicast, wire.md 10.8): IPv6 PIM-DM with state refresh, and MLD.

The program is told of the interfaces that are up when it starts, in its configuration file, and of others as they come
up. It may stay in the foreground, and is then started again when it ends, or leave a daemon behind, which is stopped at
the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from pathlib import Path

from re6st.linux import address_monitor
from re6st.linux.netlink import NetlinkError
from re6st.linux.process import Child, keep_running, status_text
from re6st.service import run_names

PROGRAM = "pim-dm"
REMEDY = "Install it (pip install pim-dm), or leave out --multicast."
COMMAND_TIME = 10.0
"""Seconds that a command to the running program may take."""

log = logging.getLogger(__name__)


def configuration(interfaces: Iterable[str]) -> str:
    """The YAML text for some interfaces; their names are quoted, as YAML takes 1e3 or no for something else."""
    lines = ["PIM-DM:", "  Interfaces:"]
    mld = ["MLD:", "  Interfaces:"]
    for name in interfaces:
        lines += [f"    '{name}':", "      ipv6:", "        enabled: true", "        state_refresh: true"]
        mld += [f"    '{name}':", "      enabled: true"]
    if len(mld) == 2:
        return "PIM-DM:\n  Interfaces: {}\nMLD:\n  Interfaces: {}\n"
    return "\n".join([*lines, *mld, ""])


class Multicast:
    """Keeps the program running. `wanted` are the interfaces it is for, `up` tells which interfaces are up."""

    def __init__(
        self, program: str, run: Path, wanted: Callable[[], Iterable[str]], up: Callable[[], Awaitable[set[str]]]
    ) -> None:
        self._program = program
        self._file = run / run_names.MULTICAST_CONFIGURATION
        self._output = run / run_names.MULTICAST_OUTPUT
        self._wanted = wanted
        self._up = up
        self._known: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        await keep_running(PROGRAM, self._run_once, self._output)

    async def _run_once(self) -> str:
        present = await self._present()
        self._file.write_text(configuration(present))
        self._known = set(present)
        self._output.unlink(missing_ok=True)
        child = await Child.start(PROGRAM, (self._program, "-config", self._file), self._output)
        news = asyncio.create_task(self._follow(), name="multicast interfaces")
        ended = asyncio.create_task(child.wait(), name=PROGRAM)
        try:
            await asyncio.wait((ended, news), return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and (status := ended.result()):
                return status_text(status)
            if ended.done():
                log.info("%s runs in the background", PROGRAM)
            await news
            return "no more news of interfaces"
        finally:
            news.cancel()
            await asyncio.wait([news])
            if ended.done() and ended.result() == 0:
                await self._command("-6", "-stop")
            await child.stop()
            await ended

    async def _follow(self) -> None:
        """Tell the program of interfaces that come up."""
        async with aclosing(address_monitor.changes()) as changes:
            async for _ in changes:
                for name in await self._present():
                    # What fails is tried again at the next change: the program may not listen yet.
                    if name not in self._known and await self._add(name):
                        self._known.add(name)

    async def _add(self, name: str) -> bool:
        return await self._command("-6", "-aisr", name) and await self._command("-aimld", name)

    async def _present(self) -> list[str]:
        with suppress(NetlinkError):
            up = await self._up()
            return [name for name in self._wanted() if name in up]
        return []

    async def _command(self, *arguments: str) -> bool:
        """Give the running program a command. Whether it took it; what it did not is told, and changes nothing else."""
        child = await Child.start(PROGRAM, (self._program, *arguments), self._output)
        try:
            async with asyncio.timeout(COMMAND_TIME):
                status = await child.wait()
            if status:
                log.warning("%s %s: %s", PROGRAM, " ".join(arguments), status_text(status))
            return not status
        except TimeoutError:
            log.warning("%s %s: not done in %g s", PROGRAM, " ".join(arguments), COMMAND_TIME)
            return False
        finally:
            await child.stop()
