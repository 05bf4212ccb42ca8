"""Finds the hardware address of a neighbour whose link-local address is not made from it.

Linux makes one from the other, unless it is told not to (addr_gen_mode), or somebody gives an interface another
address. A member must not be able to stay unknown in this way.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Protocol

from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.claims import hardware_address
from re6st.linux.netlink import NetlinkError

REMEMBERED = 1000
ASKED = 20
"""Neighbours that are looked for at one time: each costs a packet to all clients of a server."""


@lru_cache(REMEMBERED)
def _by_address(hop: NextHop) -> str:
    """What its address is made from; empty where that is nothing. It is asked for many times a second."""
    return hardware_address(hop.address) or ""


class Neighbours(Protocol):
    """Neighbour discovery by the kernel, as in rtnetlink.Netlink. Each method raises NetlinkError."""

    def neighbours(self) -> dict[tuple[int, IPv6Address], str]:
        """Hardware addresses by interface and address."""

    def find_neighbour(self, ip: IPv6Address, index: int) -> None:
        """Make the kernel look for a neighbour."""


class Hardware:
    """Remembers what neighbour discovery (RFC 4861) found. `netlink` may be None if there is no kernel to ask."""

    def __init__(self, netlink: Neighbours | None) -> None:
        self._netlink = netlink
        self._found: dict[NextHop, str] = {}

    def __getitem__(self, hop: NextHop) -> str:
        """Empty if it is not known yet."""
        return _by_address(hop) or self._found.get(hop, "")

    def find(self, hops: Iterable[NextHop]) -> None:
        """Look for those that cannot be told from their address. Others may be found next time."""
        wanted = [hop for hop in hops if hardware_address(hop.address) is None]
        if wanted and self._netlink is not None:
            with suppress(NetlinkError):
                self._find(self._netlink, wanted)

    def _find(self, netlink: Neighbours, wanted: Collection[NextHop]) -> None:
        there, asked = netlink.neighbours(), 0
        for hop in wanted:
            try:
                index = socket.if_nametoindex(hop.interface)
            except OSError:
                continue
            if hardware := there.get((index, hop.address)):
                self._found.pop(hop, None)
                self._found[hop] = hardware
            elif asked < ASKED:
                asked += 1
                netlink.find_neighbour(hop.address, index)
        while len(self._found) > REMEMBERED:
            del self._found[next(iter(self._found))]
