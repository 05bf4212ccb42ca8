"""The control socket of a node, as an operator's program talks to it (docs/control.md)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


class Refused(Exception):
    """The node did not carry a request out."""


class Control:
    """One connection."""

    def __init__(self, own: socket.socket, lines: TextIO) -> None:
        self._socket = own
        self._lines = lines

    def ask(self, operation: str, **arguments: Any) -> Any:
        """The result. Raises Refused, OSError."""
        request = {"protocol": 1, "operation": operation, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        return self.next()

    def next(self) -> Any:
        """The next line. Raises Refused, EOFError, OSError."""
        line = self._lines.readline()
        if not line:
            raise EOFError
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"]["message"])
        return answer["result"]


@contextmanager
def control(path: Path, timeout: float = 10) -> Iterator[Control]:
    """Connect. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as own:
        own.settimeout(timeout)
        own.connect(str(path))
        with own.makefile("r", encoding="utf-8") as lines:
            yield Control(own, lines)


def ask(path: Path, operation: str, **arguments: Any) -> Any:
    """One request. Raises Refused, EOFError, OSError."""
    with control(path) as connection:
        return connection.ask(operation, **arguments)
