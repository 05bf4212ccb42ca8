"""Sockets for echo requests over IPv6 and their answers (RFC 4443 section 4), as the kernel lets us have them."""

from __future__ import annotations

import socket

ECHO_REQUEST, ECHO_REPLY = 128, 129

_ICMP6_FILTER = 1  # linux/icmpv6.h
_ONLY_REPLIES = b"".join(
    (0xFFFFFFFF & ~((1 << ECHO_REPLY % 32) if word == ECHO_REPLY // 32 else 0)).to_bytes(4, "little")
    for word in range(8)
)


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
