"""A load generator for the registry's HTTP: many clients at once, little work for each, so that the server is what one
measures. A client is a generator: it yields a request, is sent the body of the answer, and so on to its end.
"""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field

from re6st.core.wire.rpc import HEADER

Client = Generator[bytes, bytes, None]
STALL = 60.0
"""Seconds without any event after which a run has failed."""


class LoadError(Exception):
    """The server did not answer as it has to."""


def request(target: str, header: str = "") -> bytes:
    """The bytes of a GET request."""
    extra = f"{HEADER}: {header}\r\n" if header else ""
    return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode("ascii")


@dataclass(slots=True)
class _Active:
    client: Client
    began: float
    data: bytes
    """What to send."""
    answer: bytearray = field(default_factory=bytearray)


class Run:
    """Clients that follow one another, `width` at a time, and when each began and ended."""

    def __init__(self, port: int, width: int, clients: Iterable[Client]) -> None:
        self.spans: list[tuple[float, float]] = []
        self._address = ("127.0.0.1", port)
        self._width = width
        self._waiting: Iterator[Client] = iter(clients)
        self._selector = selectors.DefaultSelector()

    def drive(self, tick: Callable[[int], None] = lambda done: None) -> Run:
        """Run all to their end; `tick` is called now and then with how many are done. Raises LoadError."""
        with self._selector:
            for _ in range(self._width):
                self._begin()
            while self._selector.get_map():
                ready = self._selector.select(STALL)
                if not ready:
                    raise LoadError(f"no answer within {STALL:.0f} s")
                for key, _ in ready:
                    self._advance(key.fileobj, key.data)  # type: ignore[arg-type]
                tick(len(self.spans))
        return self

    def _begin(self) -> None:
        client = next(self._waiting, None)
        if client is not None:
            self._connect(_Active(client, time.perf_counter(), next(client)))

    def _connect(self, active: _Active) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(self._address)
        self._selector.register(connection, selectors.EVENT_WRITE, active)

    def _advance(self, connection: socket.socket, active: _Active) -> None:
        try:
            if active.data:
                active.data = active.data[connection.send(active.data) :]
                if not active.data:
                    self._selector.modify(connection, selectors.EVENT_READ, active)
                return
            if received := connection.recv(1 << 16):
                active.answer += received
                return
        except OSError as error:
            raise LoadError(f"connection: {error.strerror}") from None
        self._selector.unregister(connection)
        connection.close()
        head, _, body = bytes(active.answer).partition(b"\r\n\r\n")
        if head[8:13] != b" 200 ":
            raise LoadError(f"unexpected answer: {head[:200]!r}")
        try:
            active.data = active.client.send(body)
        except StopIteration:
            self.spans.append((active.began, time.perf_counter()))
            self._begin()
        else:
            active.answer.clear()
            self._connect(active)

    def figures(self) -> dict[str, float]:
        """Done a second: over all, in the first and the last quarter; and how long one took."""
        ends = sorted(end for _, end in self.spans)
        start = min(began for began, _ in self.spans)
        part = max(1, len(ends) // 4)
        took = sorted(end - began for began, end in self.spans)
        return {
            "count": len(ends),
            "per_second": _rounded(len(ends) / (ends[-1] - start)),
            "first_quarter": _rounded(part / (ends[part - 1] - start)),
            "last_quarter": _rounded(part / (ends[-1] - (ends[-part - 1] if part < len(ends) else start))),
            "median_ms": _rounded(1000 * took[len(took) // 2]),
            "p99_ms": _rounded(1000 * took[math.ceil(0.99 * len(took)) - 1]),
        }


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
