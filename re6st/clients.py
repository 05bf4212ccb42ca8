"""Who is connected to a small server of a daemon: bounded in number, and ended with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Clients:
    """At most `limit` at once. `talk` has the conversation with one; one too many hears `refusal`, or is cut off.

    Whose conversation ends with a TimeoutError is cut off too: what it did not read is not kept for it.
    """

    def __init__(self, limit: int, talk: Talk, refusal: bytes = b"") -> None:
        self._limit = limit
        self._talk = talk
        self._refusal = refusal
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """For asyncio.start_server and its like."""
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= self._limit:
            if self._refusal:
                writer.write(self._refusal)
                writer.close()
            else:
                writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._talk(reader, writer)
        except TimeoutError:
            writer.transport.abort()
        except OSError:
            pass
        except asyncio.CancelledError:  # the daemon ends; passed on, Python 3.11 would log it as an error
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        """End every conversation."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
