"""One connection to babeld's local socket: its lines, and commands between them (wire.md 9.5).

babeld 1.12 serves four connections. A further client waits, without an answer, until one of them is closed. So a
process uses one connection for everything, and other programs ask the daemon instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from re6st.core.routing.babel_lines import LINE_LIMIT, Reply, parse_reply

SILENCE = 10.0
"""Seconds that babeld may be silent while an answer is due; in a long table, each line begins the time again."""
LINES_IN_A_TURN = 128
"""babeld closes the connection of a reader that leaves some 270 lines unread for a moment: so lines are taken in in
between.
"""
BUFFER = 1 << 15
"""Bytes that are read at a time. asyncio would make a quarter of a megabyte for each group of lines, which the kernel
has to give and to take back each time: that took longer than all else that was done for the lines.
"""
WAITING_LIMIT = 100_000
"""Lines that may wait for us, of an answer; babeld is not read while there are more."""

Hear = Callable[[list[str]], object]
"""Is passed lines as they come."""


class Talk(asyncio.BufferedProtocol):
    """`ask` and `listen` are for one task, the reader; any other task may call `command` while it listens."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._buffer = memoryview(bytearray(BUFFER))
        self._lines: deque[str] = deque()
        self._rest = ""
        self._count = 0
        self._turn = asyncio.Lock()
        self._asked: deque[tuple[asyncio.Future[Reply], Hear | None]] = deque()
        """The commands whose replies are due, and who hears the lines before each reply."""
        self._hear: Hear | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._fault: ValueError | None = None

    @classmethod
    async def open(cls, path: Path) -> Talk:
        """Connect to this socket. Raises OSError."""
        _, talk = await asyncio.get_running_loop().create_unix_connection(cls, str(path))
        return talk

    def close(self) -> None:
        self._hear = None
        self._transport.close()
        for future, _ in self._asked:
            if not future.done():
                future.set_exception(ConnectionResetError("its socket was closed"))
                future.exception()  # nobody may wait any more

    # -- asyncio.BufferedProtocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed, by babeld or by us."""
        self._closed = True
        self._wake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Lines came, the last of which may be unfinished."""
        *lines, self._rest = (self._rest + str(self._buffer[:nbytes], "ascii", "replace")).split("\n")
        if len(self._rest) > LINE_LIMIT:
            self._fault = ValueError("its socket sends a line that is too long")
            self._transport.abort()
        if self._hear is not None:
            self._pass_on(lines, self._hear)
            return
        self._lines.extend(lines)
        if len(self._lines) > WAITING_LIMIT:
            self._transport.pause_reading()
        self._wake()

    def _pass_on(self, lines: list[str], listener: Hear) -> None:
        begin = 0
        # Most lines are none, some thousand a second, which is known by their first letter.
        for end in [n for n, line in enumerate(lines) if line[:1] in "onb" and parse_reply(line) is not None]:
            self._hearer(listener)(lines[begin:end])
            self._is_reply(lines[end])
            begin = end + 1
        self._hearer(listener)(lines[begin:] if begin else lines)

    def _hearer(self, listener: Hear) -> Hear:
        return (self._asked and self._asked[0][1]) or listener

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- for the reader --

    async def greeting(self) -> None:
        """Read the greeting, before anything else. Raises OSError (also TimeoutError), ValueError."""
        await self._until_reply(None)

    async def ask(self, command: str, take: Callable[[str], object]) -> None:
        """Send a command; pass each line of the answer to `take`. Raises OSError (also TimeoutError), ValueError."""
        self._transport.write(f"{command}\n".encode("ascii"))
        await self._until_reply(take)

    async def listen(self, hear: Hear) -> None:
        """Until the connection is closed, pass the lines to `hear` as they come. Raises ValueError for a line that is
        too long.
        """
        lines, self._lines = self._lines, deque()
        hear([line for line in lines if not self._is_reply(line)])
        self._hear = hear
        try:
            while await self._receive():
                pass
        finally:
            self._hear = None

    # -- for any task --

    async def command(self, command: str, hear: Hear | None = None, seconds: float | None = None) -> None:
        """Carry out a command while another task listens. Raises OSError, also if babeld refuses it, or (TimeoutError)
        does not answer for so many seconds once it was sent; it may have to wait for the one before.

        `hear` gets the lines that come before the reply, instead of the listener.

        Only one command at a time: if babeld refuses one, it also refuses those that came with it.
        """
        async with self._turn:
            if self._closed or self._transport.is_closing():
                raise ConnectionResetError("its socket was closed")
            future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._asked.append((future, hear))
            self._transport.write(f"{command}\n".encode("ascii"))
            async with asyncio.timeout(seconds):
                reply = await future
        if reply is not Reply.OK:
            raise OSError(f"its socket says {reply.value} to {command.split(' ')[0]}")

    def _is_reply(self, line: str) -> bool:
        reply = parse_reply(line)
        if reply is None:
            return False
        if self._asked:
            future, _ = self._asked.popleft()  # a command that was given up still has its turn of replies
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
        """Wait until more has come; False after the connection was closed. Raises ValueError as `listen`."""
        if self._lines:
            return True
        if not self._closed:
            self._transport.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._fault is not None:
            raise self._fault
        return bool(self._lines) or not self._closed
