"""Requests to the kernel by netlink(7), and its answers.

The kernel answers while a request is sent (a dump: while it is read), so nothing here waits. We do not use pyroute2,
the usual library, because it takes 9 MB of memory.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

# linux/netlink.h
_REQUEST, _ACK, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x4, 0x300, 0x10
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERRNO = struct.Struct("=i")
_NESTED = 0x3FFF
"""Of an attribute's type, without the bits that say nested and byte order."""

BUFFER = 1 << 16
"""Bytes to read at a time; a message of a dump has at most 32 KiB."""
ATTEMPTS = 5
"""How often a dump is started again if its contents changed while it was read."""


class NetlinkError(OSError):
    """The kernel refused a request; `errno` says why."""


class NetlinkSocket:
    """A socket for one of the protocols of netlink, in the network namespace in which it is made.

    Its methods raise NetlinkError and OSError.
    """

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes, keep: Callable[[bytes], bool] = lambda _: True) -> list[bytes]:
        """The contents of all answers to a request of this type, or of those that are to be kept."""
        for _ in range(ATTEMPTS):
            self._send(kind, body, _DUMP)
            found, interrupted = [], False
            for _kind, flags, each in self._answers():
                if keep(each):
                    found.append(each)
                interrupted |= bool(flags & _DUMP_INTERRUPTED)
            if not interrupted:
                return found
        raise NetlinkError(errno.EAGAIN, "it changed while it was read")

    def request(self, kind: int, body: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
        """Make a request that the kernel acknowledges; returns type and content of any other answers."""
        self._send(kind, body, flags | _ACK)
        return [(answer, each) for answer, _, each in self._answers()]

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        head = _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._sequence, 0)
        self._socket.sendto(head + body, (0, 0))

    def _answers(self) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and content of the answers to our last request, up to the last one. Raises NetlinkError."""
        while True:
            data, offset = self._socket.recv(BUFFER), 0
            while len(data) - offset >= _HEADER.size:
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                if not _HEADER.size <= length <= len(data) - offset:
                    raise malformed()
                body = data[offset + _HEADER.size : offset + length]
                offset += _aligned(length)
                if sequence != self._sequence:
                    continue  # an answer to an earlier request whose answers were not all read
                if kind in (_ERROR, _DONE):
                    code = -_ERRNO.unpack_from(body)[0] if len(body) >= _ERRNO.size else 0
                    if code:
                        raise NetlinkError(code, os.strerror(code))
                    return
                yield kind, flags, body


def malformed() -> NetlinkError:
    """The error to raise for a message that does not have the form of its type."""
    return NetlinkError(errno.EBADMSG, os.strerror(errno.EBADMSG))


def unpack(form: struct.Struct, body: bytes) -> tuple[Any, ...]:
    """The fields with which a message begins. Raises NetlinkError."""
    if len(body) < form.size:
        raise malformed()
    return form.unpack_from(body)


def pack_attribute(kind: int, value: bytes) -> bytes:
    """An attribute as it is written in a message."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def read_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of the attributes in a part of a message, up to the first one that is cut off."""
    offset, end = 0, len(data)
    while end - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= end - offset:
            return
        yield kind & _NESTED, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def read_attribute(data: bytes, *kinds: int) -> bytes | None:
    """The value of the first attribute of a type; of several types, each in the value of the one before."""
    span = find_attribute(data, *kinds)
    return None if span is None else data[span]


def find_attribute(data: bytes, *kinds: int) -> slice | None:
    """Where that value is."""
    start, end = 0, len(data)
    for kind in kinds:
        while True:
            if end - start < _ATTRIBUTE.size:
                return None
            length, found = _ATTRIBUTE.unpack_from(data, start)
            if not _ATTRIBUTE.size <= length <= end - start:
                return None
            if found & _NESTED == kind:
                start, end = start + _ATTRIBUTE.size, start + length
                break
            start += _aligned(length)
    return slice(start, end)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
