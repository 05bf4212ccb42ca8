"""A program that is not there: what stands behind `Child.start` when babeld or OpenVPN shall be played by a test.

It listens on the unix socket that its arguments name, and follows a script for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from re6st.linux.process import Child

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeChild:
    """One run. It ends when the script does, or when it is stopped."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.pid = 7
        self.stopped = False
        self.signals: list[int] = []
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def listen(self, path: str, script: Script) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            self._writers.append(writer)
            try:
                await script(reader, writer)
            except asyncio.CancelledError:
                pass
            finally:
                self.end(0)
                writer.close()

        self._server = await asyncio.start_unix_server(serve, path, start_serving=False)
        try:
            await self._server.start_serving()
        except asyncio.CancelledError:  # as asyncio ends a process whose start is cancelled
            self.end(-signal.SIGKILL)
            raise

    def end(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(status)
        if self._server is not None:
            # Closed a turn later: whom it has just accepted would not become a connection, and stay open for ever.
            loop = asyncio.get_running_loop()
            for listening in self._server.sockets:
                loop.remove_reader(listening)
            loop.call_soon(self._server.close)

    @property
    def running(self) -> bool:
        return not self._status.done()

    async def wait(self) -> int:
        return await asyncio.shield(self._status)

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)

    async def stop(self, grace: float = 5.0) -> None:
        self.stopped = True
        self.end(-signal.SIGTERM)
        await self.gone()

    async def gone(self) -> None:
        """Wait until nothing of it is left in the event loop."""
        for _ in range(5):  # a connection may still come in
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await asyncio.sleep(0.002)
        for writer in self._writers:  # a transport closes in a later turn of the loop
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class FakePrograms:
    """Every start of a program; `scripts` says what each does, the last one from then on."""

    def __init__(self, socket_option: str, scripts: Sequence[Script | int]) -> None:
        self.started: list[FakeChild] = []
        self.found: dict[int, FakeChild] = {}
        self._option = socket_option
        self._scripts = list(scripts)

    async def start(self, name: str, argv: Sequence[str | Path], log: Path | None = None) -> FakeChild:
        words = list(map(str, argv))
        child = FakeChild(words)
        self.started.append(child)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        if isinstance(script, int):  # ends at once, without a socket
            child.end(script)
            if log is not None:
                log.write_text("Options error: no good\nUse --help for more information.\n")
        else:
            await child.listen(words[words.index(self._option) + 1], script)
        return child

    def adopt(self, name: str, pid: int) -> FakeChild:
        """One that runs already: `pid` counts them."""
        child = self.found[pid]
        if not child.running:
            raise ProcessLookupError
        self.started.append(child)
        return child


def install(monkeypatch: pytest.MonkeyPatch, option: str, *scripts: Script | int) -> FakePrograms:
    """Play programs by these scripts."""
    programs = FakePrograms(option, scripts)
    monkeypatch.setattr(Child, "start", programs.start)
    monkeypatch.setattr(Child, "adopt", programs.adopt)
    return programs


async def all_gone(programs: FakePrograms) -> None:
    """At the end of a test: nothing runs, and nothing is left in the event loop."""
    assert all(not child.running for child in programs.started)
    for child in programs.started:
        await child.gone()


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition, with a bound."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
