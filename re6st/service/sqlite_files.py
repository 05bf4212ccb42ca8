"""A database of SQLite as a file that is only looked at: the registry's, and a node's cache."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote


def open_to_read(path: Path) -> sqlite3.Connection:
    """A database for reading only, whether somebody has it open or not; no file is made beside it.

    Without a write-ahead log it cannot change while we look. Raises sqlite3.Error.
    """
    live = all(path.with_name(f"{path.name}{end}").exists() for end in ("-wal", "-shm"))
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?{'mode=ro' if live else 'immutable=1'}", uri=True)
