"""The registry's database: one file, one process, one writing thread, group commit (wire.md 4.6).

Writes are jobs: functions of the `Ledger`. The writing thread takes all jobs that wait, runs each under a savepoint in
one transaction, commits once and flushes the disk, and only then returns the results. So an answer that was sent is
never lost, and a job that fails undoes only itself. Reads need no job: they have their own connection in the event
loop, since they take microseconds; a query sees what was committed when it began.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path
from typing import TypeVar

from re6st.registryd.jobs import JOBS_LIMIT, Job, JobResult, Jobs
from re6st.registryd.repository import ContentError, RepositoryError, RepositoryInUse
from re6st.registryd.sqlite import database_files
from re6st.registryd.sqlite.ledger import Ledger
from re6st.registryd.sqlite.lists import ListRows, reading
from re6st.registryd.sqlite.sql_queries import SqlQueries
from re6st.service.sqlite_files import readable_errors

logger = logging.getLogger("store")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long callers, and the store, wait."""

    jobs: int = JOBS_LIMIT
    """Jobs that may wait."""
    busy: float = 2.0
    """Seconds to wait for another program that has locked the database."""


PATIENCE = Patience()


class Store:
    """The Repository in one file. No other registry can open it until `close`."""

    shared = None

    def __init__(self, path: Path, network: IPv6Network, patience: Patience = PATIENCE) -> None:
        """Raises RepositoryError."""
        self.path = path
        self._patience = patience
        if trouble := database_files.fault(path):
            raise RepositoryError(f"database {path} cannot be trusted: {trouble}.")
        self._lock = _lock(path)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._lock)
            try:
                with readable_errors():
                    writer = undo.enter_context(contextlib.closing(self._connect(patience.busy)))
                    writer.execute("PRAGMA journal_mode = WAL")
                    writer.execute("PRAGMA synchronous = FULL")
                    self._ledger = Ledger(writer, network)
                    reader = undo.enter_context(contextlib.closing(self._connect(0)))
                    reader.execute("PRAGMA query_only = ON")
                    self.rows = SqlQueries(reader)
            except (sqlite3.Error, ContentError) as error:
                raise self._error(error) from None
            undo.pop_all()
        self._jobs = Jobs(str(path), self._commit, patience.jobs)

    async def read(self, query: Callable[[SqlQueries], T]) -> T:
        """The result of a query. Raises what the query raises; RepositoryError if the database cannot be read."""
        try:
            return self.rows.at_one_moment(query)
        except sqlite3.Error as error:
            raise self._error(error) from None

    async def browse(self, query: Callable[[ListRows], T]) -> T:
        """The result of a longer query. Raises what the query raises; RepositoryError if the database is unreadable."""

        def work() -> T:
            with reading(self.path) as db:
                return ListRows(db).at_one_moment(query)

        try:
            return await asyncio.to_thread(work)
        except sqlite3.Error as error:
            raise self._error(error) from None

    async def size(self) -> int:
        """Bytes on the disk, including what was written lately."""
        total = 0
        for each in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            with contextlib.suppress(OSError):
                total += os.stat(each).st_size
        return total

    async def change(self, job: Callable[[Ledger], T]) -> T:
        """Run a job in the writing thread, and return its result once that is on the disk.

        Raises what the job raises; RepositoryError if the database is full or locked, or if too many jobs wait.
        """
        return await self._jobs.run(job)

    def close(self) -> None:
        """Finish the jobs that wait, and close the file. Without a running event loop, their results are lost."""
        self._jobs.close()
        self.rows.close()
        self._ledger.close()
        os.close(self._lock)

    def _connect(self, timeout: float) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=timeout, isolation_level=None, check_same_thread=False)

    def _commit(self, batch: list[Job]) -> list[JobResult]:
        try:
            self._ledger.begin()
            results = [self._attempt(job) for job in batch]
            self._ledger.commit()
            return results
        except Exception as error:  # whatever happens, the thread goes on
            logger.error("database %s: %d changes refused: %s%s", self.path, len(batch), error, advice(error))
            with contextlib.suppress(sqlite3.Error):
                self._ledger.rollback()
            return [job.failed(self._error(error)) for job in batch]

    def _attempt(self, job: Job) -> JobResult:
        try:
            return job.done(self._ledger.attempt(job.call))
        except sqlite3.Error as error:
            if not self._ledger.in_transaction:
                raise
            return job.failed(self._error(error))
        except Exception as error:
            if not self._ledger.in_transaction:
                raise sqlite3.OperationalError("the transaction was lost") from error
            return job.failed(error)

    def _error(self, error: Exception) -> RepositoryError:
        return RepositoryError(f"database {self.path}: {error}{advice(error)}")


def advice(error: Exception) -> str:
    """What to do about an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the other bits are details
    return {
        sqlite3.SQLITE_BUSY: ". Another program holds it: end that, or wait for it.",
        sqlite3.SQLITE_FULL: ". Make room on the disk.",
        sqlite3.SQLITE_READONLY: ". Make it, its directory and the disk writable.",
        sqlite3.SQLITE_CANTOPEN: ". Make it, its directory and the disk writable.",
        sqlite3.SQLITE_IOERR: ". Look at the disk, and at the system's log.",
        sqlite3.SQLITE_CORRUPT: ". Restore a copy of it.",
    }.get(code, "")


def _lock(path: Path) -> int:
    """Open the file so that only its owner can read it, and lock it for this process. Raises RepositoryError.

    flock is independent of the locks that SQLite uses, and lasts as long as the descriptor.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RepositoryError(f"database {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RepositoryInUse(
            f"database {path}: in use by another registry. Stop that one, or choose another file with --db."
        ) from None
    return descriptor
