"""A database that is damaged so that SQLite's message about it cannot be read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

NOT_UTF_8 = b"\x80"


def spoil_a_name(path: Path) -> None:
    """Put a byte that is not UTF-8 into the name of an index, which SQLite quotes where it complains about it."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")  # all of it is in the one file then
        (name,) = db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'sqlite_autoindex%'").fetchone()
    content, damaged = path.read_bytes(), NOT_UTF_8 + name.encode()[1:]
    assert content.count(name.encode()) == 1
    path.write_bytes(content.replace(name.encode(), damaged))
