"""The socket of a running registry for its operator: a unix socket beside the database, for its owner only.

One JSON object a line, `{"protocol": 1, "operation": NAME, "arguments": {...}}`, answered by
`{"protocol": 1, "result": {...}}` or `{"protocol": 1, "error": {"status": 3, "message": "..."}}`. Lists come in
pages, so that no answer holds up other calls.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from re6st.api.operations import AdminError, Operations, Status
from re6st.registryd.listings import Record
from re6st.service.connections import Clients

logger = logging.getLogger("admin")

PROTOCOL = 1
REQUEST_LIMIT = 64 * 1024
"""Bytes of a request line."""
CLIENTS_LIMIT = 8
"""Operators at work at once."""
IDLE_TIMEOUT = 60.0


def socket_path(database: Path) -> Path:
    """Where the registry of a database listens for its operator."""
    return database.with_name(f"{database.name}.sock")


class AdminServer:
    """The socket of a running registry."""

    def __init__(self, operations: Operations, path: Path) -> None:
        self._operations = operations
        self._path = path
        refusal = _refusal(Status.FAILED, f"more than {CLIENTS_LIMIT} operators at once")
        self._clients = Clients(CLIENTS_LIMIT, self._talk, refusal)

    async def run(self) -> None:
        """Serve until cancelled. Without the socket the registry does its work all the same."""
        try:
            listening = _listen(self._path)
        except OSError as error:
            logger.error("cannot make the operator's socket %s: %s", self._path, error.strerror or error)
            return
        server = await asyncio.start_unix_server(self._clients.connected, sock=listening, limit=REQUEST_LIMIT)
        try:
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            server.close()
            await self._clients.end()
            with suppress(OSError):
                self._path.unlink()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_TIMEOUT):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    return
                writer.write(await self._answer(line))
                async with asyncio.timeout(IDLE_TIMEOUT):
                    await writer.drain()
        except ValueError:
            writer.write(_refusal(Status.USAGE, f"a request of more than {REQUEST_LIMIT} bytes"))
        except TimeoutError:
            pass  # what was written may still be read

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            protocol, operation, arguments = request["protocol"], request["operation"], request["arguments"]
            if not isinstance(operation, str) or not isinstance(arguments, dict):
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError):
            return _refusal(Status.USAGE, "no request in JSON")
        if protocol != PROTOCOL:
            return _refusal(Status.FAILED, f"the registry speaks protocol {PROTOCOL} of the operator's socket")
        try:
            result = await self._operations.call(operation, arguments)
        except AdminError as error:
            return _refusal(error.status, str(error))
        except Exception as error:
            logger.error("%s: unexpected error: %s: %s", operation[:40], type(error).__name__, error)
            return _refusal(Status.FAILED, f"unexpected error, please report it: {type(error).__name__}: {error}")
        return await asyncio.to_thread(partial(_line, {"result": result}))


class Remote:
    """The other end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    ANSWER_LIMIT = 1 << 28
    """Bytes of an answer: the topology of 100,000 nodes is a tenth."""
    TIMEOUT = 120.0

    @classmethod
    async def connect(cls, path: Path) -> Remote:
        """Raises OSError."""
        return cls(*await asyncio.open_unix_connection(str(path), limit=cls.ANSWER_LIMIT))

    async def call(self, operation: str, arguments: Mapping[str, Any]) -> Record:
        """Have an operation carried out. Raises AdminError."""
        try:
            async with asyncio.timeout(self.TIMEOUT):
                self._writer.write(_line({"operation": operation, "arguments": arguments}))
                line = await self._reader.readline()
            answer = json.loads(line)
            if "error" in answer:
                raise AdminError(Status(answer["error"]["status"]), str(answer["error"]["message"]))
            result: Record = answer["result"]
            return result
        except TimeoutError:
            raise AdminError(Status.FAILED, f"the registry does not answer within {self.TIMEOUT:.0f} s") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise AdminError(Status.FAILED, "the registry ended, or its answer is none. See its log.") from None

    def close(self) -> None:
        self._writer.close()


def _listen(path: Path) -> socket.socket:
    """A socket for its owner only. Who has the lock of the database may replace an old one. Raises OSError."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.bind(str(path))
        os.chmod(path, 0o600)  # nobody can connect before it listens
        listening.listen(CLIENTS_LIMIT)
    except OSError:
        listening.close()
        raise
    return listening


def _line(message: Record) -> bytes:
    return json.dumps({"protocol": PROTOCOL, **message}).encode() + b"\n"


def _refusal(status: Status, message: str) -> bytes:
    return _line({"error": {"status": int(status), "message": message}})
