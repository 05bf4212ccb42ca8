"""The WireGuard links with each peer, of which the policy of the mesh sees one: which carries the tunnel, and which are
beside it (further_links.py)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import INFINITY, NextHop
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_uapi import Address
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.wireguard import Reason
from re6st.noded.lane import Lane
from re6st.noded.link_counts import TableSource
from re6st.noded.link_table import KnownLink, host_of
from re6st.noded.wireguard import WireGuard


@dataclass(frozen=True, slots=True)
class LinkMember:
    """One of the links with a peer that are up; without a lane, the first one."""

    lane: Lane | None
    known: KnownLink
    link: WireGuardLink

    @property
    def interface(self) -> str:
        return self.link.interface

    @property
    def hop(self) -> NextHop:
        """By which babel has the peer there."""
        return NextHop(self.link.theirs.address, self.link.interface)

    @property
    def host(self) -> Address | None:
        """Where its other end was dialled."""
        return host_of(self.known.place)


class LinkGroups:
    """Those of the `first` links, and of the lanes. `line` tells over which of our lines the first link to a peer goes,
    `routing` whom babel meets where.
    """

    def __init__(
        self, first: WireGuard, lanes: Sequence[Lane], line: Callable[[Prefix], str], routing: TableSource
    ) -> None:
        self.carriers: dict[Prefix, Lane] = {}
        """On which lane the link is that carries our tunnel with a peer, where the first one has ended."""
        self._first = first
        self._lanes = lanes
        self._line = line
        self._routing = routing

    def all(self) -> dict[tuple[Prefix, Role], list[LinkMember]]:
        """By peer, and at which end of its links we are: those that are up, first the one that carries the tunnel."""
        found: dict[tuple[Prefix, Role], list[LinkMember]] = {}
        for role in Role:
            peers = dict.fromkeys(self._first.table.of(role))
            for lane in self._lanes:
                peers |= dict.fromkeys(lane.table.of(role))
            found |= {(peer, role): members for peer in peers if (members := self.of(peer, role))}
        return found

    def of(self, peer: Prefix, role: Role) -> list[LinkMember]:
        """Those with one peer at whose end we have this role."""
        known: list[tuple[Lane | None, KnownLink | None]] = [(None, self._first.table.of(role).get(peer))]
        known += [(lane, lane.table.of(role).get(peer)) for lane in self._lanes]
        found = [
            LinkMember(lane, each, each.link) for lane, each in known if each is not None and each.link is not None
        ]
        carrier = self.carriers.get(peer) if role is Role.CLIENT else None
        return sorted(found, key=lambda each: carrier is not None and each.lane is not carrier)

    def own(self) -> Iterator[tuple[Prefix, list[LinkMember]]]:
        """Of those that we opened."""
        return ((peer, members) for (peer, role), members in self.all().items() if role is Role.CLIENT)

    def as_one(self) -> dict[str, NextHop]:
        """The interfaces of links beside another one with the same peer, and the neighbour that they count as."""
        found: dict[str, NextHop] = {}
        if not any(lane.table.ours or lane.table.served for lane in self._lanes):
            return found
        for one, *others in self.all().values():
            found |= {other.interface: one.hop for other in others}
        return found

    def heir(self, peer: Prefix, role: Role, retiring: Container[str]) -> LinkMember | None:
        """A further link that is to carry the tunnel with a peer: one that is not on an interface that is retiring, and
        on which babel meets it, if there is one.
        """
        found = [each for each in self.of(peer, role) if each.lane is not None]
        names = self.met()
        return max(found, key=lambda each: (each.interface not in retiring, each.interface in names), default=None)

    def line(self, member: LinkMember) -> str:
        """Over which of our lines a link goes that we opened."""
        return self._line(member.link.peer) if member.lane is None else member.known.line

    def is_met(self, interface: str) -> bool:
        """Whether babel meets somebody on an interface."""
        return interface in self.met()

    def met(self) -> set[str]:
        """Where babel meets somebody."""
        return {each.interface for each in self._routing.table.neighbours.values() if each.cost < INFINITY}

    def end(self, member: LinkMember, reason: Reason, why: str) -> None:
        """End one link: `reason` is for the peer, and `why` for people."""
        closing = self._first if member.lane is None else member.lane
        closing.close(member.link.peer, reason, why)
