"""Starts, watches and stops child processes, and decides how long to wait before the next start.

`Child` is one run of a program in its own process group. `keep_running` runs a program again whenever it ends.
`output_of` runs one to its end and returns its output. `leftovers` finds processes that an earlier daemon left, and
`Child.adopt` takes one of them over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

STOP_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL (wire.md 10.9)."""
END_TIME = 1.0
"""At most so many seconds pass between the end of a program's socket and the end of the program."""
GROUP_POLL = 0.05
"""Seconds between two checks whether a process group still has members."""
LAST_WORDS = 2000
"""The last so many bytes of a program's output are read."""
STABLE_TIME = 30.0
"""A program that has run for so many seconds runs well."""
FILE_TIME = 0.1
"""The timestamp of a file may be so many seconds behind the clock."""

_ADVICE = re.compile(r"Use --help|Syntax:|usage:|babeld-[0-9]|\s")
"""OpenVPN and babeld print lines that begin so after an error in their options; they say nothing about the error."""

log = logging.getLogger(__name__)

_Connection = TypeVar("_Connection")


class MissingProgram(Exception):
    """A program that is not installed."""


def find_program(name: str, remedy: str = "") -> str:
    """The path of a program, even if PATH lacks the sbin directories. Raises MissingProgram.

    `remedy` is for a program of which Debian has no package.
    """
    for directory in (*os.get_exec_path(), "/usr/local/sbin", "/usr/sbin", "/sbin"):
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise MissingProgram(f"{name}: program not found. {remedy or f'Install it (Debian: apt install {name}).'}")


def allow_files(wanted: int) -> int:
    """Allow this process, and programs that it starts from now on, to open so many files, or as many as the system
    permits; returns the number.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (wanted if each == resource.RLIM_INFINITY else min(each, wanted) for each in limits)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, limits[1]))
    return max(soft, hard)


class Backoff:
    """Delays that double from `first` to `last` seconds, with some jitter, and start again after success."""

    def __init__(self, first: float = 0.5, last: float = 60.0) -> None:
        self._first = self._next = first
        self._last = last

    def next(self) -> float:
        delay = self._next * random.uniform(0.75, 1.25)  # noqa: S311
        self._next = min(2 * self._next, self._last)
        return delay

    def reset(self) -> None:
        self._next = self._first


class _Process(Protocol):
    """The parts of asyncio's process that we use."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...


class _Adopted:
    """A process that another daemon started, or this one before an exec, which keeps the children.

    Raises ProcessLookupError if the process has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = self._loop.create_future()
        self._descriptor = os.pidfd_open(pid)
        self._loop.add_reader(self._descriptor, self._ended)

    @property
    def returncode(self) -> int | None:
        return self._status.result() if self._status.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._status)

    def _ended(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        status = 0  # only the parent learns the exit status
        with contextlib.suppress(ChildProcessError):
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if pid else 0
        self._status.set_result(status)


class Child:
    """One run of a program."""

    def __init__(self, name: str, process: _Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    async def start(
        cls,
        name: str,
        argv: Sequence[str | Path],
        log: Path | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        quiet: bool = True,
    ) -> Child:
        """Start a program. Its output goes to the end of `log`, or nowhere; if not `quiet`, to our own output.

        The program writes to the file itself, so that it can go on when we end; whoever rotates the file has to copy
        and truncate it. It gets its own session, so that Ctrl-C in our terminal does not end it before we do. Raises
        OSError.
        """
        with open(log or os.devnull, "ab") as output:
            process = await asyncio.create_subprocess_exec(
                *map(str, argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output if quiet else None,
                stderr=output if quiet else None,
                env=environment,
                start_new_session=True,
            )
        return cls(name, process)

    @classmethod
    def adopt(cls, name: str, pid: int) -> Child:
        """Take over a process that runs already. Raises OSError if it has ended."""
        return cls(name, _Adopted(pid))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """The exit status; a negative one is the number of the signal that ended the process."""
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        # send_signal checks whether it has ended, and so takes the exit status away from asyncio (CPython gh-87744).
        with contextlib.suppress(ProcessLookupError):
            if self.running:
                os.kill(self.pid, number)

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """End it and its process group: SIGTERM, and SIGKILL after `grace` seconds. This finishes even when cancelled.

        Without any grace it gets SIGKILL alone, and so cannot do anything more: from SIGTERM on a babeld takes its
        routes away, in less time than we may need to go on.

        If it had ended before, nothing is done: another process may have its number, or its group's, by now.
        """
        if not self.running:
            return
        # An adopted process may be in somebody else's group.
        kill = os.killpg if _leads_group(self.pid) else os.kill
        if grace:
            _send(kill, self.pid, signal.SIGTERM)
        gone = asyncio.ensure_future(self._gone(kill))
        try:
            # Not by a timeout: if we were cancelled before, Python 3.11 takes the end of the timeout for one more
            # cancellation.
            await asyncio.wait([gone], timeout=grace)
        finally:
            gone.cancel()
            if self.running or kill is os.killpg:
                _send(kill, self.pid, signal.SIGKILL)
        await self._process.wait()

    async def _gone(self, kill: Callable[[int, int], None]) -> None:
        """Wait until the process, and its process group if it has one, have ended."""
        await self._process.wait()
        while kill is os.killpg and _send(kill, self.pid, 0):  # noqa: ASYNC110
            await asyncio.sleep(GROUP_POLL)  # other processes' children: there is nothing else to wait for


def _leads_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _send(kill: Callable[[int, int], None], pid: int, number: int) -> bool:
    """Send a signal to a process or a group; returns whether it exists (signal 0 only asks)."""
    try:
        kill(pid, number)
    except ProcessLookupError:
        return False
    return True


async def connect(child: Child, socket: Path, patience: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a child's unix socket as soon as it listens. Raises OSError if the child ends, or is not ready in
    time.
    """
    return await connected(child, patience, lambda: asyncio.open_unix_connection(socket))


