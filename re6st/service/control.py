"""The control socket: what a running node tells its operator, one JSON object a line (docs/control.md).

A request is `{"protocol": 1, "operation": NAME, "arguments": {...}}`; its answer `{"protocol": 1, "result": {...}}` or
`{"protocol": 1, "error": {"status": 2, "message": "..."}}`. Nothing received is evaluated, and everything is bounded:
the length of a line, the number of connections, and how long somebody may take to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

from re6st.core.telemetry.report import Record
from re6st.service.connections import Clients
from re6st.service.run_names import CONTROL_SOCKET
from re6st.service.rundir import give_to_group

PROTOCOL = 1
REQUEST_LIMIT = 4096
CLIENT_LIMIT = 16
IDLE_TIME = 60.0
"""Seconds until the next request, or until an answer was read."""

log = logging.getLogger(__name__)


class Status(IntEnum):
    """Why a request was not carried out; the numbers are those of the registry's socket."""

    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4


class ControlError(Exception):
    """A request that was not carried out; the text is for the operator."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class Operations(Protocol):
    """Who knows the answers."""

    def call(
        self, operation: str, arguments: Mapping[str, Any], *, trusted: bool
    ) -> Record | AsyncGenerator[Record, None]:
        """The answer, or a stream of them. `trusted`: asked by root or by our own user. Raises ControlError."""


class ControlServer:
    """The sockets of a running node."""

    def __init__(self, operations: Operations, run: Path, other: Path | None = None) -> None:
        """In the run directory, and at another path (--console)."""
        self._operations = operations
        self._run = run
        self._paths = [run / CONTROL_SOCKET, *([other] if other not in (None, run / CONTROL_SOCKET) else [])]
        refusal = _refusal(Status.FAILED, f"more than {CLIENT_LIMIT} connections at once")
        self._clients = Clients(CLIENT_LIMIT, self._talk, refusal)

    async def run(self) -> None:
        """Serve until cancelled. Without the sockets the node does its work all the same."""
        listening = []
        for path in self._paths:
            try:
                listening.append((path, self._listen(path)))
            except OSError as error:
                log.error("cannot make the control socket %s: %s. Going on without it.", path, error.strerror or error)
        servers = [
            await asyncio.start_unix_server(self._clients.connected, sock=own, limit=REQUEST_LIMIT)
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

    def _listen(self, path: Path) -> socket.socket:
        """A socket for its owner and our group. Raises OSError."""
        _make_room(path)
        own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            own.bind(str(path))
            os.chmod(path, 0o600)  # nobody can connect before it listens
            with contextlib.suppress(KeyError, PermissionError):
                give_to_group(path, 0o660)
                if path.parent == self._run:
                    # They may walk through to the socket, and see nothing else.
                    give_to_group(self._run, 0o710)
            own.listen(CLIENT_LIMIT)
        except OSError:
            own.close()
            raise
        return own

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except ValueError:
            writer.write(_refusal(Status.USAGE, f"a request of more than {REQUEST_LIMIT} bytes"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trusted = _user(writer.get_extra_info("socket")) in (0, os.geteuid())
        while True:
            async with asyncio.timeout(IDLE_TIME):
                line = await reader.readline()
            if not line.endswith(b"\n"):
                return
            answer = self._answer(line, trusted)
            if isinstance(answer, bytes):
                await _send(writer, answer)
                continue
            await _stream(answer, reader, writer)
            return

    def _answer(self, line: bytes, trusted: bool) -> bytes | AsyncGenerator[Record, None]:
        try:
            request = json.loads(line)
            protocol, operation, arguments = request["protocol"], request["operation"], request.get("arguments", {})
            if not isinstance(operation, str) or not isinstance(arguments, dict):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return _refusal(Status.USAGE, "no request in JSON")
        if protocol != PROTOCOL:
            return _refusal(Status.FAILED, f"this node speaks protocol {PROTOCOL} of the control socket")
        try:
            result = self._operations.call(operation, arguments, trusted=trusted)
        except ControlError as error:
            return _refusal(error.status, str(error))
        return _line({"result": result}) if isinstance(result, dict) else result


async def _stream(
    records: AsyncGenerator[Record, None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send what comes until the reader hangs up, or says anything more."""

    async def send() -> None:
        # Closed at once, also where it is given up between two records: what it has set up is undone then.
        async with contextlib.aclosing(records):
            async for record in records:
                await _send(writer, _line({"result": record}))

    sending, hung_up = asyncio.ensure_future(send()), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait((sending, hung_up), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        for task in (sending, hung_up):
            task.cancel()
        await asyncio.gather(sending, hung_up, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    async with asyncio.timeout(IDLE_TIME):
        await writer.drain()


def _make_room(path: Path) -> None:
    """Remove a socket that nobody listens on any more. Raises OSError for anything else that is there."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(0, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FileExistsError(0, "another process listens there")


def _user(connected: socket.socket) -> int:
    """The user at the other end (SO_PEERCRED in unix(7))."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _line(message: Record) -> bytes:
    return json.dumps({"protocol": PROTOCOL, **message}).encode() + b"\n"


def _refusal(status: Status, message: str) -> bytes:
    return _line({"error": {"status": int(status), "message": message}})
