"""The run directory: ours alone while we run, gone afterwards (wire.md 11.2). What is not ours in it stays there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import logging
import os
import stat
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from re6st import run_names

GROUP = "re6stnet"
"""Who is in it may look at the node; without such a group only its own user and root."""

_MISTAKES = frozenset(
    (errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG)
)
"""Why a directory can never be made, until a person chooses another one. A full disk is none of them."""

_OPEN = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH

log = logging.getLogger(__name__)


class RunDirectoryError(Exception):
    """It is no place for a run directory, which a person must mend."""


class RunDirectoryBusy(OSError):
    """It cannot be had now: another process has it, or the disk is full."""


def give_to_group(path: Path, mode: int) -> None:
    """Let our group use a socket or directory. Raises KeyError without such a group, OSError."""
    group = grp.getgrnam(GROUP).gr_gid
    if path.stat().st_gid != group:  # as a service we have the group, and may not call chown
        os.chown(path, -1, group)
    path.chmod(mode)


def foreign(path: Path) -> list[str]:
    """What the directory holds that is not ours. It stays there.

    Raises RunDirectoryError for a directory that is open to others and holds such files: as ours it would be closed to
    them, and somebody needs it as it is. Raises OSError.
    """
    # A socket is no reason to keep away: whoever made it, nothing is lost.
    names = sorted(entry.name for entry in path.iterdir() if not entry.is_socket())
    others = [name for name in names if not run_names.is_ours(name)]
    if others and stat.S_IMODE(path.stat().st_mode) & _OPEN:
        raise RunDirectoryError(f"--run {path} holds {others[0]!r}, which is not ours. Choose a directory of its own.")
    return others


def write_revoked(run: Path, crl: frozenset[int]) -> None:
    """One empty file per revoked serial number: OpenVPN refuses those certificates itself. Raises OSError."""
    directory = run / run_names.REVOKED
    directory.mkdir(mode=0o700, exist_ok=True)
    wanted = set(map(str, crl))
    present = {name for name in os.listdir(directory) if name.isascii() and name.isdigit()}
    for name in wanted - present:
        (directory / name).touch()
    for name in present - wanted:
        (directory / name).unlink()


def write(path: Path, data: bytes) -> None:
    """Write a file of the run directory, for its owner only, whole or not at all. Raises OSError."""
    new = path.with_name(run_names.unfinished(path.name))
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    new.replace(path)


def remove_old(path: Path, processes: Collection[str]) -> None:
    """Remove what an earlier run left: of OpenVPN processes but these, which run on, and what it could not finish."""
    for name in os.listdir(path):
        owner = run_names.process_of(name)
        if run_names.is_unfinished(name) or (owner is not None and owner not in processes):
            with contextlib.suppress(OSError):
                (path / name).unlink()


class RunDirectory:
    """A directory that only we read, locked against a second process, removed at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> RunDirectory:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            others = foreign(self.path)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / run_names.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            text = f"--run {self.path}: {error.strerror}"
            raise RunDirectoryError(text) if error.errno in _MISTAKES else RunDirectoryBusy(text) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise RunDirectoryBusy(f"--run {self.path} is used by another re6stnet. Stop it or choose --run.") from None
        if others:
            log.warning("--run %s holds %r, which is not ours: it is left there", self.path, others[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The content first: a directory made by systemd cannot be removed from inside the unit.
        with contextlib.suppress(OSError):
            for name in os.listdir(self.path):
                if run_names.is_ours(name):
                    _remove(self.path / name)
            self.path.rmdir()
        if self._lock is not None:
            os.close(self._lock)


def _remove(path: Path) -> None:
    """A file, or a directory with its files: those that are there hold no others."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()
