"""Addresses of this machine that go away: for good, or for the seconds of a DHCP client that renews its lease.

A tunnel survives that its address is away for a few seconds. To leave it at once is better only where another address
can take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

PATIENCE = 5.0
"""Seconds until an address that is away is gone for good."""


class Absences:
    """Those that are waited for. Times in seconds."""

    def __init__(self) -> None:
        self._until: dict[Address, float] = {}

    def note(
        self, lost: Collection[Address], there: Collection[Address], leading_out: Collection[Address], now: float
    ) -> frozenset[Address]:
        """These were `lost`, and the others are `there`, of which some lead out; returns those that are gone for good.

        One of the same family that leads out takes the place of those that are waited for, too.
        """
        for address in lost:
            self._until.setdefault(address, now + PATIENCE)
        self._until = {address: until for address, until in self._until.items() if address not in there}
        families = {address.version for address in leading_out}
        return self._take(lambda address, _: address.version in families)

    def due(self, now: float) -> frozenset[Address]:
        """Those that were waited for in vain."""
        return self._take(lambda _, until: until <= now)

    def _take(self, gone: Callable[[Address, float], bool]) -> frozenset[Address]:
        found = frozenset(address for address, until in self._until.items() if gone(address, until))
        for address in found:
            del self._until[address]
        return found
