"""A packet to all nodes of a link (RFC 4291 section 2.7.1)."""

from __future__ import annotations

import socket
from contextlib import suppress

ALL_NODES, DISCARD = "ff02::1", 9
"""The group, and a port on which nobody listens (RFC 863)."""


def send_to_all_nodes(interface: str) -> None:
    """Send an empty datagram to all nodes of the link of an interface; where that cannot be, nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        own.setblocking(False)
        own.sendto(b"", (ALL_NODES, DISCARD, 0, socket.if_nametoindex(interface)))
