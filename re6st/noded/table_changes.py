"""What follows from each change of babel's table: whoever lies is found out, and the policy sees the mesh as it is."""

from __future__ import annotations

import logging
from ipaddress import IPv6Network
from typing import Protocol

from re6st.core.machine.packet_rules import way_out
from re6st.core.mesh import policy
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.survey import Survey
from re6st.noded.contracts import PolicyInput

log = logging.getLogger(__name__)


class AnnouncementGuard(Protocol):
    """Who looks for those that announce what is not theirs."""

    def look(self) -> None: ...


class OutsideFilter(Protocol):
    """Who lets packets from outside come by the ways to the network's gateways."""

    async def lead_outside(self, exits: frozenset[NextHop]) -> None: ...


class SizesOfPackets(Protocol):
    """Who finds out how large packets may be on tunnels."""

    def follow(self, table: Table) -> None: ...


class WaysOverLines(Protocol):
    """Who has routes over each line of this machine."""

    def follow(self) -> None: ...


class PolicyDriver(PolicyInput, Protocol):
    """Who also knows whether this node is connected."""

    @property
    def connected(self) -> bool: ...


class TableChanges:
    """Follows the routing plane that the policy goes by."""

    def __init__(
        self,
        network: IPv6Network,
        guard: AnnouncementGuard,
        packet_filter: OutsideFilter,
        mtus: SizesOfPackets,
        driver: PolicyDriver,
        shares: WaysOverLines,
    ) -> None:
        self._network = network
        self._guard = guard
        self._filter = packet_filter
        self._mtus = mtus
        self._driver = driver
        self._shares = shares

    async def follow(self, table: Table, seen: Survey) -> None:
        """The table has changed, and says this of the mesh."""
        was = self._driver.connected
        if not seen.late:  # else an interface may have another peer by now than the table says
            self._guard.look()
        self._mtus.follow(table)
        self._shares.follow()
        await self._filter.lead_outside(way_out(table, self._network))
        self._driver.event(policy.Surveyed(seen))
        if self._driver.connected != was:
            log.info("connected to the network" if self._driver.connected else "the registry's node cannot be reached")
