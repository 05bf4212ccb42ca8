"""The state directories of node and registry, and the move from the directory that both had before.

Earlier versions kept both states in /var/lib/re6stnet, where everybody in the group re6stnet could write, even those
who were only to look. They could so make the registry read what they had written. The files of a registry are moved to
its own directory before it is started next. If this is interrupted at any step, the next run finishes it. The database
itself goes last: once it is in its new place, nothing in the old one is looked at again. When the package is removed
because the older one replaces it, the database goes back to the place where that one looks for it (migration/older.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

DATABASE = "registry.db"
LOG = "registry.log"
NODE, REGISTRY = "re6stnet", "re6st-registry"
"""The users, which are also the names of their directories."""
READERS = "adm"
"""The group of those who may read logs, as elsewhere in Debian."""
CONF_LIMIT = 1 << 20
_PARTS = ("-wal", "-shm", "-journal")
"""Files beside a database that SQLite reads as parts of it."""


class StateError(Exception):
    """A person has to decide this; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Places:
    """The directories; another `root` is for tests."""

    root: Path = Path("/")

    @property
    def options(self) -> Path:
        return self.root / "etc/re6stnet/re6st-registry.conf"

    @property
    def lock(self) -> Path:
        return self.root / "run/re6st-prepare-states.lock"

    def state(self, user: str) -> Path:
        return self.root / "var/lib" / user

    def log(self, user: str) -> Path:
        return self.root / "var/log" / user


@dataclass(frozen=True, slots=True)
class Owner:
    """The group and mode of a directory and of the files in it."""

    user: int
    group: int


ROOT = Owner(0, 0)
"""The user and group of the older software."""


def owner(name: str) -> Owner:
    """Raises KeyError."""
    found = pwd.getpwnam(name)
    return Owner(found.pw_uid, found.pw_gid)


def database(text: str, places: Places = Places()) -> Path:
    """The path of a database as it was given, or its new path if the package has moved it. An argparse type."""
    return _moved(Path(text), places.state(NODE), places.state(REGISTRY))


def log_file(text: str, places: Places = Places()) -> Path:
    """The same for a log."""
    return _moved(Path(text), places.log(NODE), places.log(REGISTRY))


def _moved(path: Path, former: Path, new: Path) -> Path:
    """Without the package nothing is moved, and a registry goes on with the file that it has."""
    there, here = os.path.lexists(former / path.name), os.path.lexists(new / path.name)
    if path.parent == former and not there and new.is_dir():
        return new / path.name
    if path.parent == new and there and not here:
        return former / path.name
    return path


# --- the move ---


@contextlib.contextmanager
def alone(places: Places) -> Iterator[None]:
    """Wait until another run has ended: two services may start at the same time. Raises OSError."""
    descriptor = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def move_registry(places: Places, to: Owner) -> list[str]:
    """Move a registry's files out of the directory of the node; returns what to report. Raises StateError, OSError."""
    former, new = places.state(NODE), places.state(REGISTRY)
    told = []
    for name in sorted({DATABASE, *_named(places.options, former)}):
        if not os.path.lexists(former / name):
            continue
        if os.path.lexists(new / name):
            if _same(former / name, new / name):  # we were killed between copy and removal
                (former / name).unlink()
            else:
                told.append(f"{new / name} is used. {former / name} is not: remove it, or put it there instead")
            continue
        _check_ours(former / name, to)
        _make(new, to, 0o700)
        with _unused(former / name):
            for beside in sorted(former.glob(f"{name}?*")):
                if stat.S_ISSOCK(beside.lstat().st_mode):
                    beside.unlink()
                elif not os.path.lexists(new / beside.name) or _same(beside, new / beside.name):
                    if beside.name.removeprefix(name) not in _PARTS and beside.lstat().st_uid not in (0, to.user):
                        continue
                    _check_ours(beside, to)
                    _move(beside, new / beside.name, to, 0o600)
            _move(former / name, new / name, to, 0o600)
        told.append(f"the registry's database is now {new / name}")
    for log in sorted(places.log(NODE).glob(f"{LOG}*")):
        target = places.log(REGISTRY) / log.name
        # The directory belongs to the node: a file that it made there is not a log of the registry, and no reason to
        # stop it.
        found = log.lstat()
        ours = stat.S_ISREG(found.st_mode) and found.st_uid in (0, to.user) and found.st_nlink == 1
        if ours and not os.path.lexists(target):
            _make(target.parent, to, 0o750)
            _move(log, target, to, 0o640)
    return told


def _named(options: Path, directory: Path) -> Iterator[str]:
    """Names of databases in a directory that a registry's option file mentions."""
    try:
        with options.open(encoding="utf-8") as file:
            lines = file.read(CONF_LIMIT).splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        with contextlib.suppress(ValueError):  # the registry will report it
            match shlex.split(line, comments=True):
                case ["db" | "--db", path] if Path(path).parent == directory:
                    yield Path(path).name


