"""All rows of a registry's database in a file, for a move to another store (../moving.py), and from there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv6Network
from pathlib import Path

from re6st.registryd.moving import Row, StateTable
from re6st.registryd.repository import RepositoryError
from re6st.registryd.sqlite.certificate_table import RESERVED
from re6st.registryd.sqlite.store import Store

_QUERIES = {
    StateTable.CONFIG: "SELECT name, value FROM config WHERE value IS NOT NULL ORDER BY name",
    StateTable.FREE: "SELECT prefix FROM cert WHERE cert IS NULL ORDER BY prefix",
    StateTable.RESERVED: f"SELECT prefix FROM cert WHERE cert = '{RESERVED}' ORDER BY prefix",  # noqa: S608 - our own word
    StateTable.CERTIFICATE: "SELECT c.prefix, email, CAST(cert AS TEXT), serial, number, not_after FROM cert AS c"
    " JOIN re6st_issued USING (prefix) ORDER BY c.rowid",
    StateTable.SUPERSEDED: "SELECT serial, prefix, not_after FROM re6st_superseded ORDER BY serial",
    StateTable.REVOKED: "SELECT serial, crl.date, prefix, email, r.date, reason FROM crl LEFT JOIN re6st_revoked AS r"
    " USING (serial) ORDER BY serial",
    StateTable.TOKEN: "SELECT token, email, prefix_len, date, expires, ifnull(uses, 1), ifnull(tags, '') FROM token"
    " LEFT JOIN re6st_token USING (token) LEFT JOIN re6st_reusable USING (token) ORDER BY token",
    StateTable.SEEN: "SELECT prefix, date, protocol, software, ifnull(names, '') FROM re6st_seen JOIN re6st_issued"
    " USING (prefix) LEFT JOIN re6st_extensions USING (prefix, date) ORDER BY prefix",
    StateTable.CLOCK: "SELECT trusted, seen FROM re6st_clock",
    StateTable.EVENT: "SELECT number, time, kind, cn, text, count FROM re6st_event ORDER BY number",
    StateTable.TAGS: "SELECT prefix, names FROM re6st_tags JOIN re6st_issued USING (prefix) ORDER BY prefix",
    StateTable.STAY: "SELECT prefix, online, since FROM re6st_stay JOIN re6st_issued USING (prefix) ORDER BY prefix",
    StateTable.NAME: "SELECT prefix, name FROM re6st_name JOIN re6st_issued USING (prefix) ORDER BY prefix",
}


class FileEnd:
    """One end of a move: a database in a file, in a transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(self) -> Iterator[Row]:
        for table, query in _QUERIES.items():
            for values in self._db.execute(query):
                yield table, values

    def has_unreadable(self) -> bool:
        """Whether there are certificates that nobody can read."""
        row = self._db.execute(
            "SELECT 1 FROM cert WHERE cert IS NOT NULL AND cert != ? AND prefix NOT IN"
            " (SELECT prefix FROM re6st_issued)",
            (RESERVED,),
        )
        return row.fetchone() is not None

    def is_empty(self) -> bool:
        found = self._db.execute("SELECT prefix, cert FROM cert").fetchall()
        return found == [("", None)] and not self._db.execute("SELECT 1 FROM token").fetchone()

    def fill(self, rows: Iterable[Row]) -> None:
        """Store these rows instead of what a new database has."""
        for made in ("cert", "config", "re6st_event", "re6st_clock"):
            self._db.execute(f"DELETE FROM {made}")  # noqa: S608 - our own words
        for table, values in rows:
            self._store(table, values)

    def _store(self, table: StateTable, values: tuple[object, ...]) -> None:
        add = self._db.execute
        match table:
            case StateTable.CONFIG:
                add("INSERT INTO config VALUES (?, ?)", values)
            case StateTable.FREE:
                add("INSERT INTO cert VALUES (?, NULL, NULL)", values)
            case StateTable.RESERVED:
                add("INSERT INTO cert VALUES (?, NULL, ?)", (*values, RESERVED))
            case StateTable.CERTIFICATE:
                prefix, email, pem, *issued = values
                add("INSERT INTO cert VALUES (?, ?, ?)", (prefix, email, pem))
                add("INSERT INTO re6st_issued VALUES (?, ?, ?, ?)", (prefix, *issued))
            case StateTable.SUPERSEDED:
                add("INSERT INTO re6st_superseded VALUES (?, ?, ?)", values)
            case StateTable.REVOKED:
                serial, until, *why = values
                add("INSERT INTO crl VALUES (?, ?)", (serial, until))
                if why[0] is not None:
                    add("INSERT INTO re6st_revoked VALUES (?, ?, ?, ?, ?)", (serial, *why))
            case StateTable.TOKEN:
                token, email, length, date, expires, uses, tags = values
                add("INSERT INTO token VALUES (?, ?, ?, ?)", (token, email, length, date))
                if expires is not None:
                    add("INSERT INTO re6st_token VALUES (?, ?)", (token, expires))
                if uses != 1 or tags:
                    add("INSERT INTO re6st_reusable VALUES (?, ?, ?)", (token, uses, tags))
            case StateTable.SEEN:
                prefix, date, protocol, software, names = values
                add("INSERT INTO re6st_seen VALUES (?, ?, ?, ?)", (prefix, date, protocol, software))
                if names:
                    add("INSERT INTO re6st_extensions VALUES (?, ?, ?)", (prefix, date, names))
            case StateTable.CLOCK:
                add("INSERT INTO re6st_clock VALUES (0, ?, ?)", values)
            case StateTable.EVENT:
                add("INSERT INTO re6st_event VALUES (?, ?, ?, ?, ?, ?)", values)
            case StateTable.TAGS:
                add("INSERT INTO re6st_tags VALUES (?, ?)", values)
            case StateTable.STAY:
                add("INSERT INTO re6st_stay VALUES (?, ?, ?)", values)
            case StateTable.NAME:
                add("INSERT INTO re6st_name VALUES (?, ?)", values)


@contextmanager
def file_end(path: Path, network: IPv6Network) -> Iterator[FileEnd]:
    """The database in a file, which no registry uses meanwhile; an error undoes all changes. Raises RepositoryError."""
    store = Store(path, network)  # it locks the file, and brings its tables up to date
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            yield FileEnd(db)
            db.execute("COMMIT")  # otherwise closing undoes it
    except sqlite3.Error as error:
        raise RepositoryError(f"database {path}: {error}") from None
    finally:
        store.close()
