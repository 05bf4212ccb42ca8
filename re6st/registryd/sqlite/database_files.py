"""Checks whether somebody else could have written to the registry's database: then it cannot be trusted.

SQLite replays a `-wal` file beside the database, whoever put it there, so the directory matters as much as the file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

ENDS = ("", "-wal", "-shm", "-journal")
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def own_group() -> tuple[int, ...]:
    """Our group, if it seems, by its number, that nobody else is in it."""
    return (os.getegid(),) if os.getegid() == os.geteuid() else ()


def fault(path: Path) -> str | None:
    """What is wrong with the database, the files beside it and their directory, and what to do; None if nothing is.

    They may belong to root, to the user that runs this, and, if root runs it, to the owner of the directory.
    """
    directory = path.absolute().parent
    try:
        place = directory.stat()
    except OSError:
        return None  # it is made, or cannot be made, which is reported elsewhere
    owners = {0, os.geteuid()} | ({place.st_uid} if os.geteuid() == 0 else set())
    if place.st_uid not in owners:
        return f"its directory {directory} belongs to the user {place.st_uid}, who may replace it. Move it to its own"
    # A group that has the number of a user belongs to that user alone.
    is_open = place.st_mode & stat.S_IWGRP and place.st_gid not in (place.st_uid, *own_group())
    if is_open and place.st_uid == 0 and os.geteuid():
        return (
            f"the group {place.st_gid} may replace it in its directory {directory}. Move it to a directory of its own"
        )
    if place.st_mode & stat.S_IWOTH or is_open:
        return f"others may write in its directory {directory}, and so replace it. Run chmod go-w {directory}"
    for end in ENDS:
        each = path.with_name(path.name + end)
        try:
            found = each.stat() if not end else each.lstat()
        except OSError:
            continue
        if end and not stat.S_ISREG(found.st_mode):
            return f"{each} is not a file. Find out who made it, and remove it"
        if found.st_uid not in owners:
            return (
                f"{each} belongs to the user {found.st_uid}. Find out who made it, and restore a copy of the database"
            )
        if found.st_mode & _OTHERS:
            return f"others may write to {each}. Run chmod 600 {each}, then re6st-registry check"
    return None
