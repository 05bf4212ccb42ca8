"""The run directory: ours alone while we run, gone afterwards (wire.md 11.2)."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import re
from pathlib import Path
from types import TracebackType

GROUP = "re6stnet"
"""Who is in it may look at the node; without such a group only its own user and root."""

_OURS = re.compile(r"lock|revoked|control\.sock|(babeld|re6stnet[0-9a-z-]*)\.[a-z]+", re.ASCII)
"""What a node puts there; a killed one, or one of the older software, may have left it."""


class RunDirectoryError(Exception):
    """It cannot be made, or another process has it."""


def give_to_group(path: Path, mode: int) -> None:
    """Let our group use a socket or directory. Raises KeyError without such a group, OSError."""
    group = grp.getgrnam(GROUP).gr_gid
    if path.stat().st_gid != group:  # as a service we have the group, and may not call chown
        os.chown(path, -1, group)
    path.chmod(mode)


def check_content(path: Path) -> None:
    """The directory is emptied at the end, so a mistake here would cost somebody their files.

    Raises RunDirectoryError when it holds what is not ours, OSError.
    """
    names = [entry.name for entry in path.iterdir() if not entry.is_socket()]  # whoever made it: no loss
    foreign = [name for name in sorted(names) if not _OURS.fullmatch(name)]
    if foreign:
        raise RunDirectoryError(f"--run {path} holds {foreign[0]!r}, which is not ours. Choose a directory of its own.")


def write_revoked(run: Path, crl: frozenset[int]) -> None:
    """One empty file per revoked serial number: OpenVPN refuses those certificates itself."""
    directory = run / "revoked"
    directory.mkdir(mode=0o700, exist_ok=True)
    wanted = set(map(str, crl))
    present = set(os.listdir(directory))
    for name in wanted - present:
        (directory / name).touch()
    for name in present - wanted:
        (directory / name).unlink()


class RunDirectory:
    """A directory that only we read, locked against a second process, removed at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> RunDirectory:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_content(self.path)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RunDirectoryError(f"--run {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise RunDirectoryError(
                f"--run {self.path} is used by another re6stnet. Stop it or choose --run."
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The content first: a directory made by systemd cannot be removed from inside the unit.
        with contextlib.suppress(OSError):
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    _remove(entry)
                else:
                    entry.unlink(missing_ok=True)
            self.path.rmdir()
        if self._lock is not None:
            os.close(self._lock)


def _remove(directory: Path) -> None:
    """A directory with its files: those that are there hold no others. Raises OSError."""
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
