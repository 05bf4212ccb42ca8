"""The rooms of a machine's lines, and of those of its neighbours: what goes over which one once one is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Network

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.telemetry.report import Record
from re6st.linux.kernel import Kernel
from re6st.linux.nftables import Nft
from re6st.noded.handing import HandingMachine, HandingRoom, LinkOwners
from re6st.noded.incoming_shares import IncomingMachine, IncomingShares
from re6st.noded.line_shares import LineShares, ShareMachine, TunnelLines
from re6st.noded.line_words import LineEars, LineSocket, LineWords
from re6st.noded.link_counts import TableSource


@dataclass(frozen=True, slots=True)
class SharingParts:
    """Whose lines they are, and how all else is reached. Without `nft` everything goes as babel says."""

    network: IPv6Network
    own: Prefix
    routing: TableSource
    owners: LinkOwners
    kernel: Kernel
    nft: Nft | None
    lines: TunnelLines
    socket: LineSocket
    bulk_apart: Callable[[], bool]
    """Whether bulk traffic has a plane of its own now."""
    apart: IPv6Network | None = None
    """What has a source there goes over a line already, or is to: see noded/mptcp.py."""


@dataclass(frozen=True, slots=True)
class SharingRooms:
    """What this machine sends, what others send to it, and what it sends to others that have several lines."""

    outgoing: LineShares
    incoming: IncomingShares
    handing: HandingRoom
    ears: LineEars

    @classmethod
    def of(cls, given: SharingParts) -> SharingRooms:
        network, own, kernel, nft = given.network, given.own, given.kernel, given.nft
        words = LineWords(given.socket)
        outgoing = ShareMachine(given.lines, kernel, kernel.shares, nft, apart=given.apart)
        incoming = IncomingShares(network, own, IncomingMachine(given.lines, nft), words, given.bulk_apart)
        means = HandingMachine(kernel, kernel.handed, nft)
        handing = HandingRoom(network, own, given.routing, given.owners, means, words, given.bulk_apart)
        return cls(
            LineShares(network, own, given.routing, outgoing, given.bulk_apart),
            incoming,
            handing,
            LineEars(words, handing, incoming),
        )

    async def avoid(self, dead: frozenset[NextHop]) -> None:
        """These links are dead, and no others."""
        await self.handing.avoid(dead)
        await self.incoming.avoid(dead)
        await self.outgoing.avoid(dead)

    def record(self) -> Record:
        """For the operator."""
        return {
            "sharing": self.outgoing.record(),
            "incoming": self.incoming.record(),
            "handing": self.handing.record(),
        }
