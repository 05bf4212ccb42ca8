"""Notices changes of this machine's addresses, links and routes: the kernel reports them as they happen (rtnetlink(7)).

Only the fact that something changed is taken from here. The present state is read again, so that no message can
mislead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from re6st.core.machine.wanted_state import RTPROT_BABEL, RTPROT_RE6ST
from re6st.linux.socket_filter import ALL, IS_EQUAL, LOAD_BYTE, NOTHING, attach

RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE = 0x40, 0x400
RTM_NEWROUTE, RTM_DELROUTE, NLMSG_HDRLEN = 24, 25, 16
_LOW_BYTE_OF_TYPE = 4 if sys.byteorder == "little" else 5
SIZE = 65536
SETTLE = 0.2
"""Changes are collected for so many seconds, since they come in groups: an address after its link, a route after both.
"""


def open_netlink() -> socket.socket:
    """A socket to which the kernel writes when a link or an address changes. Raises OSError."""
    return listening(socket.NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)


def open_routes() -> socket.socket:
    """A socket to which the kernel writes when a route changes too. With a link or an address routes go untold."""
    addresses = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
    return listening(socket.NETLINK_ROUTE, addresses | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE)


def open_default_routes() -> socket.socket:
    """A socket to which the kernel writes when a link, an address or a default route changes, but those of ours.

    Of all routes it would tell of each that babel changes. Raises OSError.
    """
    return _filtered(open_routes(), _default_routes())


def open_babel_routes() -> socket.socket:
    """A socket to which the kernel writes when a link changes, or a route of a babeld. Raises OSError."""
    sock = listening(socket.NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE)
    return _filtered(sock, _babel_routes())


def _filtered(sock: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> socket.socket:
    """The socket, which the kernel tells only what the filter lets pass. Raises OSError, and closes it then."""
    try:
        attach(sock, program)
    except OSError:
        sock.close()
        raise
    return sock


def _babel_routes() -> Sequence[tuple[int, int, int, int]]:
    """By the type of a message, and by the protocol of the route in it."""
    return (
        (LOAD_BYTE, 0, 0, _LOW_BYTE_OF_TYPE),
        (IS_EQUAL, 1, 0, RTM_NEWROUTE),
        (IS_EQUAL, 0, 2, RTM_DELROUTE),
        (LOAD_BYTE, 0, 0, NLMSG_HDRLEN + 5),
        (IS_EQUAL, 0, 1, RTPROT_BABEL),
        ALL,
        NOTHING,
    )


def _default_routes() -> Sequence[tuple[int, int, int, int]]:
    """By the type of a message, and by the length and the protocol of the route in it (linux/rtnetlink.h)."""
    return (
        (LOAD_BYTE, 0, 0, _LOW_BYTE_OF_TYPE),
        (IS_EQUAL, 1, 0, RTM_NEWROUTE),
        (IS_EQUAL, 0, 5, RTM_DELROUTE),
        (LOAD_BYTE, 0, 0, NLMSG_HDRLEN + 1),
        (IS_EQUAL, 0, 4, 0),
        (LOAD_BYTE, 0, 0, NLMSG_HDRLEN + 5),
        (IS_EQUAL, 2, 0, RTPROT_RE6ST),
        (IS_EQUAL, 1, 0, RTPROT_BABEL),
        ALL,
        NOTHING,
    )


def listening(protocol: int, groups: int) -> socket.socket:
    """A socket for what the kernel tells these groups of a protocol of netlink, each of which is a bit."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    try:
        sock.setblocking(False)
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


async def changes(make: Callable[[], socket.socket] = open_netlink) -> AsyncGenerator[None, None]:
    """Yields once at the start, then after each group of changes. Raises OSError if there can be no such socket."""
    loop = asyncio.get_running_loop()
    with make() as sock:
        yield
        while True:
            with _overflow_is_news():
                await loop.sock_recv(sock, SIZE)
            await asyncio.sleep(SETTLE)
            with contextlib.suppress(BlockingIOError):
                while True:
                    with _overflow_is_news():
                        sock.recv(SIZE)
            yield


@contextlib.contextmanager
def _overflow_is_news() -> Iterator[None]:
    """There were more messages than the socket can hold: it does not matter which ones."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
