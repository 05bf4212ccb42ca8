"""The daemon that comes after this one, and goes on with its tunnels: after an upgrade, or with other options.

By SIGHUP it takes this one's place at once, in the same process; by SIGQUIT this one ends, and somebody else starts the
next, as `systemctl restart` does. See takeover.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

from re6st.linux.process import output_of

CHECK_TIME = 20.0
"""Seconds that a successor has to see whether it can start."""
CHECK = ("--test", "0")
"""Options with which it does nothing else, and ends with status 0."""
WHETHER_READY = "RE6STNET_WHETHER_READY"
"""In its environment then: it also looks for what else would keep it from starting. Older versions do not know it."""

FAILED = 255

TOLD_TIME = 0.01
"""Seconds for the event loop to tell of a signal that came just before: it takes two of its turns."""

NAME_LIMIT = 15
"""Bytes of a program's name that the kernel keeps (proc_pid_comm(5))."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2)
"""Signals that wait while a program takes our place: it has no ear for them before it has started."""

log = logging.getLogger(__name__)


class Predecessor(Protocol):
    """What hands over."""

    async def hand_over(self) -> dict[str, str]: ...


class Successor:
    """Hands over what `node` does, once, unless it is told to `stop`."""

    def __init__(self, node: Predecessor, stop: asyncio.Event) -> None:
        self._node = node
        self._stop = stop
        self._task: asyncio.Task[None] | None = None
        self._check: asyncio.Task[str | None] | None = None
        self._ending = False
        """Somebody else starts the next one."""

    def listen(self) -> None:
        """Signals are heard from now on: those that came while a predecessor started us come now."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def take_our_place(self) -> None:
        """Have the program start anew, as it is now on disk, in this process."""
        self._start(self._replace())

    def await_one(self) -> None:
        """End, and leave everything to who comes."""
        self._ending = True
        if self._check is not None:
            self._check.cancel()  # who waits for our end does not care whether one like us could start
        self._start(self._end())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if self._stop.is_set() or (self._task is not None and not self._task.done()):
            work.close()
            return
        self._task = asyncio.create_task(work, name="successor")

    async def _replace(self) -> None:
        argv = _command()
        self._check = asyncio.create_task(_fault(argv), name="whether a successor can start")
        await asyncio.wait((self._check,))
        fault = None if self._check.cancelled() else self._check.result()
        if fault is not None and not self._ending:
            log.error("not reloaded, the running daemon goes on: %s", fault)
            return
        if self._stop.is_set():  # told to end since
            return
        # From now on signals wait for the successor: while what is remembered is written, the event loop hears none.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        await asyncio.sleep(TOLD_TIME)
        environment = os.environ | await self._node.hand_over()
        logging.shutdown()
        if self._stop.is_set():  # even later: the successor is told the same
            signal.raise_signal(signal.SIGTERM)
        elif self._ending:
            os._exit(0)
        # Who sends it twice would end the successor before that listens.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            os.execve(argv[0], argv, environment)  # noqa: S606
        except OSError as error:
            print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
            os._exit(FAILED)  # a supervisor starts the next one, and the tunnels wait for it

    async def _end(self) -> None:
        await self._node.hand_over()
        logging.shutdown()
        os._exit(0)


def _command() -> list[str]:
    """The command line that we were started with.

    If the kernel started our script, then it does so again: only thus the process keeps its name.
    """
    script = sys.argv[0]
    with contextlib.suppress(OSError):
        name = Path("/proc/self/comm").read_bytes().removesuffix(b"\n")
        if os.fsencode(os.path.basename(script))[:NAME_LIMIT] == name and os.access(script, os.X_OK):
            return list(sys.argv)
    return [sys.executable, *sys.orig_argv[1:]]


async def _fault(argv: list[str]) -> str | None:
    """What a successor would complain about; None if it can start."""
    try:
        status, _, errors = await output_of([*argv, *CHECK], CHECK_TIME, environment=os.environ | {WHETHER_READY: "1"})
    except TimeoutError:
        return f"it is not ready in {CHECK_TIME:g} s"
    except OSError as error:
        return f"{argv[0]}: {error.strerror}"
    if status == 0:
        return None
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {status}"
