"""The protocols over which tunnels run, as --pp, address lists and notes name them (wire.md 6.6, 8.1).

Other modules ask the fields of a protocol for its IP version and transport; only this module reads the names.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Literal

Family = Literal[4, 6]
"""A version of IP."""


class Transport(StrEnum):
    """What carries the packets of a tunnel."""

    UDP = "udp"
    TCP = "tcp"


class TunnelCarrier(StrEnum):
    """What a tunnel is."""

    OPENVPN = "openvpn"
    WIREGUARD = "wireguard"


class Role(Enum):
    """One of the two ends of a tunnel."""

    SERVER = "server"
    CLIENT = "client"


class TunnelProtocol(StrEnum):
    """A transport over a version of IP. IPv4 has two names: a peer that told us `udp4` is told the same name.

    `TunnelProtocol(name)` raises ValueError for an unknown name; its text is the name.
    """

    UDP = "udp"
    TCP = "tcp"
    UDP4 = "udp4"
    TCP4 = "tcp4"
    UDP6 = "udp6"
    TCP6 = "tcp6"

    @property
    def transport(self) -> Transport:
        return _FIELDS[self][0]

    @property
    def family(self) -> Family:
        return _FIELDS[self][1]

    @property
    def served(self) -> TunnelProtocol:
        """The name for --pp and --disable-proto, which know one name for each."""
        return _SERVED[self.transport, self.family]


_FIELDS: dict[TunnelProtocol, tuple[Transport, Family]] = {
    TunnelProtocol.UDP: (Transport.UDP, 4),
    TunnelProtocol.TCP: (Transport.TCP, 4),
    TunnelProtocol.UDP4: (Transport.UDP, 4),
    TunnelProtocol.TCP4: (Transport.TCP, 4),
    TunnelProtocol.UDP6: (Transport.UDP, 6),
    TunnelProtocol.TCP6: (Transport.TCP, 6),
}

SERVED = TunnelProtocol.UDP, TunnelProtocol.TCP, TunnelProtocol.UDP6, TunnelProtocol.TCP6
"""The protocols that a server of ours may have."""

_SERVED = {(each.transport, each.family): each for each in SERVED}


def named(text: str) -> TunnelProtocol | None:
    """The protocol of this name; None if there is no such protocol."""
    try:
        return TunnelProtocol(text)
    except ValueError:
        return None
