"""Network namespaces, and the commands that make them: what hosts of a bed are made of."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

RUN = Path("/run")
NAMESPACES = RUN / "netns"
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class BedError(Exception):
    """A command of the bed failed, or the machine cannot hold a bed."""


class Namespace:
    """One network namespace, `BED-NAME`, with its loopback interface up."""

    def __init__(self, bed: str, name: str) -> None:
        self.full_name = f"{bed}-{name}"
        self.path = NAMESPACES / self.full_name
        command("ip", "netns", "add", self.full_name)
        self.ip("link set lo up")

    def ip(self, *lines: str) -> None:
        """Run commands of ip(8) in it. Raises BedError."""
        command("ip", "-n", self.full_name, "-batch", "-", text="\n".join(lines))

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in this namespace, in a thread of its own, so that no other code is moved there.

        A socket stays in the namespace it was made in: `call(socket.socket)` gives one to use from anywhere.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with open(self.path) as file:
                    if _libc.setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"cannot enter {self.path}")
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def sysctl(self, values: Mapping[str, object]) -> None:
        """Set kernel parameters; names with slashes, below /proc/sys."""

        def write() -> None:
            for name, value in values.items():
                Path("/proc/sys", name).write_text(f"{value}\n")

        self.call(write)


# --- commands ---


def command(*argv: str, text: str | None = None) -> str:
    """Run a command of the machine, and return what it printed. Raises BedError."""
    return run(argv, 60, True, text=text).stdout


def run(
    argv: Sequence[str],
    timeout: float,
    check: bool,
    *,
    text: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            argv,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            cwd=cwd,
            env=env,
            check=False,
        )
    except OSError as error:
        raise BedError(f"{argv[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise BedError(f"{' '.join(argv)}: not done after {timeout:g} s") from None
    if check:
        must_succeed(done, text or "")
    return done


def must_succeed(done: subprocess.CompletedProcess[str], text: str = "") -> None:
    """Raises BedError, with what the command was given and printed, if it failed."""
    if done.returncode:
        parts = (f"{' '.join(done.args)}: status {done.returncode}", text, done.stdout, done.stderr)
        raise BedError("\n".join(part.strip() for part in parts if part.strip()))


def processes(namespaces: Iterable[Path]) -> Iterator[tuple[int, list[str]]]:
    """The processes in these namespaces, by the number of the namespace's inode."""
    wanted = {path.stat().st_ino for path in namespaces}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat(f"/proc/{entry}/ns/net").st_ino in wanted:
                    words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")[:-1]
                    if words:  # else it is ending
                        yield int(entry), [word.decode(errors="replace") for word in words]
            except OSError:
                continue  # ended meanwhile, or a zombie
