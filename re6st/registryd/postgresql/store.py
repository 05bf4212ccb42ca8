"""The registry's state in PostgreSQL, which several registries may use at once.

Changes are jobs, as in SQLite's store: a thread takes those that wait, runs each under a savepoint in one transaction,
commits once, and only then returns the results. So an answer that was sent is never lost. The transaction begins with
an advisory lock, which one process has at a time, so that jobs of all processes come one after the other, and each
sees what those before it did. Nothing of the state is kept in memory. A process that is killed, or stopped, loses the
lock with its connection, and its transaction with it.

Queries run in a few threads, each in a transaction that sees one moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Network
from typing import TypeVar

import psycopg

from re6st.core.prefix import Prefix
from re6st.registryd.jobs import Job, JobResult, Jobs
from re6st.registryd.postgresql.changes import PostgresChanges
from re6st.registryd.postgresql.connections import Connections, in_one_line
from re6st.registryd.postgresql.lists import PostgresLists
from re6st.registryd.postgresql.migrations import migrate
from re6st.registryd.postgresql.queries import Connection, PostgresQueries
from re6st.registryd.postgresql.watch import RegistryWatch, tell
from re6st.registryd.repository import ContentError, Outdated, RepositoryError

logger = logging.getLogger("store")

T = TypeVar("T")
Q = TypeVar("Q", bound=PostgresQueries)
A = TypeVar("A")
B = TypeVar("B")

QUERIES_LIMIT = 1024
"""Queries that may wait; one more is refused, as its client would not wait that long."""
THREADS = 6
LOCK = "SELECT pg_advisory_xact_lock('certificate'::regclass::oid::integer, 0)"
"""The lock of those who write, of the tables that the connection sees."""
_FIRST_LOCK = "SELECT pg_advisory_xact_lock(723366)"
"""That of those who make the tables: any number that other programs hardly use."""


class PostgresStore:
    """The Repository in a PostgreSQL database."""

    def __init__(self, url: str, network: IPv6Network) -> None:
        """Make the tables that are missing. Raises RepositoryError."""
        self._connections = Connections(url)
        self._network_length = network.prefixlen
        self._writer: Connection | None = None
        self._watch: RegistryWatch | None = None
        self._told: Callable[[frozenset[Outdated]], None] | None = None
        self._name = secrets.token_hex(8)
        """By which we know our own news."""
        try:
            with self._connections.lent() as db, db.transaction():
                db.execute(_FIRST_LOCK)
                migrate(db)
                db.execute(LOCK)
                PostgresChanges(db, self._network_length).prepare()
                if db.execute("SELECT current_setting('fsync')").fetchone() == ("off",):
                    logger.warning("database %s: fsync is off, so a power failure may lose certificates", self.name)
        except (psycopg.Error, ContentError) as error:
            self._connections.close()
            raise self._error(error) from None
        self._jobs = Jobs(self.name, self._commit)
        self._waiting = 0
        self._threads = ThreadPoolExecutor(THREADS, "store-query")

    @property
    def name(self) -> str:
        return self._connections.name

    async def read(self, query: Callable[[PostgresQueries], T]) -> T:
        """The result of a query. Raises what the query raises; RepositoryError if the database cannot be read."""
        return await self._ask(PostgresQueries, query)

    async def browse(self, query: Callable[[PostgresLists], T]) -> T:
        """The result of a longer query. Raises what the query raises; RepositoryError if the database is unreadable."""
        return await self._ask(PostgresLists, query)

    async def size(self) -> int:
        """Bytes on the disk, of the whole database."""

        def ask(queries: PostgresLists) -> int:
            return int(queries.one("SELECT pg_database_size(current_database())")[0])

        return await self.browse(ask)

    async def change(self, job: Callable[[PostgresChanges], T]) -> T:
        """Run a job in the writing thread, and return its result once that is on the disk.

        Raises what the job raises; RepositoryError if the database cannot be changed now, or if too many jobs wait. If
        the connection ends while the change is committed, nobody knows whether it was made; it is an error then.
        """
        return await self._jobs.run(job)

    def close(self) -> None:
        """Finish the jobs that wait, and close the connections. Without a running event loop, their results are
        lost.
        """
        if self._watch is not None:
            self._watch.close()
        self._jobs.close()
        self._threads.shutdown()
        self._drop_writer()
        self._connections.close()

    # --- beside others (SharedState) ---

    @property
    def shared(self) -> PostgresStore:
        return self

    @property
    def leads(self) -> bool:
        return self._watch is not None and self._watch.leads

    def watch(self, told: Callable[[frozenset[Outdated]], None]) -> None:
        """See `SharedState.watch`."""
        loop = asyncio.get_running_loop()

        def tell_loop(news: frozenset[Outdated]) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(told, news)

        self._told = tell_loop
        self._watch = RegistryWatch(self._connections, self._name, tell_loop)

    async def change_sessions(self, prefix: Prefix, change: Callable[[bytes | None], tuple[bytes | None, T]]) -> T:
        """See `SharedState.change_sessions`."""
        return await self._in_thread(self._change_sessions, prefix, change)

    def _change_sessions(self, prefix: Prefix, change: Callable[[bytes | None], tuple[bytes | None, T]]) -> T:
        with self._connections.lent() as db, db.transaction():
            row = db.execute("SELECT state FROM session WHERE prefix = %s FOR UPDATE", (prefix.bits,)).fetchone()
            before = None if row is None else row[0]
            after, result = change(before)
            if after is None and before is not None:
                db.execute("DELETE FROM session WHERE prefix = %s", (prefix.bits,))
            elif after != before:
                db.execute(
                    "INSERT INTO session VALUES (%s, %s) ON CONFLICT (prefix) DO UPDATE SET state = excluded.state",
                    (prefix.bits, after),
                )
        return result

    # --- reading ---

    async def _ask(self, kind: Callable[[Connection], Q], query: Callable[[Q], T]) -> T:
        return await self._in_thread(self._at_one_moment, kind, query)

    async def _in_thread(self, work: Callable[[A, B], T], first: A, second: B) -> T:
        if self._waiting >= QUERIES_LIMIT:
            raise RepositoryError(f"database {self.name}: more than {QUERIES_LIMIT} queries wait")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._again, work, first, second)
        except psycopg.Error as error:
            raise self._error(error) from None
        finally:
            self._waiting -= 1

    def _again(self, work: Callable[[A, B], T], first: A, second: B) -> T:
        """Do it with another connection, if that of before has ended, as when the database was restarted."""
        try:
            return work(first, second)
        except psycopg.OperationalError:
            self._connections.forget()
            return work(first, second)

    def _at_one_moment(self, kind: Callable[[Connection], Q], query: Callable[[Q], T]) -> T:
        with self._connections.lent() as db:
            db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                return query(kind(db))
            finally:
                if not (db.closed or db.broken):
                    db.execute("ROLLBACK")

    # --- changing ---

    def _commit(self, batch: list[Job]) -> list[JobResult]:
        try:
            db = self._begin()
            changes = PostgresChanges(db, self._network_length)
            results = [self._attempt(db, changes, job) for job in batch]
            tell(db, self._name, changes.news)
            try:
                db.execute("COMMIT")
            except psycopg.Error:
                if self._told is not None and changes.news:
                    self._told(frozenset(changes.news))  # it may have been made, and nobody else tells us
                raise
            return results
        except Exception as error:  # whatever happens, the thread goes on
            logger.error("database %s: %d changes refused: %s", self.name, len(batch), in_one_line(error))
            self._drop_writer()
            return [job.failed(self._error(error)) for job in batch]

    def _begin(self) -> Connection:
        """Begin a transaction, and wait for the lock; with a new connection, if that of before has ended."""
        if self._writer is not None:
            try:
                return _locked(self._writer)
            except psycopg.OperationalError as error:
                if not self._writer.broken:
                    raise
                logger.warning("database %s: %s: connecting again", self.name, in_one_line(error))
                self._drop_writer()
        self._writer = self._connections.open()
        return _locked(self._writer)

    def _attempt(self, db: Connection, changes: PostgresChanges, job: Job) -> JobResult:
        """The result of one job. Raises psycopg.Error if the whole transaction is lost."""
        db.execute("SAVEPOINT job")
        try:
            result = job.done(job.call(changes))
        except Exception as error:
            if db.broken:
                raise
            db.execute("ROLLBACK TO job")
            known = self._error(error) if isinstance(error, psycopg.Error) else error
            result = job.failed(known)
        db.execute("RELEASE job")
        return result

    def _drop_writer(self) -> None:
        """Closing the connection ends its transaction."""
        if self._writer is not None:
            with contextlib.suppress(psycopg.Error):
                self._writer.close()
            self._writer = None

    def _error(self, error: Exception) -> RepositoryError:
        return RepositoryError(f"database {self.name}: {in_one_line(error)}")


def _locked(db: Connection) -> Connection:
    db.execute("BEGIN")
    db.execute(LOCK)
    return db
