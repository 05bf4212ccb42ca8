"""A unix socket on which a daemon answers its operator: requests and answers are JSON objects, one in a line.

A request is `{"protocol": 1, "operation": NAME, "arguments": {...}}`; its answer is `{"protocol": 1, "result": {...}}`
or `{"protocol": 1, "error": {"status": 2, "message": "..."}}`. Nothing that is received is evaluated, and everything is
limited: the length of a line, the number of connections, and how long a client may take to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from re6st.core.telemetry.report import Record
from re6st.service.connections import Clients

PROTOCOL = 1
IDLE_TIME = 60.0
"""Seconds to wait for the next request, or for the client to read an answer."""

log = logging.getLogger(__name__)

Stream = AsyncGenerator[Record, None]
Call = Callable[[str, Mapping[str, Any], bool], Awaitable[Record | Stream]]
"""Carries out an operation with its arguments and returns the answer, or a stream of answers. Raises OperationError.

The last argument says whether root or our own user asks.
"""


class Status(IntEnum):
    """How an operation ended; also the exit codes of the commands of re6st-registry."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    """The request contradicts what exists (at a registry)."""
    NOT_ALLOWED = 4
    """This user may not do that (at a node)."""


class OperationError(Exception):
    """An operation that was not carried out; the text is for the operator."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def message_line(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent, in either direction."""
    return json.dumps({"protocol": PROTOCOL, **message}).encode() + b"\n"


class LineServer:
    """Answers requests that come in lines.

    `name` is the name under which it refuses another protocol. `clients` may be connected at once. A request has at
    most `request_limit` bytes. A client that neither sends nor reads for `idle` seconds is disconnected. `large`:
    answers may be so long that another thread writes their JSON, so that other calls go on.
    """

    def __init__(
        self,
        call: Call,
        name: str,
        *,
        clients: int,
        request_limit: int,
        idle: float = IDLE_TIME,
        large: bool = False,
    ) -> None:
        self._call = call
        self._name = name
        self._request_limit = request_limit
        self._idle = idle
        self._large = large
        refusal = _refusal(Status.FAILED, f"more than {clients} connections at once")
        self._clients = Clients(clients, self._talk, refusal)

    async def serve(self, listening: Sequence[tuple[Path, socket.socket]]) -> None:
        """Serve until cancelled; then remove the sockets."""
        servers = [
            await asyncio.start_unix_server(self._clients.connected, sock=own, limit=self._request_limit)
            for _, own in listening
        ]
        try:
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            for server in servers:
                server.close()
            await self._clients.end()
            for path, _ in listening:
                with contextlib.suppress(OSError):
                    path.unlink()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except ValueError:
            writer.write(_refusal(Status.USAGE, f"a request of more than {self._request_limit} bytes"))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trusted = _user(writer.get_extra_info("socket")) in (0, os.geteuid())
        while True:
            async with asyncio.timeout(self._idle):
                line = await reader.readline()
            if not line.endswith(b"\n"):
                return
            answer = await self.answer(line, trusted)
            if not isinstance(answer, bytes):
                await self._stream(answer, reader, writer)
                return
            await self._send(writer, answer)

    async def answer(self, line: bytes, trusted: bool) -> bytes | Stream:
        """The answer to a request; no request can make this raise an error."""
        try:
            request = json.loads(line)
            protocol, operation, arguments = request["protocol"], request["operation"], request.get("arguments", {})
            if not isinstance(operation, str) or not isinstance(arguments, dict):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return _refusal(Status.USAGE, "the request is not JSON")
        if protocol != PROTOCOL:
            return _refusal(Status.FAILED, f"{self._name} speaks protocol {PROTOCOL} of the control socket")
        try:
            result = await self._call(operation, arguments, trusted)
        except OperationError as error:
            return _refusal(error.status, str(error))
        except Exception as error:
            log.error("%s: unexpected error: %s: %s", operation[:40], type(error).__name__, error)
            return _refusal(Status.FAILED, f"unexpected error, please report it: {type(error).__name__}: {error}")
        if not isinstance(result, dict):
            return result
        answer = {"result": result}
        return await asyncio.to_thread(message_line, answer) if self._large else message_line(answer)

    async def _stream(self, records: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send results as they come, until the client disconnects or sends anything else."""

        async def send() -> None:
            # Closed at once, even if it is abandoned between two records: this undoes what it has set up.
            async with contextlib.aclosing(records):
                async for record in records:
                    await self._send(writer, message_line({"result": record}))

        sending, hung_up = asyncio.ensure_future(send()), asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((sending, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, hung_up):
                task.cancel()
            await asyncio.gather(sending, hung_up, return_exceptions=True)

    async def _send(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        writer.write(line)
        async with asyncio.timeout(self._idle):
            await writer.drain()


def _user(connected: socket.socket) -> int:
    """The user at the other end (SO_PEERCRED in unix(7))."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _refusal(status: Status, message: str) -> bytes:
    return message_line({"error": {"status": int(status), "message": message}})
