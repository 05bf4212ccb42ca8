"""What the kernel shall have of a node, as data, and what is to be done where it has something else."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """What this machine shall have in a network: our address in it, and where nothing leaks to."""

    network: Network
    address: Address
    length: int
    """Of the prefix that our address brings a route for."""
    unreachable: tuple[Network, ...]
