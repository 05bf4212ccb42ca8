"""The connections of a daemon's small server: their number is limited, for each sender and in all, and they end with
the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from re6st.core.limits.crowd import Crowd
from re6st.core.registry.origins import network_of

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Clients:
    """At most `limit` at once, and `share` from one address. `talk` serves a connection. One more gets `refusal`, or is
    closed.

    If `talk` raises TimeoutError, the connection is closed at once: what the client did not read is not kept for it.
    """

    def __init__(self, limit: int, talk: Talk, refusal: bytes = b"", *, share: int | None = None) -> None:
        self._crowd: Crowd[asyncio.Task[None]] = Crowd(limit, share or limit, 0)
        self._talk = talk
        self._refusal = refusal
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """For asyncio.start_server and similar functions."""
        task = asyncio.current_task()
        if task is None or not self._enter(task, writer):
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
        except asyncio.CancelledError:  # the daemon ends; Python 3.11 would log this as an error if it were passed on
            pass
        finally:
            self._tasks.discard(task)
            self._crowd.leave(task)
            writer.close()

    def _enter(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> bool:
        peer = writer.get_extra_info("peername")
        entered = self._crowd.enter(task, network_of(peer[0]) if isinstance(peer, tuple) else None)
        self._crowd.asked(task)  # no connection is closed to make room for another one
        return entered.admitted

    async def end(self) -> None:
        """Close every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
