"""Sends a train of echo requests to a neighbour, and notes when the answers arrive (core/routing/packet_train.py)."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv6Address

from re6st.core.routing.packet_train import FEW, MANY, SIZE, SLOW, pace_of_few, pace_of_train
from re6st.linux.icmpv6 import ECHO_REPLY, ECHO_REQUEST, arrival, echo_socket, hear_only, note_arrivals

SILENCE = 1.0
"""Seconds without an answer after which no more come."""
LONGEST = 3.0
"""Seconds that a train has in all: a peer that answers now and then would keep a thread busy, and a node from ending.
"""
_ECHO = struct.Struct("!BBHHH8s")
_BUFFER = 1 << 20
"""Bytes of answers that wait for us: more than a train has, as the kernel counts them."""

Send = Callable[[int], list[float]]


def measure(address: IPv6Address, index: int) -> float | None:
    """What the link to a neighbour on the interface of this index carries, in Mbit/s; None where too little came back.

    Takes as long as that: not for an event loop. Raises OSError.
    """
    with closing(Train(address, index)) as train:
        return measured(train.send)


def measured(send: Send) -> float | None:
    """The same, by `send`: it sends so many packets, and returns when their answers came, in seconds."""
    first = pace_of_few(send(FEW))
    if first is None or first < SLOW:
        return first
    send(MANY)
    found = pace_of_train(send(MANY))
    return first if found is None else found


class Train:
    """A socket of the network namespace that it is made in. It waits for answers."""

    def __init__(self, address: IPv6Address, index: int) -> None:
        """Raises OSError."""
        self._to = str(address), 0, 0, index
        self._identifier = 1 + secrets.randbelow(0xFFFF)
        self._socket = echo_socket()
        try:
            note_arrivals(self._socket)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            if self._socket.type == socket.SOCK_RAW:
                hear_only(self._socket, self._identifier)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def send(self, count: int) -> list[float]:
        """Send so many packets at once; returns when the answers came. Raises OSError."""
        token, rest, until = os.urandom(8), bytes(SIZE - 8), time.monotonic() + LONGEST
        for number in range(count):
            request = _ECHO.pack(ECHO_REQUEST, 0, 0, self._identifier, number, token) + rest
            self._wait_until(until)
            self._socket.sendto(request, self._to)
        came: dict[int, float] = {}
        while len(came) < count:
            try:
                self._wait_until(until)
                data, ancillary, _, _ = self._socket.recvmsg(_ECHO.size, 256)
            except TimeoutError:
                break
            if len(data) < _ECHO.size or data[0] != ECHO_REPLY or data[-8:] != token:
                continue
            came.setdefault(_ECHO.unpack(data)[4], arrival(ancillary))
        return list(came.values())

    def _wait_until(self, until: float) -> None:
        """Have the next call wait no longer than that, nor than SILENCE. Raises TimeoutError where it is over."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        self._socket.settimeout(min(left, SILENCE))
