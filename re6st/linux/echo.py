"""Echo requests of a size to neighbours on links, and their answers (RFC 4443 section 4)."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address

from re6st.linux.icmpv6 import ECHO_REPLY, ECHO_REQUEST, hear_only, raw_echo_socket

IPV6_HEADER = 40
AT_ONCE = 64
"""After so many answers in a row, other tasks have their turn."""
RECEIVED = 64
"""Bytes of an answer that are looked at."""

_HEADER = struct.Struct("!BBHHH8sQ")  # type, code, checksum (the kernel's), identifier, sequence, then secret, number
_IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _PMTUDISC_PROBE = 23, 62, 3  # linux/in6.h, which Python does not name

Answered = Callable[[int, IPv6Address, int], None]
"""Called with the index of the interface, the neighbour, and the number of the request."""


class EchoSocket:
    """Sends packets of any size that the interface takes, in one piece, whatever is known of the path.

    It reads in the running event loop. An answer counts if it has the secret of this socket, which only those know who
    got a request. Making one raises OSError.
    """

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._secret = os.urandom(8)
        self._identifier = int.from_bytes(os.urandom(2))
        own = raw_echo_socket()
        try:
            own.setblocking(False)
            hear_only(own, self._identifier)
            own.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
            own.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(own, self._read)
        except BaseException:
            own.close()
            raise
        self._socket = own

    def send(self, index: int, neighbour: IPv6Address, number: int, size: int) -> None:
        """Send a packet of `size` bytes to a link-local address. One that cannot be sent is lost as others are."""
        body = _HEADER.pack(ECHO_REQUEST, 0, 0, self._identifier, number & 0xFFFF, self._secret, number)
        with suppress(OSError):
            self._socket.sendto(body.ljust(size - IPV6_HEADER, b"\0"), (str(neighbour), 0, 0, index))

    def close(self) -> None:
        """Close it. It must not be used afterwards."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data, source = self._socket.recvfrom(RECEIVED)
            except OSError:
                return
            if len(data) < _HEADER.size:
                continue
            kind, _, _, identifier, _, secret, number = _HEADER.unpack_from(data)
            if kind == ECHO_REPLY and identifier == self._identifier and secret == self._secret:
                self._answered(source[3], IPv6Address(source[0].partition("%")[0]), number)


def known_path_mtu(host: str) -> int | None:
    """What the kernel knows of the way to an address, in bytes of an IP packet; None where there is no way."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    level, option = (socket.IPPROTO_IPV6, 24) if family is socket.AF_INET6 else (socket.IPPROTO_IP, 14)  # *_MTU
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as own:
            own.connect((host, 9))  # sends nothing (RFC 863's port)
            return own.getsockopt(level, option)
    except OSError:
        return None
