"""Which of babel's routes the kernel has lost: babeld believes that they are installed, and never checks.

Somebody removed them (`ip -6 route flush proto babel`), or they went with an interface or an address.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from ipaddress import IPv4Network, IPv6Network

from re6st.core.routing.babel_lines import Table

Network = IPv4Network | IPv6Network
RouteKey = tuple[Network, Network]
"""The destination of a route, and the source of packets for which it is used."""

LASTING = 1.0
"""A route must be missing for so many seconds before it counts as lost: babeld removes routes before we read that it
did.
"""
_ANY = IPv6Network("::/0")


def installed(table: Table, networks: Collection[Network]) -> set[RouteKey]:
    """The routes that babeld believes to be in the kernel, if their destination or source is in these networks."""
    found: set[RouteKey] = set()
    for route in table.routes.values():
        if route.usable and (_within(route.destination, networks) or route.source in networks):
            found.add((route.destination, route.source))
    ipv4 = (route.destination for route in table.ipv4_routes.values() if route.usable)
    return found | {(destination, _ANY) for destination in ipv4 if _within(destination, networks)}


class LostRoutes:
    """Remembers which routes are missing, to find those that stay missing."""

    def __init__(self) -> None:
        self._since: dict[RouteKey, float] = {}

    @property
    def pending(self) -> bool:
        """Whether some were missing when we looked last."""
        return bool(self._since)

    def note(self, missing: Set[RouteKey], now: float) -> frozenset[RouteKey]:
        """These are missing now; returns those that have been missing for so long that they are lost. Times are in
        seconds.
        """
        self._since = {way: self._since.get(way, now) for way in missing}
        return frozenset(way for way, since in self._since.items() if now - since >= LASTING)


def _within(destination: Network, networks: Collection[Network]) -> bool:
    return any(
        destination.prefixlen >= network.prefixlen and destination.network_address in network for network in networks
    )
