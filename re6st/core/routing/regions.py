"""Regions of a network: parts in which every node knows each other one, while others know one route to them all.

A region is what the first bits of a prefix say, as many as the network has for it; with no bits, the network is flat:
it is one region. A node whose prefix is not longer than that is a region by itself, and is known everywhere as it is.

Each node tells babel of its region, as a route that is unreachable for itself, and takes from others the subnets of its
own region and what is not longer than a region. So of another region it has one route, to whoever is nearest there.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

from re6st.core.prefix import MAX_LENGTH, Prefix, PrefixError, subnet

ROUTE_PROTOCOL = 44
"""The kernel's number for who made a route: by it babel knows the route of our region, to tell others of it."""

LATELY = 600.0
"""Seconds in which others may still tell of regions of another length than those of now: not all hear of new ones at
one time, and who cannot reach the registry asks it again after five minutes."""


class RecentLengths:
    """How many bits regions have, and had lately. Times are of one clock that the caller reads."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def note(self, length: int, now: float) -> frozenset[int]:
        """All of them, with `length` that of now, 0 where the network is flat. None in one that long has been."""
        if length:
            self._until[length] = now + LATELY
        self._until = {each: until for each, until in self._until.items() if now < until}
        return frozenset(self._until)


def region_of(prefix: Prefix, length: int) -> Prefix:
    """The region that a node is in, or a region itself, where regions have so many bits."""
    excess = prefix.length - length
    return Prefix(prefix.value >> excess, length) if excess > 0 else prefix


def anycast_address(network: IPv6Network, region: Prefix) -> IPv6Address:
    """Where the nearest node of a region answers for it: the last address of the region, which no node has as its own.

    Each node of the region is to have it. Raises PrefixError if the region is one address.
    """
    net = subnet(network, region)
    if net.prefixlen > MAX_LENGTH - 2:
        raise PrefixError(f"{net} has no address that all its nodes could have")
    return net[-1]


def filters(network: IPv6Network, own: Prefix, length: int, longest: int) -> list[str]:
    """What a node takes, as lines of babeld's configuration: its region, and of all else what is no longer than one.

    `longest` is the length of the longest subnet. The first line that matches decides; the last one of the file is to
    deny all else.
    """
    first, plain = network.prefixlen + 1, "src-ip ::/0 src-eq 0"
    if not length:
        return [f"in ip {network} ge {first} le {longest} {plain} allow"]
    region = subnet(network, region_of(own, length))
    return [
        f"in ip {region} ge {region.prefixlen} le {longest} {plain} allow",
        f"in ip {network} ge {first} le {network.prefixlen + length} {plain} allow",
    ]


def not_installed(network: IPv6Network, own: Prefix, length: int) -> list[str]:
    """What a node takes, but keeps out of the kernel, as lines of babeld's configuration: others' ways to its region.

    babeld uses none while it tells of the region itself. But when it ceases to tell of anything, as of the region that
    was ours before, babeld 1.12 takes up its route to something else: to whatever of ours comes in that place.
    """
    region = own_region(own, length)
    if region is None:
        return []
    net = subnet(network, region)
    return [f"install ip {net} eq {net.prefixlen} deny"]


def own_region(own: Prefix, length: int) -> Prefix | None:
    """The region that a node has to tell of; None where the network is flat, or its own subnet says as much."""
    return region_of(own, length) if 0 < length < own.length else None


def announced(network: IPv6Network) -> str:
    """The line by which babeld tells others of a region, as long as the kernel has our route for it.

    It is the same in all networks, also flat ones. So nodes tell of their regions as soon as the network has them, and
    the filters, for which each babeld has to start anew, come afterwards.
    """
    return f"redistribute ip {network} ge {network.prefixlen + 1} proto {ROUTE_PROTOCOL}"