async def connected(child: Child, patience: float, connect: Callable[[], Awaitable[_Connection]]) -> _Connection:
    """What `connect` makes to a child's unix socket, as soon as it listens. Raises OSError as above."""
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return await connect()
        if not child.running:
            raise OSError(status_text(await child.wait()))
        if asyncio.get_running_loop().time() > deadline:
            raise OSError(f"no socket after {patience:g} s")
        await asyncio.sleep(0.01)


async def end_of(child: Child) -> str:
    """Why a child whose socket was closed has ended; the socket closes a moment before the process ends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_TIME):
            return status_text(await child.wait())
    return "its socket was closed"


async def keep_running(
    name: str, once: Callable[[], Awaitable[str | None]], output: Path | None, log_file: Path | None = None
) -> None:
    """Run a program again whenever it ends, until cancelled: at first at once, then less and less often.

    `once` is one run from start to end. It returns, or raises (OSError, ValueError), why it ended, or returns None to
    be run again at once. The last line that the program printed to `output`, or else wrote to its own `log_file`, is
    logged with the reason.
    """
    backoff = Backoff()
    clock = asyncio.get_running_loop().time
    while True:
        started, since = clock(), time.time() - FILE_TIME
        try:
            reason = await once()
        except (OSError, ValueError) as error:  # ValueError: a line longer than the buffer
            reason = str(error) or "it does not answer"
        if reason is None:
            continue
        if clock() - started > STABLE_TIME:
            backoff.reset()
        delay = backoff.next()
        log.error(
            "%s ended (%s): %s. Next start in %.1f s.", name, reason, last_words(output, log_file, since=since), delay
        )
        await asyncio.sleep(delay)


async def output_of(
    argv: Sequence[str | Path], patience: float, given: bytes = b"", environment: Mapping[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """Run a program to its end: its exit status, and its standard output and standard error.

    `given` is its standard input. The program is killed if it does not end within `patience` seconds (TimeoutError), or
    if we are cancelled. Raises OSError if it cannot be started.
    """
    # Files in memory, not pipes: the pipes of a process that outlives us would still need the event loop when that is
    # gone.
    with _memory(given) as stdin, _memory() as stdout, _memory() as stderr:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv), stdin=stdin, stdout=stdout, stderr=stderr, env=environment
        )
        child = Child(str(argv[0]), process)
        try:
            async with asyncio.timeout(patience):
                status = await child.wait()
        finally:
            await child.stop(grace=0)
        return status, _content(stdout), _content(stderr)


@contextlib.contextmanager
def _memory(content: bytes = b"") -> Iterator[BinaryIO]:
    with open(os.memfd_create("re6st"), "w+b", buffering=0) as file:
        file.write(content)
        file.seek(0)
        yield file


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def last_words(*outputs: Path | None, since: float = 0.0) -> str:
    """The last line of the first of these files that has one and was written since then."""
    for output in filter(None, outputs):
        with contextlib.suppress(OSError), output.open("rb") as file:
            if os.fstat(file.fileno()).st_mtime < since:
                continue
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS))
            lines = file.read(LAST_WORDS).decode("utf-8", "replace").rstrip().splitlines()
            told = [line for line in lines if line and not _ADVICE.match(line)]
            if told:
                return told[-1]
    return "no output"


def status_text(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def command_line(pid: int) -> list[str]:
    """The arguments of a process; none where there is no such one."""
    try:
        return [os.fsdecode(word) for word in Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []


def leftovers(programs: frozenset[str], directory: Path) -> dict[int, list[str]]:
    """Processes of these programs with an argument inside `directory`: those that an earlier run of ours left.

    They are listed by number, with their command lines. The directory is the run directory of one node, so processes of
    another node on the same machine are not found.
    """
    found = {}
    inside = f"{directory}/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        argv = command_line(int(entry.name))
        # If the first word is an interpreter, the second one is the program.
        if {os.path.basename(word) for word in argv[:2]} & programs and any(inside in word for word in argv[1:]):
            found[int(entry.name)] = argv
    return found


def birth(pid: int) -> int | None:
    """When a process began, as the kernel counts: together with the number, this identifies a process.

    None if it does not exist, or has ended.
    """
    try:
        # The second field is the name, in brackets, and may contain anything (proc_pid_stat(5)).
        fields = Path("/proc", str(pid), "stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] == b"Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


async def end_leftovers(programs: frozenset[str], directory: Path, keep: frozenset[int] = frozenset()) -> list[int]:
    """End such processes, except those to `keep`, and return their numbers."""

    def left() -> list[int]:
        return [pid for pid in leftovers(programs, directory) if pid not in keep]

    pids = left()
    if not pids:
        return []
    for number, patience in ((signal.SIGTERM, STOP_GRACE), (signal.SIGKILL, 1.0)):
        for pid in left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = asyncio.get_running_loop().time() + patience
        while left() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # another parent's children: there is nothing else to wait for
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # or our own child, from before an exec
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222
    return pids
