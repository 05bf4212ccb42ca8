"""Echo requests that ask for a sign of life (RFC 4443 section 4), and their answers, by neighbours or by far nodes.

Every node's kernel answers them, whichever software it runs.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from re6st.linux.icmpv6 import ECHO_REPLY, ECHO_REQUEST, arrival, echo_socket, hear_only, note_arrivals

_ECHO = struct.Struct("!BBHHH8s")  # type, code, checksum (the kernel's), identifier, sequence number, our token
WAITING = 2000
"""Requests whose answers are awaited, at most."""
READ_AT_ONCE = 256
SIZE = 256

Target = tuple[IPv6Address, int]
"""An address and, for a link-local one, the index of its interface; else 0."""


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """An answer to a request of ours."""

    target: Target
    number: int
    """That of the request."""
    seconds: float
    """How long after the request the answer was there, whenever it is read."""


class ProbeSocket:
    """A socket of the network namespace that it is made in. Nothing here waits."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._identifier = 1 + secrets.randbelow(0xFFFF)
        """Of requests of raw sockets: those of others, or where the kernel chooses it, have another."""
        self._socket = self._open()
        self._from: dict[IPv6Address, socket.socket] = {}
        """Sockets that ask from an address of ours, as some routes are for packets of certain sources alone."""
        self._waiting: dict[bytes, tuple[Target, float]] = {}

    def close(self) -> None:
        for each in (self._socket, *self._from.values()):
            each.close()

    def ask(self, address: IPv6Address, index: int = 0, source: IPv6Address | None = None) -> int | None:
        """Send one request, and return its number. Where something keeps it from being sent, as a way that is not
        there, there is none; this is as good as a loss.
        """
        token = os.urandom(8)
        while len(self._waiting) >= WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[token] = (address, index), time.time()
        request = _ECHO.pack(ECHO_REQUEST, 0, 0, self._identifier, 0, token)
        try:
            self._asks_from(source).sendto(request, (str(address), 0, 0, index))
        except OSError:
            return None
        return int.from_bytes(token)

    def answers(self) -> Iterator[EchoAnswer]:
        """What was answered since, in the order in which it came."""
        for each in (self._socket, *self._from.values()):
            yield from self._answers_to(each)

    def _asks_from(self, source: IPv6Address | None) -> socket.socket:
        """Raises OSError where that is no address of ours."""
        if source is None:
            return self._socket
        if source not in self._from:
            made = self._open()
            try:
                made.bind((str(source), 0))
            except OSError:
                made.close()
                raise
            self._from[source] = made
        return self._from[source]

    def _answers_to(self, asks: socket.socket) -> Iterator[EchoAnswer]:
        for _ in range(READ_AT_ONCE):
            try:
                data, ancillary, _, (host, _, _, index) = asks.recvmsg(SIZE, SIZE)
            except OSError:
                return
            came = arrival(ancillary)
            if len(data) != _ECHO.size or data[0] != ECHO_REPLY:
                continue
            waiting = self._waiting.get(data[-8:])
            address = IPv6Address(host.partition("%")[0])
            if waiting is not None and waiting[0] == (address, index if address.is_link_local else 0):
                del self._waiting[data[-8:]]
                yield EchoAnswer(waiting[0], int.from_bytes(data[-8:]), max(0.0, came - waiting[1]))

    def _open(self) -> socket.socket:
        """Raises OSError."""
        own = echo_socket()
        try:
            own.setblocking(False)
            note_arrivals(own)
            if own.type == socket.SOCK_RAW:
                hear_only(own, self._identifier)
        except BaseException:
            own.close()
            raise
        return own
