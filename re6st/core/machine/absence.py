"""Addresses that this machine loses: for good, or for the seconds in which a DHCP client renews its lease.

A tunnel survives if its address is away for a few seconds. Closing it at once is better only if another address can
take over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

PATIENCE = 5.0
"""An address that has been away for so many seconds is lost for good."""


class Absences:
    """The addresses that may come back. Times are in seconds."""

    def __init__(self) -> None:
        self._until: dict[Address, float] = {}

    def note(
        self, lost: Collection[Address], there: Collection[Address], leading_out: Collection[Address], now: float
    ) -> frozenset[Address]:
        """The machine has `lost` some addresses and has those `there`, some of which have a route; returns those that
        are lost for good.

        If an address of the same family has a route, it replaces those that we wait for, too.
        """
        for address in lost:
            self._until.setdefault(address, now + PATIENCE)
        self._until = {address: until for address, until in self._until.items() if address not in there}
        families = {address.version for address in leading_out}
        return self._take(lambda address, _: address.version in families)

    def due(self, now: float) -> frozenset[Address]:
        """Those that did not come back in time."""
        return self._take(lambda _, until: until <= now)

    def _take(self, gone: Callable[[Address, float], bool]) -> frozenset[Address]:
        found = frozenset(address for address, until in self._until.items() if gone(address, until))
        for address in found:
            del self._until[address]
        return found
