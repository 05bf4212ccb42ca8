"""Sockets for echo requests over IPv6 and their answers (RFC 4443 section 4), as the kernel lets us have them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable

from re6st.linux.socket_filter import ALL, IS_EQUAL, LOAD_HALF, NOTHING, attach

ECHO_REQUEST, ECHO_REPLY = 128, 129

_ICMP6_FILTER = 1  # linux/icmpv6.h
_ONLY_REPLIES = b"".join(
    (0xFFFFFFFF & ~((1 << ECHO_REPLY % 32) if word == ECHO_REPLY // 32 else 0)).to_bytes(4, "little")
    for word in range(8)
)
_IDENTIFIER_AT = 4

_TIMESTAMPS, _MOMENT = 35, struct.Struct("=qq")  # SO_TIMESTAMPNS of 64-bit kernels: seconds, nanoseconds


def echo_socket() -> socket.socket:
    """A socket that hears only the answers to its own requests, where the sysctl net.ipv4.ping_group_range lets us have
    one; else a raw one. Raises OSError.
    """
    try:
        return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
    except OSError:
        return raw_echo_socket()


def raw_echo_socket() -> socket.socket:
    """A socket that hears all echo replies that come to this network namespace, and nothing else. Raises OSError."""
    own = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        own.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _ONLY_REPLIES)
    except BaseException:
        own.close()
        raise
    return own


def hear_only(own: socket.socket, identifier: int) -> None:
    """Have a raw socket hear only answers to requests with this identifier; those of others do not wake us. Raises
    OSError.
    """
    attach(own, ((LOAD_HALF, 0, 0, _IDENTIFIER_AT), (IS_EQUAL, 0, 1, identifier), ALL, NOTHING))


def note_arrivals(own: socket.socket) -> None:
    """Have the kernel note when each packet comes, whenever we read it. Raises OSError."""
    own.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)


def arrival(ancillary: Iterable[tuple[int, int, bytes]]) -> float:
    """When a packet came (Unix time), by what was read beside it: now, where the kernel has not noted it."""
    for _, kind, value in ancillary:
        if kind == _TIMESTAMPS and len(value) == _MOMENT.size:  # else that of a 32-bit kernel
            seconds, nanoseconds = _MOMENT.unpack(value)
            return float(seconds + nanoseconds / 1e9)
    return time.time()
