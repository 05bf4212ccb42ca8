"""A UDP socket that tells for each datagram to which address it was sent, and on which interface it came (RFC 3542).

Linux accepts packets for any of its addresses on any interface, so the source alone does not say much.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Address

AT_ONCE = 32
"""After so many datagrams in a row, other tasks have their turn."""
SIZE = 1 << 16
_PKTINFO = struct.Struct("16si")

Received = Callable[[bytes, tuple[str, int], IPv6Address, str], None]
"""Called with a datagram, its source, its destination and the name of the interface."""

log = logging.getLogger(__name__)


def tell_destinations(own: socket.socket) -> None:
    """Make a socket tell destinations and interfaces. Call this before it is bound, so that no datagram lacks them."""
    own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


class DatagramSocket:
    """Reads a socket that was prepared by `tell_destinations`, in the running event loop. `close` closes it, too."""

    def __init__(self, own: socket.socket, received: Received) -> None:
        self._socket = own
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(own, self._read)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def is_closing(self) -> bool:
        return self._socket.fileno() < 0

    def sendto(self, data: bytes, to: tuple[str, int]) -> None:
        """Send if possible: an unreachable peer is not worth a message, and datagrams that do not fit into the queue
        are lost.
        """
        try:
            self._socket.sendto(data, to)
        except OSError as error:
            log.debug("udp to %s: %s", to[0], error)

    def close(self) -> None:
        if not self.is_closing():
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            if self.is_closing():
                return
            try:
                data, ancillary, _, source = self._socket.recvmsg(SIZE, socket.CMSG_SPACE(_PKTINFO.size))
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error about something that we sent
                log.debug("udp: %s", error)
                continue
            for level, kind, value in ancillary:
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(value) == _PKTINFO.size:
                    destination, index = _PKTINFO.unpack(value)
                    self._received(data, (source[0], source[1]), IPv6Address(destination), _name(index))


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it is gone
        return ""
