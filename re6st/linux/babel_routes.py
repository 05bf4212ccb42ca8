"""The routes in our networks that a babeld gave the kernel.

There may be ten thousands of them, so each question has a socket of its own, and can be asked beside the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv6Network

from re6st.core.machine.wanted_state import RTN_UNICAST, AddressPlan, Network, Route
from re6st.linux.kept_state import family_of
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import Netlink

RTPROT_BABEL = 42

_ANY = IPv6Network("::/0")


@dataclass(frozen=True, slots=True)
class Installed:
    """The routes of a babeld that the kernel has."""

    ways: frozenset[tuple[Network, Network]]
    """Where they lead to, for packets from where."""
    sourceless: tuple[Route, ...]
    """Those that have lost our address as their source, as they are to be."""


def _of_babel(netlink: Netlink, plan: AddressPlan, table: int | None) -> Iterator[Route]:
    """The routes in a network of ours that a babeld made, in one table or in all."""
    network = plan.network
    for route in netlink.routes(family_of(network), protocol=RTPROT_BABEL):
        length = route.destination.prefixlen
        inside = length >= network.prefixlen and route.destination.network_address in network
        # A way to the Internet through a gateway is for our sources only (wire.md 9.3).
        if (inside or route.source == network) and table in (None, route.table):
            yield route


def ways(plans: Iterable[AddressPlan], table: int | None) -> dict[tuple[Network, Network], int]:
    """See Kernel.babel_routes."""
    found: dict[tuple[Network, Network], int] = {}
    with closing(Netlink()) as netlink:
        for plan in plans:
            # Where a way was lost, babeld has an unreachable route, of the last priority there is.
            for route in _of_babel(netlink, plan, table):
                if route.type == RTN_UNICAST:
                    way = route.destination, route.source or _ANY
                    found[way] = max(found.get(way, 0), route.priority or 0)
    return found


def installed(plans: Iterable[AddressPlan], priority: int, table: int | None) -> Installed:
    """See Kernel.installed."""
    ways: set[tuple[Network, Network]] = set()
    sourceless = []
    with closing(Netlink()) as netlink:
        for plan in plans:
            for route in _of_babel(netlink, plan, table):
                if route.priority == priority:
                    ways.add((route.destination, route.source or _ANY))
                    # A route of IPv4 goes away with the address.
                    is_ipv6 = plan.network.version == 6
                    if is_ipv6 and route.preferred is None and route.type == RTN_UNICAST:
                        sourceless.append(replace(route, preferred=plan.address))
    return Installed(frozenset(ways), tuple(sourceless))


def sweep(
    plans: Iterable[AddressPlan],
    priority: int | None = None,
    only: Set[tuple[Network, Network]] | None = None,
    table: int | None = None,
) -> list[Route]:
    """See Kernel.sweep; without a `priority` none stays. Returns those that it removed."""
    removed = []
    with closing(Netlink()) as netlink:
        for plan in plans:
            for route in _of_babel(netlink, plan, table):
                if priority is not None and route.priority == priority:
                    continue
                if only is not None and (route.destination, route.source or _ANY) not in only:
                    continue
                with suppress(NetlinkError):
                    netlink.delete_route(route)
                    removed.append(route)
    return removed
