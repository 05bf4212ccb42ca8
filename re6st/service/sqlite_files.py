"""An SQLite database as a file: the registry's database, or a node's cache."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raises sqlite3.DatabaseError if SQLite's message quotes a damaged name that is not in UTF-8.

    Python decodes the message before it raises the error, and raises UnicodeDecodeError instead.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(f"it is damaged: a name in it is not in UTF-8 ({error.reason})") from None


@contextmanager
def looking_at(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading only, whether or not somebody else has it open; no file is made beside it.

    Without a write-ahead log, it cannot change while we read. Raises sqlite3.Error.
    """
    live = all(path.with_name(f"{path.name}{end}").exists() for end in ("-wal", "-shm"))
    place = f"file:{quote(str(path.absolute()))}?{'mode=ro' if live else 'immutable=1'}"
    with closing(sqlite3.connect(place, uri=True)) as db, readable_errors():
        yield db
