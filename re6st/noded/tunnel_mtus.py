"""Tunnels over UDP are asked how large packets may be on them. Those over TCP carry every size, in pieces.

WireGuard links have other sizes, and noded/wireguard.py asks them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Protocol

from re6st.core.routing.babel_lines import Table
from re6st.core.telemetry.report import Link
from re6st.core.tunnel_protocols import TunnelCarrier, TunnelProtocol


class SizeLimits(Protocol):
    """How large packets on tunnels may be: noded/settings.py."""

    def tunnel_mtu(self, protocol: TunnelProtocol) -> int | None: ...


class SizesInForce(Protocol):
    """Who has the settings of now."""

    @property
    def effective(self) -> SizeLimits: ...


class TunnelList(Protocol):
    """Who knows all tunnels."""

    def links(self) -> Iterable[Link]: ...


class SizeProber(Protocol):
    """See transport.link_mtu.LinkMtus."""

    def watch(self, interface: str, address: IPv6Address, sizes: Iterable[int]) -> None: ...

    def forget(self, interface: str, address: IPv6Address | None = None) -> None: ...


class TunnelMtus:
    """Has those neighbours of babel asked that are behind tunnels over UDP."""

    def __init__(self, tunnels: TunnelList, mtus: SizeProber, in_force: SizesInForce) -> None:
        self._tunnels = tunnels
        self._mtus = mtus
        self._in_force = in_force
        self._asked: set[tuple[str, IPv6Address]] = set()

    def follow(self, table: Table) -> None:
        """The table has changed."""
        tops: dict[str, int] = {}
        for link in self._tunnels.links():
            if link.interface and link.protocol is not None and link.carrier is not TunnelCarrier.WIREGUARD:
                top = self._in_force.effective.tunnel_mtu(link.protocol)
                if top is not None:
                    tops[link.interface] = top
        found = {(each.interface, each.address) for each in table.neighbours.values() if each.interface in tops}
        for interface, address in self._asked - found:
            self._mtus.forget(interface, address)
            self._asked.discard((interface, address))
        for interface, address in found - self._asked:
            with suppress(OSError):  # gone meanwhile
                self._mtus.watch(interface, address, (tops[interface],))
                self._asked.add((interface, address))
