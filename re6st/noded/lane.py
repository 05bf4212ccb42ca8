"""The further WireGuard links of a node on one lane: one with each peer, beside the first one (further_links.py)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from re6st.core.prefix import Prefix
from re6st.core.telemetry import report
from re6st.core.transport.link_records import LinkRecord, PeerIdentity
from re6st.core.transport.wireguard_agreement import Agreement
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_state import Ended, LinkSettings
from re6st.core.transport.wireguard_uapi import Address
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.further_links import OnLane, encode
from re6st.core.wire.peer_table import Peer
from re6st.core.wire.wireguard import Reason
from re6st.linux.wireguard import Implementation, WireGuardKernel
from re6st.noded.contracts import LinkEnd
from re6st.noded.link_interfaces import LinkInterfaces
from re6st.noded.link_table import KnownLink, LinkTable, known_of, report_of
from re6st.transport.wireguard import WireGuardLinks

log = logging.getLogger(__name__)


class LaneRoom(Protocol):
    """The room of all lanes."""

    def say(self, peer: Prefix, body: bytes) -> None:
        """Send a message about further links, if the peer takes them now."""

    def admits(self, peer: Prefix) -> bool:
        """Whether a peer may open a further link to us."""

    def identity(self, peer: Prefix) -> PeerIdentity | None:
        """Whose certificate is at the other end of the links with a peer that dialled us."""

    def session(self, peer: Prefix) -> Peer | None: ...

    def open_ports(self) -> None:
        """Other ports are to be open for clients."""

    def came_up(self, lane: Lane, known: KnownLink) -> None:
        """A link is up."""

    def ended(self, lane: Lane, ended: Ended, known: KnownLink | None) -> None:
        """There is none with a peer any more, or none came up. `known` is what was known of it."""


class Lane:
    """See transport.wireguard.LinkOwner."""

    def __init__(
        self,
        number: int,
        room: LaneRoom,
        own: Prefix,
        run: Path,
        interfaces: LinkInterfaces,
        machine: tuple[Implementation, WireGuardKernel],
        start: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        beside: Callable[[], Iterable[Agreement]],
    ) -> None:
        self.number = number
        self.table = LinkTable(run)
        self._room = room
        self._interfaces = interfaces
        self._why: dict[Prefix, str] = {}
        self.links = WireGuardLinks(own, LinkSettings((), ()), *machine, self, start, beside)

    def use(self, settings: LinkSettings) -> None:
        """Later links have these."""
        self.links.agreement.settings = settings

    def known(self, role: Role) -> Iterator[tuple[Prefix, KnownLink, WireGuardLink]]:
        """Those that are up, at whose end we have this role."""
        for peer, each in list(self.table.of(role).items()):
            if each.link is not None:
                yield peer, each, each.link

    def link(self, peer: Prefix, role: Role) -> WireGuardLink | None:
        """That with a peer which is up."""
        known = self.table.of(role).get(peer)
        return None if known is None else known.link

    def is_free(self, peer: Prefix) -> bool:
        """Whether one may be opened to a peer: there is none, nor an attempt to have one, nor did one just fail."""
        agreement = self.links.agreement
        return peer not in self.table.ours and agreement.phase(peer) is None and agreement.paused(peer, _now()) is None

    def ends(self) -> list[LinkEnd]:
        return self.table.ends()

    def reports(self) -> list[report.Link]:
        """For the operator."""
        found = [*self.known(Role.CLIENT), *self.known(Role.SERVER)]
        return [report_of(peer, each, link, self.links.seen(link.interface)) for peer, each, link in found]

    def open(self, peer: Prefix, known: KnownLink, names: Sequence[str]) -> bool:
        """Open one to a peer: `known` says where, over which line, and with which mark. Whether that is tried."""
        interface = self.table.free(names, {end.interface for end in self.ends()} | self.links.interfaces)
        if interface is None:
            return False
        known.lane = self.number
        self.table.ours[peer] = known
        tried = self.links.open(peer, interface)
        if not tried:
            self.table.ours.pop(peer, None)
        return tried

    def close(self, peer: Prefix, reason: Reason, why: str, *, tell: bool = True) -> None:
        """End that with a peer, if there is one: `reason` is for the peer, and `why` for people."""
        self._why[peer] = why
        self.links.close(peer, reason, tell=tell)
        self._why.pop(peer, None)

    def go_on(self, found: Iterable[LinkRecord]) -> list[LinkRecord]:
        """Go on with what an earlier daemon left; returns what there is of it."""
        found = list(found)
        for record in found:
            self.table.of(record.link.role)[record.peer] = known_of(record)
        keyed = ((each.link, each.process, self.table.of(each.link.role)[each.peer].keyed) for each in found)
        self.links.resume(keyed)
        there = [each for each in found if self.links.agreement.phase(each.peer) is not None]
        for record in there:
            self._interfaces.keep_up(record.link)
            self._interfaces.watch(record.link)
        for record in found:
            if record not in there:
                self.table.drop(record)
        return there

    # -- transport.wireguard.LinkOwner --

    def say(self, peer: Prefix, body: bytes) -> None:
        """Send a message about the link on this lane."""
        self._room.say(peer, encode(OnLane(self.number, body)))

    def admits(self, peer: Prefix) -> bool:
        """Whether a peer may open one to us."""
        return self._room.admits(peer)

    def hosts(self, peer: Prefix) -> Sequence[Address]:
        """Where its line is reached."""
        return self.table.hosts(peer)

    def mark(self, peer: Prefix) -> int:
        """That of our line."""
        return self.table.mark(peer)

    def made(self, interface: str) -> None:
        """Take an interface for one of ours. Raises OSError."""
        self._interfaces.take(interface)
        self._room.open_ports()

    async def leaving(self, interface: str) -> None:
        """Tell babel that nobody is behind an interface, which is about to go."""
        self.table.forget(interface)
        await self._interfaces.leave(interface)

    def up(self, link: WireGuardLink, process: tuple[int, str] | None) -> None:
        """A link is up, or has other keys."""
        table = self.table.of(link.role)
        if (known := table.get(link.peer)) is None:
            identity = self._room.identity(link.peer)
            if identity is None or not self._room.admits(link.peer):
                self.close(link.peer, Reason.CLOSED, "it has no tunnel any more")
                return
            known = table[link.peer] = KnownLink(identity, None, _now(), _now(), lane=self.number)
        is_new, known.link, known.process, known.keyed = known.link is None, link, process, _now()
        self._interfaces.keep_up(link)
        if is_new:
            known.since = _now()
        self.table.note(known)
        if not is_new:
            log.info("a further WireGuard link with %s has other keys", link.peer)
            return
        self._interfaces.watch(link)
        over = f", over {known.line}" if known.line else ""
        log.info("another WireGuard link with %s is up%s, on %s", link.peer, over, link.interface)
        self._room.came_up(self, known)

    def confirmed(self, link: WireGuardLink) -> None:
        """The peer has this link."""
        if (known := self.table.of(link.role).get(link.peer)) is not None:
            self.table.confirm(known, self._room.session(link.peer))

    def met(self, link: WireGuardLink, moved: bool) -> None:
        """Nothing moves to it from another one: that is left to babel."""

    def ended(self, ended: Ended) -> None:
        """There is no link with a peer any more, or none came up."""
        self.table.forget(ended.interface)
        why = self._why.pop(ended.peer, ended.reason.words)
        if ended.role is Role.CLIENT or ended.was_up:
            level = logging.INFO if ended.was_up else logging.DEBUG
            log.log(level, "the further WireGuard link with %s on %s ended: %s", ended.peer, ended.interface, why)
        self._room.ended(self, ended, self.table.of(ended.role).pop(ended.peer, None))


def _now() -> float:
    return time.monotonic()
