"""Clients that only hold connections: some silent, some sending one byte a second; who is cut comes again at once.

    python -m bench.support.crowd PORT SILENT SLOW

Prints `ready` when all are connected, and when it is ended, the fewest that were connected at once since then.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

REQUEST = b"GET /getCa HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + 1000 * b"slow" + b"\r\n\r\n"


class Crowd:
    def __init__(self, port: int, silent: int, slow: int) -> None:
        self._port = port
        self._silent, self._slow = silent, slow
        self._connected = 0
        self._fewest = silent + slow

    async def run(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        tasks = [asyncio.create_task(self._hold(REQUEST[:0])) for _ in range(self._silent)]
        tasks += [asyncio.create_task(self._hold(REQUEST)) for _ in range(self._slow)]
        while self._connected < self._silent + self._slow:
            await asyncio.sleep(0.05)
        self._fewest = self._connected
        print("ready", flush=True)
        await stop.wait()
        for task in tasks:
            task.cancel()
        print(self._fewest, flush=True)

    async def _hold(self, text: bytes) -> None:
        """Stay connected."""
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self._connected += 1
                sender = asyncio.create_task(_send(writer, text))
                try:
                    await reader.read()
                finally:
                    sender.cancel()
                    self._connected -= 1
                    self._fewest = min(self._fewest, self._connected)
                    writer.close()
            await asyncio.sleep(0.01)


async def _send(writer: asyncio.StreamWriter, text: bytes) -> None:
    with contextlib.suppress(OSError):
        for byte in text:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(Crowd(*map(int, sys.argv[1:])).run())
