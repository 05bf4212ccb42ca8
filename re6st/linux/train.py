"""Sends a train of echo requests to a neighbour, and notes when the answers arrive (core/routing/packet_train.py)."""

from __future__ import annotations

import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv6Address

from re6st.core.routing.packet_train import FEW, MANY, SIZE, SLOW, pace_of_few, pace_of_train
from re6st.linux.icmpv6 import ECHO_REPLY, ECHO_REQUEST, echo_socket, hear_only

SILENCE = 1.0
"""Seconds without an answer after which no more come."""
_ECHO = struct.Struct("!BBHHH8s")
_TIMESTAMPS, _MOMENT = 35, struct.Struct("=qq")  # SO_TIMESTAMPNS of 64-bit kernels: seconds, nanoseconds
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
    return pace_of_train(send(MANY))


class Train:
    """A socket of the network namespace that it is made in. It waits for answers."""

    def __init__(self, address: IPv6Address, index: int) -> None:
        """Raises OSError."""
        self._to = str(address), 0, 0, index
        self._identifier = 1 + secrets.randbelow(0xFFFF)
        self._socket = echo_socket()
        try:
            self._socket.settimeout(SILENCE)
            self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
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
        token, rest = os.urandom(8), bytes(SIZE - 8)
        for number in range(count):
            request = _ECHO.pack(ECHO_REQUEST, 0, 0, self._identifier, number, token) + rest
            self._socket.sendto(request, self._to)
        came: dict[int, float] = {}
        while len(came) < count:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_ECHO.size, 256)
            except TimeoutError:
                break
            if len(data) < _ECHO.size or data[0] != ECHO_REPLY or data[-8:] != token:
                continue
            stamps = [_MOMENT.unpack_from(value) for _, kind, value in ancillary if kind == _TIMESTAMPS]
            moment = stamps[0][0] + stamps[0][1] / 1e9 if stamps else time.time()
            came.setdefault(_ECHO.unpack(data)[4], moment)
        return list(came.values())
