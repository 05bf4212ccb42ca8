"""One connection to babeld's local socket: its lines, and commands between them (wire.md 9.5).

babeld 1.12 serves four connections. A further client waits, without an answer, until one of them is closed. So a
process uses one connection for everything, and other programs ask the daemon instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from re6st.core.routing.babel_lines import LINE_LIMIT, Reply, parse_reply

SILENCE = 10.0
"""Seconds that babeld may be silent while an answer is due; in a long table, each line begins the time again."""
CHUNK = 1 << 16
LINES_IN_A_TURN = 16
"""babeld closes the connection of a reader that leaves some 270 lines unread for a moment: so lines are taken in in
between.
"""


class Talk:
    """`read` is for one task, the reader; any other task may call `command` meanwhile."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lines: deque[str] = deque()
        self._rest = ""
        self._count = 0
        self.received = 0
        """How often lines came."""
        self._turn = asyncio.Lock()
        self._asked: deque[asyncio.Future[Reply]] = deque()

    def close(self) -> None:
        self._writer.close()
        for future in self._asked:
            if not future.done():
                future.set_exception(ConnectionResetError("its socket was closed"))
                future.exception()  # nobody may wait any more

    async def greeting(self) -> None:
        """Read the greeting, before anything else. Raises OSError (also TimeoutError), ValueError."""
        await self._until_reply(None)

    async def ask(self, command: str, take: Callable[[str], object]) -> None:
        """Send a command; pass each line of the answer to `take`. Raises OSError (also TimeoutError), ValueError."""
        self._writer.write(f"{command}\n".encode("ascii"))
        await self._until_reply(take)

    async def read(self, seconds: float | None) -> list[str] | None:
        """The lines that came, as soon as there are any; none after the given time; None after the connection was
        closed.

        Raises ValueError for a line that is too long.
        """
        if not self._lines:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    if not await self._receive():
                        return None
        found, self._lines = self._lines, deque()
        return [line for line in found if not self._is_reply(line)]

    async def command(self, command: str) -> None:
        """Carry out a command while another task reads. Raises OSError, also if babeld refuses it.

        Only one command at a time: if babeld refuses one, it also refuses those that came with it.
        """
        async with self._turn:
            future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._asked.append(future)
            self._writer.write(f"{command}\n".encode("ascii"))
            reply = await future
        if reply is not Reply.OK:
            raise OSError(f"its socket says {reply.value} to {command.split(' ')[0]}")

    def _is_reply(self, line: str) -> bool:
        reply = parse_reply(line)
        if reply is None:
            return False
        if self._asked:
            future = self._asked.popleft()  # a command that was given up still has its turn of replies
            if not future.done():
                future.set_result(reply)
        return True

    async def _until_reply(self, take: Callable[[str], object] | None) -> None:
        while (reply := parse_reply(line := await self._line())) is None:
            if take is not None:
                take(line)
        if reply is not Reply.OK:
            raise OSError(f"its socket says {line!r}")

    async def _line(self) -> str:
        while not self._lines:
            if not await self._answer():
                raise ConnectionResetError("its socket was closed")
        self._count += 1
        if self._count % LINES_IN_A_TURN == 0:
            await asyncio.sleep(0)
        return self._lines.popleft()

    async def _answer(self) -> bool:
        # Twice: it may be that only we did not run.
        for _ in range(2):
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE / 2):
                    return await self._receive()
        raise TimeoutError(f"its socket was silent for {SILENCE:g} s")

    async def _receive(self) -> bool:
        """Take in what is there, or comes next; False after the connection was closed."""
        data = await self._reader.read(CHUNK)
        *lines, self._rest = (self._rest + data.decode("ascii", "replace")).split("\n")
        if len(self._rest) > LINE_LIMIT:
            raise ValueError("its socket sends a line that is too long")
        self._lines.extend(lines)
        self.received += bool(data)
        return bool(data)
