"""What the nodes of a simulation are called, where they are, and the names of their interfaces."""

from __future__ import annotations

from functools import cache
from ipaddress import IPv6Address

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint

LENGTH = 16
"""Bits of each prefix."""


@cache
def prefix_of(number: int) -> Prefix:
    """The node with this number, from 0 to 65535."""
    return Prefix(number, LENGTH)


def name(peer: Prefix) -> str:
    """The interface of a tunnel that leads to a peer."""
    return f"t{peer.value}"


def server_name(client: Prefix) -> str:
    """The interface on which a server meets a client: each has its own, unlike with OpenVPN."""
    return f"s{client.value}"


def endpoints(peer: Prefix) -> tuple[Endpoint, ...]:
    """Where its server listens."""
    value = peer.value
    return (Endpoint(f"10.{value >> 16}.{value >> 8 & 255}.{value & 255}", 1194, TunnelProtocol.TCP),)


def hop(peer: Prefix, interface: str) -> NextHop:
    """The next hop of routes through a neighbour."""
    return NextHop(IPv6Address(0xFE80 << 112 | peer.value), interface)
