"""Reads and writes our files on the disk: a file is written completely or not at all, and never through a link that
somebody else made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path


class NotOurs(Exception):
    """Somebody else made, or may have changed, this file; the text is for the user."""


def read_ours(path: Path, limit: int, *, owner: int, private: bool) -> bytes:
    """Up to `limit` bytes of a file that only root, we, and the user `owner` can have written.

    It must not be a link, nobody else may write it, and if it is `private`, nobody else may read it. Raises NotOurs,
    OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotOurs(
                f"{path} is a symbolic link, which may lead to a file that somebody else chose: remove it"
            ) from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotOurs(f"{path} is not a file: remove it")
        if found.st_uid not in (0, os.geteuid(), owner):
            raise NotOurs(f"{path} belongs to the user {found.st_uid}, who may have put it there: remove it")
        if found.st_mode & (0o077 if private else 0o022):
            what = "read or write" if private else "write"
            raise NotOurs(f"others may {what} {path} (mode {found.st_mode & 0o777:04o}): remove it")
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes, *, owner: Path | None = None) -> None:
    """Write a file that only its owner can read (0600), completely or not at all, and never over an existing one.

    It is given to the owner of the file `owner`, if we may do that. Raises FileExistsError, OSError.
    """
    temporary = path.with_name(f"{path.name}.{secrets.randbelow(10**9)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if owner is not None:
                _give(file.fileno(), owner.stat())
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
    _sync(path.parent)


def replace_file(path: Path, data: bytes, *, like: Path | None = None) -> None:
    """Replace the content of a file by `data`, completely or not at all. It keeps its owner and mode, or gets those of
    `like`.

    wire.md 2.3. Raises OSError.
    """
    temporary = _temporary(path)
    like = like or path
    old = like.stat() if like.exists() else None
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, old.st_mode & 0o777 if old else 0o644)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if old:
                _give(file.fileno(), old)
                os.fchmod(file.fileno(), old.st_mode & 0o777)  # whatever our umask takes away
            os.fsync(file.fileno())
        move_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _temporary(path: Path) -> Path:
    """A name beside a file. If an interrupted run left a file of this name, it is removed; if somebody else made one,
    another name is used.
    """
    usual = path.with_name(f"{path.name}.new")
    try:
        usual.unlink(missing_ok=True)
    except OSError:
        return path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    return usual


def move_file(path: Path, place: Path) -> None:
    """Replace a file by another one, and wait until this is on the disk. Raises OSError."""
    os.replace(path, place)
    _sync(place.parent)


def _give(descriptor: int, like: os.stat_result) -> None:
    """Give a file the same owner as another one; only root can do this."""
    if os.geteuid() == 0:
        os.fchown(descriptor, like.st_uid, like.st_gid)


def _sync(directory: Path) -> None:
    """Write the names of files to the disk; some file systems cannot do this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
