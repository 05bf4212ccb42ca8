"""All rows of a registry's state in PostgreSQL, for a move to another store (../moving.py), and from there."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network
from itertools import groupby, islice

import psycopg

from re6st.registryd.moving import Row, StateTable
from re6st.registryd.postgresql.connections import Connections, in_one_line
from re6st.registryd.postgresql.queries import TOKEN_KEY, Connection, PostgresQueries, from_text, to_text
from re6st.registryd.postgresql.store import LOCK, PostgresStore
from re6st.registryd.postgresql.watch import NOBODY_LEADS
from re6st.registryd.repository import RepositoryError

CHUNK = 500

_QUERIES = {
    StateTable.CONFIG: f"SELECT name, kind, value FROM config WHERE name <> '{TOKEN_KEY}' ORDER BY name COLLATE \"C\"",  # noqa: S608
    StateTable.FREE: "SELECT prefix FROM free_leaf ORDER BY prefix",
    StateTable.RESERVED: "SELECT prefix FROM reserved ORDER BY prefix",
    StateTable.CERTIFICATE: "SELECT prefix, email, pem, serial, number, not_after FROM certificate ORDER BY position",
    StateTable.SUPERSEDED: "SELECT serial, prefix, not_after FROM superseded ORDER BY serial",
    StateTable.REVOKED: "SELECT serial, listed_until, prefix, email, date, reason FROM revoked ORDER BY serial",
    StateTable.TOKEN: "SELECT token, email, prefix_length, created, expires, uses, tags FROM token ORDER BY token",
    StateTable.SEEN: "SELECT prefix, date, protocol, software, extensions FROM seen ORDER BY prefix",
    StateTable.CLOCK: "SELECT trusted, seen FROM clock",
    StateTable.EVENT: "SELECT number, time, kind, cn, text, count FROM event ORDER BY number",
    StateTable.TAGS: "SELECT prefix, names FROM tags ORDER BY prefix",
    StateTable.STAY: "SELECT prefix, online::integer, since FROM stay ORDER BY prefix",
    StateTable.NAME: "SELECT prefix, name FROM name ORDER BY prefix",
}
_STATEMENTS = {
    StateTable.CONFIG: "INSERT INTO config VALUES (%s, %s, %s)",
    StateTable.FREE: "INSERT INTO free_leaf (prefix) VALUES (%s)",
    StateTable.RESERVED: "INSERT INTO reserved VALUES (%s)",
    StateTable.CERTIFICATE: "INSERT INTO certificate (prefix, email, pem, serial, number, not_after)"
    " VALUES (%s, %s, %s, %s, %s, %s)",
    StateTable.SUPERSEDED: "INSERT INTO superseded VALUES (%s, %s, %s)",
    StateTable.REVOKED: "INSERT INTO revoked (serial, listed_until, prefix, email, date, reason)"
    " VALUES (%s, %s, %s, %s, %s, %s)",
    StateTable.TOKEN: "INSERT INTO token (token, email, prefix_length, created, expires, uses, tags, digest)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
    StateTable.SEEN: "INSERT INTO seen VALUES (%s, %s, %s, %s, %s)",
    StateTable.CLOCK: "INSERT INTO clock (id, trusted, seen) VALUES (0, %s, %s)",
    StateTable.EVENT: "INSERT INTO event VALUES (%s, %s, %s, %s, %s, %s)",
    StateTable.TAGS: "INSERT INTO tags VALUES (%s, %s)",
    StateTable.STAY: "INSERT INTO stay VALUES (%s, %s <> 0, %s)",
    StateTable.NAME: "INSERT INTO name VALUES (%s, %s)",
}
_FREE_NUMBERS = (
    "DELETE FROM free_number",
    "INSERT INTO free_number SELECT first, past FROM (SELECT coalesce(lag(number) OVER (ORDER BY number) + 1, 0) AS"
    " first, number AS past FROM (SELECT DISTINCT number FROM certificate WHERE number >= 0) AS used) AS gaps"
    " WHERE first < past",
    "INSERT INTO free_number SELECT coalesce(max(number) + 1, 0), NULL FROM certificate WHERE number >= 0",
)


class ServerEnd:
    """One end of a move: a database in PostgreSQL, in a transaction that keeps others from writing."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def rows(self) -> Iterator[Row]:
        for table, query in _QUERIES.items():
            with self._db.cursor(f"rows_of_{table.value}") as cursor:  # it fetches them little by little
                for values in cursor.execute(query.encode()):
                    yield table, (values[0], from_text(*values[1:])) if table is StateTable.CONFIG else values

    def has_unreadable(self) -> bool:
        return False

    def is_empty(self) -> bool:
        leaves = self._db.execute("SELECT prefix FROM free_leaf").fetchall()
        return leaves == [("",)] and not self._db.execute("SELECT 1 FROM token").fetchone()

    def fill(self, rows: Iterable[Row]) -> None:
        """Store these rows instead of what a new database has."""
        key = PostgresQueries(self._db).config(TOKEN_KEY)
        self._db.execute("DELETE FROM config WHERE name <> %s", (TOKEN_KEY,))
        for table in ("free_leaf", "event", "clock"):
            self._db.execute(f"DELETE FROM {table}".encode())  # noqa: S608 - our own words
        for table, some in groupby(rows, key=lambda row: row[0]):
            while chunk := [_columns(each, key) for each in islice(some, CHUNK)]:
                with self._db.cursor() as cursor:
                    cursor.executemany(_STATEMENTS[table].encode(), chunk)
        for statement in _FREE_NUMBERS:
            self._db.execute(statement.encode())


@contextmanager
def server_end(url: str, network: IPv6Network) -> Iterator[ServerEnd]:
    """The database in PostgreSQL, which no registry uses; an error undoes all changes. Raises RepositoryError."""
    PostgresStore(url, network).close()  # it brings the tables up to date
    connections = Connections(url)
    try:
        with connections.lent() as db, db.transaction():
            db.execute(LOCK)
            if db.execute(NOBODY_LEADS).fetchone() != (True,):
                raise RepositoryError(f"database {connections.name} is in use by a registry: stop all of them first")
            db.execute("SET LOCAL statement_timeout = 0")
            db.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield ServerEnd(db)
    except psycopg.Error as error:
        raise RepositoryError(f"database {connections.name}: {in_one_line(error)}") from None
    finally:
        connections.close()


def _columns(row: Row, key: bytes) -> tuple[object, ...]:
    table, values = row
    match table:
        case StateTable.CONFIG:
            name, value = values
            return (name, *to_text(value))
        case StateTable.TOKEN:
            return (*values, hmac.digest(key, values[0].encode("utf-8", "surrogatepass"), "sha256"))
    return values
