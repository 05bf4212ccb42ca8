"""The run directory: ours alone while we run, gone afterwards (wire.md 11.2)."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType


class RunDirectoryError(Exception):
    """It cannot be made, or another process has it."""


class RunDirectory:
    """A directory that only we read, locked against a second process, removed at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> RunDirectory:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        try:
            self.path.rmdir()
        except OSError:
            pass
        if self._lock is not None:
            os.close(self._lock)
