"""The control socket, on which a running node answers its operator (docs/control.md) in lines of JSON (json_lines)."""

from __future__ import annotations

import contextlib
import logging
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from re6st.core.telemetry.report import Record
from re6st.service.json_lines import IDLE_TIME, LineServer, OperationError, Stream
from re6st.service.run_names import CONTROL_SOCKET
from re6st.service.rundir import give_to_group
from re6st.service.unix_socket import listening_socket

REQUEST_LIMIT = 4096
CLIENT_LIMIT = 16

log = logging.getLogger(__name__)


class ControlError(OperationError):
    """A request that the node did not carry out."""


class Observed(Protocol):
    """Carries out requests."""

    def call(self, operation: str, arguments: Mapping[str, Any], *, trusted: bool) -> Record | Stream:
        """The answer, or a stream of answers. `trusted`: root or our own user asks. Raises ControlError."""


class ControlServer:
    """The control sockets of a running node."""

    def __init__(self, operations: Observed, run: Path, other: Path | None = None, *, idle: float = IDLE_TIME) -> None:
        """One in the run directory, and one at another path (--console)."""
        self._operations = operations
        self._run = run
        self._paths = [run / CONTROL_SOCKET, *([other] if other not in (None, run / CONTROL_SOCKET) else [])]
        self.lines = LineServer(self._call, "this node", clients=CLIENT_LIMIT, request_limit=REQUEST_LIMIT, idle=idle)

    async def run(self) -> None:
        """Serve until cancelled. If the sockets cannot be made, the node works all the same."""
        listening = []
        for path in self._paths:
            try:
                listening.append((path, self._listen(path)))
            except OSError as error:
                log.error("cannot make the control socket %s: %s. Going on without it.", path, error.strerror or error)
        await self.lines.serve(listening)

    async def _call(self, operation: str, arguments: Mapping[str, Any], trusted: bool) -> Record | Stream:
        return self._operations.call(operation, arguments, trusted=trusted)

    def _listen(self, path: Path) -> socket.socket:
        """A socket for its owner and our group. Raises OSError."""
        _make_room(path)
        if path.parent == self._run:
            with contextlib.suppress(KeyError, PermissionError):
                # The group may pass through the directory to the socket, and sees nothing else.
                give_to_group(self._run, 0o710)
        return listening_socket(path, backlog=CLIENT_LIMIT, group_mode=0o660)


def _make_room(path: Path) -> None:
    """Remove a socket on which nobody listens any more. Raises OSError for anything else at this path."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(0, "there is a file that is not a socket")
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
