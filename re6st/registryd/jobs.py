"""Changes of a repository that wait, and the thread that carries out together those that have come meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from re6st.registryd.repository import RepositoryError

BATCH_LIMIT = 64
"""Number of jobs in one transaction."""
JOBS_LIMIT = 1024
"""Jobs that may wait; one more is refused, as its client would not wait that long."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    call: Callable[[Any], Any]
    future: asyncio.Future[Any]

    def done(self, value: Any) -> JobResult:
        return JobResult(self.future, value)

    def failed(self, error: BaseException) -> JobResult:
        return JobResult(self.future, error=error)


@dataclass(frozen=True, slots=True)
class JobResult:
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class Jobs:
    """Runs `commit` in its thread, with the jobs that wait. It never raises, and returns once they are on the disk."""

    def __init__(self, name: str, commit: Callable[[list[Job]], list[JobResult]], limit: int = JOBS_LIMIT) -> None:
        self._name = name
        self._limit = limit
        self._commit = commit
        self._queue: queue.Queue[Job | None] = queue.Queue(limit)
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[Any], T]) -> T:
        """The result of a job once it is on the disk. Raises what the job raises; RepositoryError."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(Job(call, future))
        except queue.Full:
            raise RepositoryError(f"database {self._name}: more than {self._limit} changes wait") from None
        return await future

    def close(self) -> None:
        """Finish the jobs that wait. Without a running event loop, their results are lost."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            batch = [job]
            last = False
            while len(batch) < BATCH_LIMIT and not last:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                else:
                    batch.append(following)
            results = self._commit(batch)
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                batch[0].future.get_loop().call_soon_threadsafe(_resolve, results)
            if last:
                return


def _resolve(results: list[JobResult]) -> None:
    for result in results:
        if result.future.done():  # nobody waits any more
            continue
        if result.error is None:
            result.future.set_result(result.value)
        else:
            result.future.set_exception(result.error)
