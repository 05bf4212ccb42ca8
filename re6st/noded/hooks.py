"""The user's own commands: --up before the node is in service, --daemon beside it (wire.md 10.8).

They are given to the shell as they are: they are the user's, from the command line or the options file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from re6st.linux.process import Child, birth, status_text
from re6st.service import run_names, rundir

NOTE_LIMIT = 1 << 16

log = logging.getLogger(__name__)


HIDDEN = "..."


def program(command: str) -> str:
    """The program of a command of the user. Its arguments, and variables before it, are hidden: they may be secret."""
    first, _, rest = command.strip().partition(" ")
    return HIDDEN if "=" in first else f"{first} {HIDDEN}" if rest else first


class HookError(Exception):
    """A command of --up failed, so the node does not start."""


class Hooks:
    """The commands of one node. `environment` is what they learn about it, `run` the directory for a note of ours."""

    def __init__(self, up: Sequence[str], daemons: Sequence[str], environment: Mapping[str, str], run: Path) -> None:
        self._up = up
        self._daemons = daemons
        self._environment = dict(os.environ, **environment)
        self._note = run / run_names.DAEMONS
        self._running: list[Child] = []

    async def start(self) -> None:
        """Run the commands of --up to their end, one by one, then start those of --daemon. Raises HookError."""
        for command in self._up:
            child = await self._shell(command)
            try:
                status = await child.wait()
            finally:
                await child.stop()
            if status:
                raise HookError(f"--up {program(command)!r}: {status_text(status)}")
        for command in self._daemons:
            self._running.append(await self._shell(command))
            note = json.dumps([[child.pid, birth(child.pid)] for child in self._running])
            with contextlib.suppress(OSError):
                rundir.write(self._note, note.encode())

    async def clear(self) -> None:
        """End the daemons of an earlier run that was killed."""
        try:
            with self._note.open("rb") as file:
                left = [(int(pid), int(born)) for pid, born in json.loads(file.read(NOTE_LIMIT))]
        except (OSError, ValueError, TypeError, RecursionError):
            return
        for pid, born in left:
            if birth(pid) == born:
                with contextlib.suppress(OSError):
                    await Child.adopt("--daemon", pid).stop()
                    log.warning("ended process %s of --daemon, left by an earlier run", pid)

    async def watch(self) -> None:
        """Say when a daemon ends by itself; for ever."""
        await asyncio.gather(*map(self._watch, self._running))
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """End the daemons, the last first."""
        while self._running:
            await self._running.pop().stop()

    async def _shell(self, command: str) -> Child:
        try:
            return await Child.start(
                program(command), ("/bin/sh", "-c", command), environment=self._environment, quiet=False
            )
        except OSError as error:
            raise HookError(f"{program(command)!r}: {error.strerror}") from None

    async def _watch(self, child: Child) -> None:
        status = await child.wait()
        log.warning("--daemon %r ended: %s", child.name, status_text(status))
