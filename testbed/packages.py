"""What this machine's package manager knows, copied between two of its runs, for machines of a bed.

Their files are those of this machine. What apt and dpkg write beneath them while they are at work would be an
interrupted run to the dpkg of a bed's machine, so that has a copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import time
from pathlib import Path

from testbed.namespace import BedError

DIRECTORIES = ("var/lib/dpkg", "var/lib/apt/lists")
LOCKS = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock")
PATIENCE = 600.0
"""Seconds that apt may be at work."""
PAUSE = 0.2

_FLOCK = struct.Struct("hhqqi0q")  # fcntl(2): type, whence, start, length, process


def copy(target: Path, root: Path = Path("/"), patience: float = PATIENCE) -> None:
    """Copy what is known of packages for the upper layer of an overlay. Raises BedError."""
    deadline = time.monotonic() + patience
    while True:
        before = _state(root)
        if before is not None:
            with contextlib.suppress(OSError, shutil.Error):  # a file has gone meanwhile: the state is another then
                _copy(target, root)
                if _state(root) == before:
                    return
        if time.monotonic() > deadline:
            raise BedError(f"apt or dpkg of this machine has been at work, or interrupted, for {patience:g} s")
        time.sleep(PAUSE)


def _copy(target: Path, root: Path) -> None:
    for name in DIRECTORIES:
        shutil.rmtree(target / name, ignore_errors=True)
        if (root / name).exists():
            shutil.copytree(root / name, target / name, symlinks=True)
            # Nothing of the directory in the layer beneath shows through (overlayfs.rst, "whiteouts and opaque").
            os.setxattr(target / name, "trusted.overlay.opaque", b"y")


def _state(root: Path) -> tuple[int, ...] | None:
    """Something that differs after each run of apt or dpkg; None while one is at work, or was interrupted."""
    if any(_is_locked(root / name) for name in LOCKS) or any(_names(root / "var/lib/dpkg/updates")):
        return None
    changed = []
    for name in (*DIRECTORIES, "var/lib/dpkg/status", "var/lib/dpkg/info"):
        with contextlib.suppress(FileNotFoundError):
            changed.append((root / name).stat().st_mtime_ns)
    return tuple(changed)


def _names(directory: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(directory)
    return []


def _is_locked(path: Path) -> bool:
    """Whether a process holds a lock of fcntl(2) on a file; we take none, as apt would give up at once."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        found: bytes = fcntl.fcntl(file, fcntl.F_GETLK, asked)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    return False
