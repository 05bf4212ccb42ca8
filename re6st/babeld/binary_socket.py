"""Both ends of the binary control socket that the older software expects from babeld (wire.md 9.6): RUN/babeld.sock.

With `read_dump`, our registry can run beside a node of the older software. With `serve`, the registry of the older
software can run beside our node. So an operator may replace either of them first.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv6Network
from pathlib import Path

from re6st.core.routing.babel_binary import (
    EVERYTHING,
    GREETING,
    HEADER,
    REQUEST_LIMIT,
    BinaryError,
    Dump,
    PacketKind,
    SetMultiplier,
    decode_dump,
    decode_header,
    decode_multiplier,
    dump_of,
    encode_dump,
    encode_packet,
)
from re6st.core.routing.babel_lines import Table
from re6st.service.run_names import BINARY_SOCKET
from re6st.service.unix_socket import listening_socket

CLIENT_LIMIT = 8
READ_TIME = 5.0
"""Seconds for a client to take an answer, or to complete a request; between two requests it may be silent."""

log = logging.getLogger(__name__)


async def read_dump(path: Path) -> Dump:
    """What the babeld behind this socket knows. Raises OSError, EOFError, BinaryError.

    The caller limits how long it may take.
    """
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(GREETING + encode_packet(PacketKind.DUMP, bytes((EVERYTHING,))))
        kind, length = decode_header(await reader.readexactly(HEADER.size))
        if kind is not PacketKind.DUMP:
            raise BinaryError(f"an answer of the unexpected type {kind}")
        return decode_dump(await reader.readexactly(length))
    finally:
        writer.close()


async def offer(path: Path, table: Table, own: IPv6Network) -> None:
    """Show the registry of the older software what our babeld knows, until cancelled; nothing can be changed.

    That registry reads the prefixes that have a route, for getBootstrapPeer and versions; otherwise it would know only
    its own.
    """

    def index(interface: str) -> int | None:
        with suppress(OSError):
            return socket.if_nametoindex(interface)
        return None

    try:
        async with serve(path, lambda: dump_of(table, index, [own])):
            await asyncio.Event().wait()
    except OSError as error:
        log.warning(
            "cannot make the socket %s: %s. A registry of the older software cannot read our routes",
            path,
            error.strerror or error,
        )


@asynccontextmanager
async def serve(
    path: Path, dump: Callable[[], Dump], multiply: Callable[[SetMultiplier], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Answer requests for a dump while the context lasts; `multiply` gets the other requests. Raises OSError.

    Without `multiply`, a request for a multiplier is answered, and changes nothing.
    """
    clients: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(clients) >= CLIENT_LIMIT:
            writer.close()
            return
        task = asyncio.create_task(_client(reader, writer, dump, multiply), name="client of babeld.sock")
        clients.add(task)
        task.add_done_callback(clients.discard)

    # The group, as the registry may run as another user.
    listening = listening_socket(path, backlog=CLIENT_LIMIT, group_mode=0o660)
    server = await asyncio.start_unix_server(connected, sock=listening)
    try:
        yield
    finally:
        server.close()
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        path.unlink(missing_ok=True)


async def _client(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    dump: Callable[[], Dump],
    multiply: Callable[[SetMultiplier], Awaitable[None]] | None,
) -> None:
    try:
        await _answer(reader, writer, dump, multiply)
    except (OSError, asyncio.IncompleteReadError):
        pass  # it went away, or is too slow: this does not concern us
    except BinaryError as error:
        log.warning("disconnecting a client of %s: %s", BINARY_SOCKET, error)
    finally:
        writer.close()


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    dump: Callable[[], Dump],
    multiply: Callable[[SetMultiplier], Awaitable[None]] | None,
) -> None:
    if await reader.readexactly(len(GREETING)) != GREETING:
        raise BinaryError("it does not speak our protocol")
    while first := await reader.read(1):
        async with asyncio.timeout(READ_TIME):
            kind, length = decode_header(first + await reader.readexactly(HEADER.size - 1), REQUEST_LIMIT)
            content = await reader.readexactly(length)
            if kind is PacketKind.DUMP:
                answer = encode_dump(dump())
            else:
                request = decode_multiplier(content)
                if multiply is not None:
                    await multiply(request)
                answer = b"\0"
            writer.write(encode_packet(kind, answer))
            await writer.drain()
