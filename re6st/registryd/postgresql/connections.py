"""Connections to the registry's PostgreSQL: made when they are needed, lent to one thread at a time, and refused for a
moment after one could not be made, so that nobody waits for each of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import conninfo

from re6st.registryd.postgresql.queries import Connection
from re6st.registryd.repository import RepositoryError

PROGRAM = "re6st-registry"
CONNECT_TIMEOUT = 3
"""Seconds for each of the machines that the URL names."""
PAUSE = 0.5
"""Seconds after a failure in which no connection is tried."""
SETTINGS = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    # A process that was stopped in a transaction holds the lock of those who write: its transaction ends then.
    "idle_in_transaction_session_timeout": "10s",
    # A machine that lost its power says no goodbye: the server asks whether it is there.
    "tcp_keepalives_idle": "5s",
    "tcp_keepalives_interval": "2s",
    "tcp_keepalives_count": "3",
}
"""Of each connection."""
_DEFAULTS = {
    "connect_timeout": str(CONNECT_TIMEOUT),
    "application_name": PROGRAM,
    # With several machines in the URL: the one that can be written to.
    "target_session_attrs": "read-write",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""What the URL may say otherwise."""


class Connections:
    """Connections to one database. Its methods may be called by any thread."""

    def __init__(self, url: str) -> None:
        """Raises RepositoryError if the URL cannot be read."""
        try:
            given = conninfo.conninfo_to_dict(url)
        except psycopg.Error:  # whose text may have a part of the password
            raise RepositoryError(
                "database: its URL cannot be read. Percent-encode the special characters of its password"
            ) from None
        self._parameters = _DEFAULTS | {name: str(value) for name, value in given.items()}
        self.name = f"postgresql://{given.get('host', '')}/{given.get('dbname', '')}"
        """The database, for the log."""
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False
        self._failed = (float("-inf"), "")

    def open(self) -> Connection:
        """A new connection, which the caller closes. Raises psycopg.Error."""
        when, why = self._failed
        if time.monotonic() - when < PAUSE:
            raise psycopg.OperationalError(why)
        try:
            db = psycopg.connect(autocommit=True, **self._parameters)  # type: ignore[arg-type]
            for each in SETTINGS.items():
                db.execute("SELECT set_config(%s, %s, false)", each)
            # An answer is sent when its change is on the disk, whatever the database's default is.
            db.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') IN ('off', 'local')"
            )
        except Exception as error:  # others too: psycopg 3.1 waits with select(), which refuses high descriptors
            self._failed = (time.monotonic(), in_one_line(error))
            if isinstance(error, psycopg.Error):
                raise
            raise psycopg.OperationalError(in_one_line(error)) from None
        return db

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection for a while; one that has failed is not lent again. Raises psycopg.Error."""
        with self._lock:
            db = self._idle.pop() if self._idle else None
        if db is None:
            db = self.open()
        try:
            yield db
        finally:
            with self._lock:
                good = not (self._closed or db.closed or db.broken)
                good = good and db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
                if good:
                    self._idle.append(db)
            if not good:
                with suppress(psycopg.Error):
                    db.close()

    def forget(self) -> None:
        """Close the connections that nobody has: the database was away, and they may have ended."""
        with self._lock:
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def close(self) -> None:
        self._closed = True
        self.forget()


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def problem(url: str) -> str | None:
    """Why a registry cannot use this database, as a text; None if it can."""
    try:
        connections = Connections(url)
        connections.open().close()
    except RepositoryError as error:
        return str(error)
    except psycopg.Error as error:
        return f"database {connections.name}: {in_one_line(error)}"
    return None
