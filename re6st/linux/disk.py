"""Files of ours on the disk: written whole or not at all, never through a link that somebody else has put there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path


class NotOurs(Exception):
    """A file that somebody else put there, or may have changed; text for the user."""


def read_ours(path: Path, limit: int, *, owner: int, private: bool) -> bytes:
    """Up to `limit` bytes of a file that nobody can have put there but root, we, and the user `owner`.

    It is no link, nobody else may write it, nor read it where it is `private`. Raises NotOurs, OSError.
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
    """Write a file that only its owner reads (0600), whole or not at all, never over an existing one.

    It is given to the owner of the file `owner`, if we may. Raises FileExistsError, OSError.
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
    """Put `data` in the place of a file, with its owner and mode, or those of `like`, whole or not at all.

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
    """A name beside a file. One that an interrupted run left is removed; where somebody else has put it, another."""
    usual = path.with_name(f"{path.name}.new")
    try:
        usual.unlink(missing_ok=True)
    except OSError:
        return path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    return usual


def move_file(path: Path, place: Path) -> None:
    """Put a file in the place of another one, on the disk before we go on. Raises OSError."""
    os.replace(path, place)
    _sync(place.parent)


def _give(descriptor: int, like: os.stat_result) -> None:
    """Give a file to the owner of another one; only root can."""
    if os.geteuid() == 0:
        os.fchown(descriptor, like.st_uid, like.st_gid)


def _sync(directory: Path) -> None:
    """Have the names of files on the disk; some file systems cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