def _check_ours(path: Path, to: Owner) -> None:
    """Others could make files there, too. Raises StateError."""
    found = path.lstat()
    if found.st_uid not in (0, to.user):
        raise StateError(
            f"{path} belongs to the user {found.st_uid}, who may have put it there for the registry to read. "
            "Look at it, then remove it or give it to root"
        )
    if not stat.S_ISREG(found.st_mode) and not (stat.S_ISLNK(found.st_mode) and found.st_uid == 0):
        raise StateError(f"{path} is not a file: look at it, and remove it")


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Make sure that nobody serves the database meanwhile. Raises StateError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StateError(f"{path} is in use by a registry: stop that one first") from None
    finally:
        os.close(descriptor)


def _same(one: Path, other: Path) -> bool:
    """Whether two files have the same content."""
    if one.is_symlink() or other.is_symlink() or not (one.is_file() and other.is_file()):
        return False
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while block := first.read(1 << 20):
            if block != second.read(1 << 20):
                return False
    return True


def _move(path: Path, target: Path, to: Owner, mode: int, whose: Owner | None = None) -> None:
    """Copy a file of root, of its new owner, or of `whose`; it is on the disk before the old one is removed.

    The two directories may be on different disks.
    """
    owners = (0, (whose or to).user)
    unfinished = target.with_name(f"{target.name}.moving")
    unfinished.unlink(missing_ok=True)
    if path.is_symlink():
        unfinished.symlink_to(path.parent / os.readlink(path))
        os.replace(unfinished, target)
    else:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(source, "rb") as old, open(os.open(unfinished, _NEW, 0o600), "wb") as new:
            found = os.fstat(source)
            # A second name may be in a directory of somebody else, for a file that he could not read.
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners or found.st_nlink != 1:
                raise StateError(f"{path} was replaced meanwhile: look at it")
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            _give(new.fileno(), to, mode)
            os.fsync(new.fileno())
        os.replace(unfinished, target)
    _sync(target.parent)
    path.unlink()
    _sync(path.parent)


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def return_registry(places: Places, whose: Owner, to: Owner, prepare: Callable[[Path], str]) -> list[str]:
    """Move databases of a registry back to the directory of the node, which must no longer belong to the node.

    `prepare` is called with each one before, and returns what to report about it. A database that is already there is
    set aside. If this is interrupted at any step, the next run finishes it, and `move_registry` undoes it. Raises
    StateError, OSError.
    """
    former, new = places.state(NODE), places.state(REGISTRY)
    told = []
    stay = set(_named(places.options, new))
    for name in sorted({DATABASE, *_named(places.options, former)} - stay):
        if not os.path.lexists(new / name):
            continue
        _make(former, to, 0o700)
        with _unused(new / name):
            said = prepare(new / name)
            if os.path.lexists(former / name) and not _same(former / name, new / name):
                aside = _free_name(former / f"{name}.unused")
                os.rename(former / name, aside)
                told.append(f"{former / name}, which was not used, is now {aside}")
            for part in _PARTS:  # of another database: SQLite would take it for a part of ours
                (former / f"{name}{part}").unlink(missing_ok=True)
            if os.path.lexists(former / name):  # we were killed between copy and removal
                (new / name).unlink()
            else:
                _move(new / name, former / name, to, 0o600, whose)
        told.append(f"the registry's database is now {former / name}: {said}")
    return told


def _free_name(path: Path) -> Path:
    """This path, or one with a number appended that does not exist."""
    number, found = 1, path
    while os.path.lexists(found):
        number, found = number + 1, path.with_name(f"{path.name}{number}")
    return found


# --- owners ---


def hand_over(directory: Path, whose: Collection[int], to: Owner) -> None:
    """Give a directory, and the files in it, from these users to another one. Raises OSError."""
    try:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):  # or a link, whose target somebody has chosen
        return
    try:
        if os.fstat(place).st_uid in whose:
            os.fchown(place, to.user, to.group)
    finally:
        os.close(place)
    adopt(directory, to, None, whose)


def adopt(directory: Path, to: Owner, mode: int | None, whose: Collection[int] = (0,)) -> None:
    """Give files of these users, and those that an administrator made as root, to the owner of their directory.

    They get this mode, or keep theirs. Raises OSError.
    """
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in names:
            with contextlib.suppress(OSError):  # a link, a socket, or gone
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
                try:
                    found = os.fstat(file)
                    # A file with several names may be somebody else's.
                    if stat.S_ISREG(found.st_mode) and found.st_uid in (*whose, to.user) and found.st_nlink == 1:
                        _give(file, to, stat.S_IMODE(found.st_mode) if mode is None else mode)
                finally:
                    os.close(file)
    finally:
        os.close(place)


def _make(directory: Path, to: Owner, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode)
        os.chown(directory, to.user, to.group)


def _give(file: int, to: Owner, mode: int) -> None:
    found = os.fstat(file)
    if (found.st_uid, found.st_gid) != (to.user, to.group):
        os.fchown(file, to.user, to.group)
    if stat.S_IMODE(found.st_mode) != mode:
        os.fchmod(file, mode)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
