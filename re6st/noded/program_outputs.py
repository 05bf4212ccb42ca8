"""What our programs print stays short: the run directory is in memory, and others can make OpenVPN complain at will."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from pathlib import Path

from re6st.service import run_names

LIMIT = 1 << 20
"""Bytes of one file at which it is cut."""
KEPT = 1 << 14
"""Bytes at its end that stay: the last words are told when the program ends."""
LOOK_EVERY = 10.0

log = logging.getLogger(__name__)


async def keep_short(run: Path) -> None:
    """Cut what programs print into a run directory, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        for name in cut(run):
            log.debug("%s was cut: its program prints much", run / name)


def cut(run: Path) -> list[str]:
    """Cut outputs that became long to their ends; which ones. What is printed at this moment may be lost.

    Whoever has a file open to append goes on at its new end.
    """
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(run):
            if run_names.is_output(entry.name) and entry.stat(follow_symlinks=False).st_size > LIMIT:
                with contextlib.suppress(OSError):
                    _cut(run / entry.name)
                    found.append(entry.name)
    return found


def _cut(path: Path) -> None:
    with open(os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return
        file.seek(-KEPT, os.SEEK_END)
        end = file.read(KEPT)
        file.truncate(0)
        file.write(end)
