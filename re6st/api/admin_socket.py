"""The socket of a registry's operator, beside the database, for its owner only (service/json_lines)."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from re6st.api.operations import AdminError, Operations
from re6st.registryd.listings import Record
from re6st.service.json_lines import LineServer, Status, Stream, message_line
from re6st.service.unix_socket import listening_socket

REQUEST_LIMIT = 64 * 1024
"""Bytes of a request line."""
CLIENTS_LIMIT = 8
"""Number of operators that may be connected at once."""

logger = logging.getLogger("admin")


def socket_path(database: Path) -> Path:
    """The socket on which the registry of a database listens for its operator."""
    return database.with_name(f"{database.name}.sock")


class AdminServer:
    """The socket of a running registry."""

    def __init__(self, operations: Operations, path: Path) -> None:
        self._operations = operations
        self._path = path
        self._lines = LineServer(
            self._call, "the registry", clients=CLIENTS_LIMIT, request_limit=REQUEST_LIMIT, large=True
        )

    async def run(self) -> None:
        """Serve until cancelled. Without the socket, the registry works all the same."""
        try:
            listening = self._listen()
        except OSError as error:
            logger.error("cannot make the operator's socket %s: %s", self._path, error.strerror or error)
            return
        await self._lines.serve([(self._path, listening)])

    def _listen(self) -> socket.socket:
        """The process that has locked the database may replace an old socket. Raises OSError."""
        return listening_socket(self._path, backlog=CLIENTS_LIMIT)

    async def _call(self, operation: str, arguments: Mapping[str, Any], trusted: bool) -> Record | Stream:
        return await self._operations.call(operation, arguments)


class Remote:
    """The client of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    ANSWER_LIMIT = 1 << 28
    """Bytes of an answer: the topology of 100,000 nodes takes a tenth."""
    TIMEOUT = 120.0

    @classmethod
    async def connect(cls, path: Path) -> Remote:
        """Raises OSError."""
        return cls(*await asyncio.open_unix_connection(str(path), limit=cls.ANSWER_LIMIT))

    async def call(self, operation: str, arguments: Mapping[str, Any]) -> Record:
        """Carry out an operation. Raises AdminError."""
        try:
            async with asyncio.timeout(self.TIMEOUT):
                self._writer.write(message_line({"operation": operation, "arguments": arguments}))
                line = await self._reader.readline()
            answer = json.loads(line)
            if "error" in answer:
                raise AdminError(Status(answer["error"]["status"]), str(answer["error"]["message"]))
            result: Record = answer["result"]
            return result
        except TimeoutError:
            raise AdminError(Status.FAILED, f"the registry did not answer within {self.TIMEOUT:.0f} s") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise AdminError(Status.FAILED, "the registry ended, or its answer cannot be read. See its log.") from None

    def close(self) -> None:
        self._writer.close()
