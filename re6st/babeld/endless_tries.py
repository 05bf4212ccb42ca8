"""Sees in babeld's log that it tries without end to send what it cannot send.

With a key, babeld (1.12.1 to 1.14) signs each packet, and needs its own link-local address for that. If an interface
goes down, or loses that address, while something waits that is for one neighbour behind it alone, babeld keeps that
and tries again at once: tens of thousands of times a second, with three lines in its log each time. Meanwhile it reads
nothing: no hellos, no commands, nor that the interface is up again. This ends when it forgets the neighbour, after
sixteen of the intervals at which that one said hello: four seconds, or as many minutes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

REASON = "it tries without end to send something on an interface without a link-local address"
COMPLAINTS = frozenset(
    (b"add_hmac: no link-local address.", b"Couldn't add HMAC.", b"send_pc: no space left to accumulate pc.")
)
MUCH = 8192
"""Bytes that it writes of them at least, from one look to the next, when it is without end: some 90 tries."""


@dataclass(frozen=True, slots=True)
class _Length:
    """How long a file is, which its inode identifies: one that was rotated is another one."""

    inode: int
    size: int

    def grown_by(self, before: _Length | None) -> int:
        return self.size - before.size if before is not None and before.inode == self.inode else 0


class EndlessTries:
    """For one log, which its program opened to append; None is one that is not kept. `began` is for every half second
    or so, `goes_on` for the moment after.
    """

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._seen: _Length | None = None
        self._calm: _Length | None = None
        """How long it was before."""

    def began(self) -> bool:
        """Whether since the last look much was written, at the end only complaints."""
        before = self._seen
        if self._grew(MUCH):
            self._calm = before
            return True
        return False

    def goes_on(self) -> bool:
        """Whether still more of them were written since."""
        return self._grew(1)

    def cut(self) -> None:
        """Take out of the log what was written since it was calm."""
        with suppress(OSError), self._open("r+b") as file:
            if _length(file).grown_by(self._calm) > 0 and self._calm is not None:
                file.truncate(self._calm.size)
            self._seen, self._calm = _length(file), None

    def _grew(self, much: int) -> bool:
        before = self._seen
        try:
            with self._open("rb") as file:
                self._seen = _length(file)
                return self._seen.grown_by(before) >= much and _only_complaints(file)
        except OSError:
            self._seen = None
            return False

    def _open(self, mode: str) -> IO[bytes]:
        return open(self._log or os.devnull, mode, buffering=0)


def _length(file: IO[bytes]) -> _Length:
    found = os.fstat(file.fileno())
    return _Length(found.st_ino, found.st_size)


def _only_complaints(file: IO[bytes]) -> bool:
    """Whether the end of the log has nothing else; of its first and last line a part may be missing."""
    file.seek(-min(MUCH, os.fstat(file.fileno()).st_size), os.SEEK_END)
    lines = file.read(MUCH).split(b"\n")[1:-1]
    return bool(lines) and COMPLAINTS.issuperset(lines)
