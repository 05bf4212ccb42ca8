"""The addresses of this machine, and which of them it uses to reach a host."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import netifaces

from re6st.core.machine.wanted_state import Address


def local_addresses() -> list[IPv4Address | IPv6Address]:
    """The global addresses of this machine, on all interfaces."""
    found: list[IPv4Address | IPv6Address] = []
    for interface in netifaces.interfaces():
        addresses = netifaces.ifaddresses(interface)
        for family in (netifaces.AF_INET, netifaces.AF_INET6):
            for entry in addresses.get(family, ()):
                with suppress(ValueError, KeyError):
                    ip = ip_address(entry["addr"].partition("%")[0])
                    if not ip.is_loopback and not ip.is_link_local and ip not in found:
                        found.append(ip)
    return found


def source_address(remote: str, mark: int = 0) -> Address | None:
    """Our address from which the kernel sends to `remote` what has this mark; None if it is not an address, or has no
    route.
    """
    try:
        ip = ip_address(remote)
        with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as own:
            if mark:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            own.connect((remote, 9))  # sends nothing (RFC 863's port)
            return ip_address(own.getsockname()[0].partition("%")[0])
    except (OSError, ValueError):
        return None
