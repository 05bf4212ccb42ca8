"""By which of several gateways each peer is reached (--remote-gateway, wire.md 10.4).

Gateways take turns. An address has one route however many tunnels use it. A peer that comes back after its tunnel ended
goes by another gateway, and one by which nobody was reached lately comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

BAD_TIME = 60.0
"""Seconds that a gateway is avoided by which a peer was not reached."""
REMEMBERED = 1000
"""Addresses whose last gateway is known."""


@dataclass(slots=True)
class _Use:
    gateway: IPv4Address | None = None
    """None: the way there is left as it was."""
    count: int = 0


class Gateways:
    """Which addresses are in use, and by which gateway. Times in seconds, of a clock that the caller reads."""

    def __init__(self, gateways: Sequence[IPv4Address]) -> None:
        self._gateways = tuple(dict.fromkeys(gateways))
        self._uses: dict[IPv4Address, _Use] = {}
        self._last: dict[IPv4Address, IPv4Address] = {}
        self._bad_until: dict[IPv4Address, float] = {}

    def __bool__(self) -> bool:
        """Whether there is a choice to make at all."""
        return bool(self._gateways)

    def candidates(self, ip: IPv4Address, now: float) -> list[IPv4Address]:
        """The gateways to try for an address, the best first; none if it is in use already."""
        if ip in self._uses:
            return []
        load = [use.gateway for use in self._uses.values()]
        return sorted(
            self._gateways,
            key=lambda gateway: (
                self._bad_until.get(gateway, now) > now,
                gateway == self._last.get(ip),
                load.count(gateway),
            ),
        )

    def take(self, ip: IPv4Address) -> None:
        """One user more."""
        self._uses.setdefault(ip, _Use()).count += 1

    def choose(self, ip: IPv4Address, gateway: IPv4Address | None) -> None:
        """An address in use is reached by this gateway now."""
        self._uses[ip].gateway = gateway
        if gateway is not None:
            self._last.pop(ip, None)
            self._last[ip] = gateway
            if len(self._last) > REMEMBERED:
                del self._last[next(iter(self._last))]

    def used(self, ip: IPv4Address) -> IPv4Address | None:
        """The gateway that an address in use is reached by."""
        return self._uses[ip].gateway if ip in self._uses else None

    def release(self, ip: IPv4Address) -> IPv4Address | None:
        """One user less; the gateway of the route to remove if it was the last one."""
        use = self._uses.get(ip)
        if use is None:
            return None
        use.count -= 1
        if use.count > 0:
            return None
        del self._uses[ip]
        return use.gateway

    def tried(self, ip: IPv4Address, now: float, *, reached: bool) -> None:
        """Whether the peer was reached there by the gateway in use."""
        use = self._uses.get(ip)
        if use is not None and use.gateway is not None:
            self._bad_until[use.gateway] = now if reached else now + BAD_TIME
