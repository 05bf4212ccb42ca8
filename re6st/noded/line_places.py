"""What the ends of WireGuard links tell each other of their lines (core/wire/further_links.py): where each is reached,
so that further links go over it; and where a link is dialled, so that the other end knows over which of its lines it
comes. Who has one line tells nothing, unless it is asked by what the other end tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from typing import Protocol

from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.core.prefix import Prefix
from re6st.core.transport.further_links import Telling
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.further_links import LINES_LIMIT, Address, LineAddresses
from re6st.noded.link_counts import TableSource
from re6st.noded.link_groups import LinkGroups


class BabelSource(TableSource, Protocol):
    """Whose table it is: a routing plane, with one babeld after another."""

    @property
    def age(self) -> float | None:
        """How many seconds ago babeld knew what the table says; None while no babeld tells it."""

    @property
    def priority(self) -> int:
        """Of the routes of the babeld of now: each has another one."""

    def read_soon(self) -> None:
        """Something follows from the table."""


@dataclass(frozen=True, slots=True)
class Here:
    """What is known of this machine. `places` are our endpoints, as we tell them to peers."""

    lines: UplinkChoice
    table: BabelSource
    places: Callable[[], Iterable[Endpoint]]


class LinePlaces:
    """For one node, in this network."""

    def __init__(self, groups: LinkGroups, here: Here, network: IPv6Network) -> None:
        self._groups = groups
        self._here = here
        self._network = network
        self._telling = Telling()
        self._told: dict[Prefix, tuple[Address, ...]] = {}

    def of(self, peer: Prefix) -> tuple[Address, ...]:
        """Where a peer says that its lines are."""
        return self._told.get(peer, ())

    def learn(self, peer: Prefix, places: LineAddresses) -> None:
        """Take what a peer says. Only of who has a link with us is anything kept."""
        if self._groups.of(peer, Role.CLIENT):
            self._told[peer] = tuple(ip for ip in places.lines if ip not in self._network)
        dialled = dict(places.dialled)
        for member in self._groups.of(peer, Role.SERVER):
            if (at := dialled.get(member.link.number)) is not None:
                over = (each.name for each in self._here.lines.up().values() if at in each.addresses)
                member.known.line = next(over, "")

    def keep(self, peers: Set[Prefix]) -> None:
        """Forget all others."""
        self._told = {peer: each for peer, each in self._told.items() if peer in peers}
        self._telling.keep(peers)

    def due(self, may_hear: Callable[[Prefix], bool], now: float) -> list[tuple[Prefix, LineAddresses]]:
        """Whom to tell what now."""
        found: dict[Prefix, LineAddresses] = {}
        for (peer, role), members in self._groups.all().items():
            told = found.get(peer, LineAddresses())
            if role is Role.SERVER:
                found[peer] = replace(told, lines=self._reached_at())
            elif self.of(peer):
                dialled = [(each.link.number, each.host) for each in members if each.host is not None]
                found[peer] = replace(told, dialled=tuple(dialled))
        news = [(peer, each) for peer, each in found.items() if each != LineAddresses() or self._telling.knows(peer)]
        return [(peer, each) for peer, each in news if may_hear(peer) and self._telling.due(peer, each, now)]

    def _reached_at(self) -> tuple[Address, ...]:
        """Where others reach our lines: an address of each, if there are several."""
        known = {each.host for each in self._here.places()}
        up = self._here.lines.up().values()
        found = [ip for each in up for ip in [ip for ip in each.addresses if str(ip) in known][:1]]
        return tuple(found[:LINES_LIMIT]) if len(found) > 1 else ()
