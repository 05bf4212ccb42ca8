"""The client of a node's control socket (docs/control.md), for re6st-status.

It is blocking, and imports little, since an operator wants a command that answers at once.
"""

from __future__ import annotations

import grp
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

PROTOCOL = 1
GROUP = "re6stnet-look"
DEFAULT = Path("/var/run/re6stnet/control.sock")
ANSWER_LIMIT = 4 << 20
"""Bytes of an answer: a page of 1000 routes has about 300 kB."""
PAGE = 1000


class Trouble(Exception):
    """There is no answer; the text says why, and what to do."""


class NotRunning(Trouble):
    """Nobody listens."""


class NotPermitted(Trouble):
    """We have no permission to connect."""


class RequestRefused(Trouble):
    """The node did not carry out a request. docs/control.md explains `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NodeConnection:
    """One connection to a node."""

    def __init__(self, own: socket.socket, lines: BinaryIO) -> None:
        self._own = own
        self._lines = lines

    def ask(self, operation: str, **arguments: object) -> Any:
        """Send a request and return its result. Raises RequestRefused, Trouble."""
        request = {"protocol": PROTOCOL, "operation": operation, "arguments": arguments}
        try:
            self._own.sendall(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:  # there are too many connections: the reason can be read
            pass
        except OSError as error:
            raise Trouble(f"re6stnet closed the connection: {error.strerror or error}") from None
        return self.next()

    def next(self) -> Any:
        """Wait for the next result. Raises RequestRefused, Trouble."""
        try:
            line = self._lines.readline(ANSWER_LIMIT)
        except TimeoutError:
            raise Trouble(f"re6stnet did not answer within {self._own.gettimeout():g} s: see its log") from None
        except OSError as error:
            raise Trouble(f"re6stnet closed the connection: {error.strerror or error}") from None
        if not line:
            raise NotRunning("re6stnet closed the connection: it is stopping, or was restarted. Try again.")
        try:
            answer = json.loads(line)
            refusal = answer.get("error")
            if refusal is None:
                return answer["result"]
            message, status = str(refusal["message"]), int(refusal["status"])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Trouble("what answers there is not a control socket of re6stnet. Check --control.") from None
        raise RequestRefused(message, status)

    def routes(self) -> Mapping[str, Any]:
        """All routes in use: the answers of `routes` for all pages."""
        whole = self.ask("routes", limit=PAGE)
        while len(whole["routes"]) < whole["count"]:
            page = self.ask("routes", offset=len(whole["routes"]), limit=PAGE)["routes"]
            if not page:
                break
            whole["routes"] += page
        return dict(whole)


@contextmanager
def connect(path: Path, timeout: float | None = 10) -> Iterator[NodeConnection]:
    """Raises NotRunning, NotPermitted, Trouble."""
    with socket.socket(socket.AF_UNIX) as own:
        own.settimeout(timeout)
        try:
            own.connect(str(path))
        except FileNotFoundError:
            raise NotRunning(f"re6stnet is not running (no {path})") from None
        except ConnectionRefusedError:
            raise NotRunning(f"re6stnet is not running (nobody listens at {path}: it was killed, or crashed)") from None
        except PermissionError:
            raise NotPermitted(f"no permission for {path}. {_who_may()}") from None
        except TimeoutError:
            raise Trouble(f"re6stnet did not answer within {timeout:g} s at {path}: see its log") from None
        except OSError as error:
            raise Trouble(f"{path}: {error.strerror or error}. Check --control.") from None
        with own.makefile("rb") as lines:
            yield NodeConnection(own, lines)


def in_group() -> bool | None:
    """Whether we are in the group that may look; None if this group does not exist."""
    try:
        return grp.getgrnam(GROUP).gr_gid in (*os.getgroups(), os.getegid())
    except KeyError:
        return None


def _who_may() -> str:
    member = in_group()
    if member is None:
        return f"Use sudo; or make a group {GROUP}, restart re6stnet and join it."
    if member:
        return f"Use sudo; re6stnet was started without the right to hand it to the group {GROUP}, which you are in."
    return f"Use sudo, or join the group {GROUP} (sudo adduser {os.environ.get('USER', 'YOU')} {GROUP}, log in again)."
