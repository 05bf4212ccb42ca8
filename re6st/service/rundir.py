"""The run directory: ours alone while we run, and removed afterwards (wire.md 11.2). Files in it that are not ours are
left there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import logging
import os
import stat
import struct
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from re6st.service import run_names

GROUP = "re6stnet-look"
"""Members of this group may look at the node; if it does not exist, only the node's user and root may."""

_MISTAKES = frozenset(
    (errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG)
)
"""Errors for which a directory cannot be made until a person chooses another one. A full disk is not among them."""

_OPEN = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH

_ACL_VERSION, _NOBODY = 2, 0xFFFFFFFF
"""Constants of the kernel's form of access control lists (linux/posix_acl_xattr.h)."""

log = logging.getLogger(__name__)


class RunDirectoryError(Exception):
    """This place cannot be a run directory; a person has to change that."""


class RunDirectoryBusy(OSError):
    """It cannot be used now: another process uses it, or the disk is full."""


def give_to_group(path: Path, mode: int) -> None:
    """Let the group that may look use a socket or directory. Raises KeyError if there is no such group, and OSError."""
    group = grp.getgrnam(GROUP).gr_gid
    if path.stat().st_gid != group:
        try:
            os.chown(path, -1, group)
        except PermissionError:  # a service is not in that group, and may not call chown
            _add_group(path, group, mode)
            return
    path.chmod(mode)


def _add_group(path: Path, group: int, mode: int) -> None:
    """The same by an access control list (acl(5)), which the owner may set. Raises PermissionError."""
    owner, members = mode >> 6 & 7, mode >> 3 & 7
    entries = ((0x01, owner, _NOBODY), (0x04, 0, _NOBODY), (0x08, members, group), (0x10, members, _NOBODY))
    packed = b"".join(struct.pack("<HHI", *entry) for entry in (*entries, (0x20, mode & 7, _NOBODY)))
    try:
        os.setxattr(path, "system.posix_acl_access", struct.pack("<I", _ACL_VERSION) + packed)
    except OSError as error:
        raise PermissionError(error.errno, error.strerror, str(path)) from None


def foreign(path: Path) -> list[str]:
    """The files in the directory that are not ours. They are left there.

    Raises RunDirectoryError if the directory belongs to somebody else, who could put files there that we obey; and if
    it is open to others and contains such files: as our run directory it would be closed to them, and somebody needs it
    as it is. Raises OSError.
    """
    owner = path.stat().st_uid
    if owner not in (0, os.geteuid()):
        raise RunDirectoryError(f"--run {path} belongs to the user {owner}. Choose a directory for re6stnet alone.")
    # A socket does not matter: whoever made it, nothing is lost.
    names = sorted(entry.name for entry in path.iterdir() if not entry.is_socket())
    others = [name for name in names if not run_names.is_ours(name)]
    if others and stat.S_IMODE(path.stat().st_mode) & _OPEN:
        raise RunDirectoryError(
            f"--run {path} contains {others[0]!r}, which is not from re6stnet. Choose a directory for re6stnet alone."
        )
    return others


def write_revoked(run: Path, crl: frozenset[int]) -> None:
    """Make one empty file for each revoked serial number: OpenVPN refuses these certificates itself. Raises OSError."""
    directory = run / run_names.REVOKED
    directory.mkdir(mode=0o700, exist_ok=True)
    wanted = set(map(str, crl))
    present = {name for name in os.listdir(directory) if name.isascii() and name.isdigit()}
    for name in wanted - present:
        (directory / name).touch()
    for name in present - wanted:
        (directory / name).unlink()


def write(path: Path, data: bytes) -> None:
    """Write a file of the run directory, for its owner only, completely or not at all. Raises OSError."""
    new = path.with_name(run_names.unfinished(path.name))
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    new.replace(path)


def remove_old(path: Path, processes: Collection[str]) -> None:
    """Remove incomplete files of an earlier run, and those of its OpenVPN processes, except `processes`."""
    for name in os.listdir(path):
        owner = run_names.process_of(name)
        if run_names.is_unfinished(name) or (owner is not None and owner not in processes):
            with contextlib.suppress(OSError):
                (path / name).unlink()


class RunDirectory:
    """A directory that only we can read, locked against a second process, and removed at the end."""

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        """`keep`: its files belong to processes that run on, and are left there at the end."""
        self.path = path
        self.keep = keep
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
            raise RunDirectoryBusy(
                f"--run {self.path} is used by another re6stnet. Stop that one, or choose another directory with --run."
            ) from None
        if others:
            log.warning("--run %s contains %r, which is not from re6stnet: it is left there", self.path, others[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The content first: a directory that systemd made cannot be removed from inside the unit.
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(self.path) if run_names.is_ours(name)]
            for name in names if not self.keep or names == [run_names.LOCK] else ():
                _remove(self.path / name)
            self.path.rmdir()
        if self._lock is not None:
            os.close(self._lock)


def _remove(path: Path) -> None:
    """Remove a file, or a directory with its files: there are no deeper directories."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()
