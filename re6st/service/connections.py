"""Who is connected to a small server of a daemon: bounded in number, for each sender and in all, and ended with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from re6st.core.limits.crowd import Crowd
from re6st.core.registry.origins import network_of

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Clients:
    """At most `limit` at once, and `share` of one address. `talk` has the conversation with one; one too many hears
    `refusal`, or is cut off.

    Whose conversation ends with a TimeoutError is cut off too: what it did not read is not kept for it.
    """

    def __init__(self, limit: int, talk: Talk, refusal: bytes = b"", *, share: int | None = None) -> None:
        self._crowd: Crowd[asyncio.Task[None]] = Crowd(limit, share or limit, 0)
        self._talk = talk
        self._refusal = refusal
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """For asyncio.start_server and its like."""
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
        except asyncio.CancelledError:  # the daemon ends; passed on, Python 3.11 would log it as an error
            pass
        finally:
            self._tasks.discard(task)
            self._crowd.leave(task)
            writer.close()

    def _enter(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> bool:
        peer = writer.get_extra_info("peername")
        entered = self._crowd.enter(task, network_of(peer[0]) if isinstance(peer, tuple) else None)
        self._crowd.asked(task)  # nobody is sent away for another one
        return entered.admitted

    async def end(self) -> None:
        """End every conversation."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
