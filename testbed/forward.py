"""A way from the machine's loopback to a server on the loopback of a host, as `ssh -L` makes one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from types import TracebackType

from testbed.host import Host

CHUNK = 1 << 16


class Forward:
    """Takes connections to `port` on 127.0.0.1 (0: any free one), and makes each on the host, while it is entered."""

    def __init__(self, host: Host, target: int, port: int = 0) -> None:
        self._host = host
        self._target = target
        self._wanted = port
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="forward", daemon=True)
        self._listening: socket.socket
        self.port = 0

    def __enter__(self) -> Forward:
        try:
            self._listening = socket.create_server(("127.0.0.1", self._wanted))
        except OSError:
            self._listening = socket.create_server(("127.0.0.1", 0))  # that port is taken: any other will do
        self.port = self._listening.getsockname()[1]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listening)
        await self._over.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connect = self._connect
            there = await asyncio.to_thread(self._host.namespace.call, connect)
            other_reader, other_writer = await asyncio.open_connection(sock=there)
        except OSError:
            writer.close()
            return
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))
        for each in (writer, other_writer):
            each.close()

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._target), 5)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
