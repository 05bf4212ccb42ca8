"""Which WireGuard links a node has, and with whom: what the operator, other rooms and the next daemon know of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from re6st.core.prefix import Prefix
from re6st.core.telemetry import report
from re6st.core.transport.link_records import LinkRecord, PeerIdentity
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_uapi import Address, LinkState
from re6st.core.tunnel_protocols import Role, TunnelCarrier, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.peer_table import Peer
from re6st.core.wire.sessions import Sessions
from re6st.core.wire.wireguard import has_none
from re6st.noded.contracts import LinkEnd
from re6st.noded.takeover import Records, monotonic, since_1970


@dataclass(slots=True)
class KnownLink:
    """What we know of a link that is up, or of who is to have one: then `link` is None."""

    identity: PeerIdentity
    place: Endpoint | None
    """Where the tunnel that it replaces led to, or came from."""
    since: float
    keyed: float
    """When the keys that the link has were made."""
    link: WireGuardLink | None = None
    process: tuple[int, str] | None = None
    mark: int = 0
    """What the packets of the tunnel that it replaces are marked with, and its own."""
    lane: int = 0
    """That of a link beside the first one with a peer."""
    line: str = ""
    """Which line of ours it goes over, where that is known. Of a first link that we opened others know it."""


def host_of(place: Endpoint | None) -> Address | None:
    """The address of a place, where it has one."""
    with suppress(ValueError):
        return None if place is None else ip_address(place.host)
    return None


class LinkTable:
    """All of them, by peer. Each that is up is noted for the next daemon, in the run directory."""

    def __init__(self, run: Path) -> None:
        self._records = Records(run)
        self.ours: dict[Prefix, KnownLink] = {}
        """Of peers whom we dialled."""
        self.served: dict[Prefix, KnownLink] = {}
        """Of those who dialled us."""
        self._given: dict[str, None] = {}
        """Names that interfaces of ours have had, the latest last."""

    def hosts(self, peer: Prefix) -> Sequence[Address]:
        """Where a peer whom we dialled was reached; see transport.wireguard.LinkOwner."""
        found = host_of(self.ours[peer].place) if peer in self.ours else None
        return () if found is None else (found,)

    def mark(self, peer: Prefix) -> int:
        """What packets to a peer whom we dialled are marked with; see transport.wireguard.LinkOwner."""
        return self.ours[peer].mark if peer in self.ours else 0

    def of(self, role: Role) -> dict[Prefix, KnownLink]:
        """Those at whose end we have this role."""
        return self.ours if role is Role.CLIENT else self.served

    def ends(self) -> list[LinkEnd]:
        """Who is at the other ends of those that are up."""
        known = [*self.ours.items(), *self.served.items()]
        return [LinkEnd(peer, each.link.interface, each.identity) for peer, each in known if each.link is not None]

    def served_by(self, protocol: TunnelProtocol, besides: Iterable[Prefix]) -> int:
        """How many links took the place of tunnels to a server of ours, some peers left out."""
        left_out = frozenset(besides)
        return sum(self.is_served(peer, protocol) for peer in self.served if peer not in left_out)

    def is_served(self, peer: Prefix, protocol: TunnelProtocol) -> bool:
        """Whether a link with a peer took the place of its tunnel to a server of ours."""
        known = self.served.get(peer)
        if known is None or known.link is None:
            return False
        return known.place is not None and known.place.protocol is protocol

    def free(self, names: Iterable[str], used: Container[str]) -> str | None:
        """The name for the interface of a new link of ours: one that was never there, else the one that was given
        longest ago. For a name that babeld has known as another interface it is started anew.
        """
        order = {name: number for number, name in enumerate(self._given)}
        found = min((name for name in names if name not in used), key=lambda name: order.get(name, -1), default=None)
        if found is not None:
            self._given.pop(found, None)
            self._given[found] = None
        return found

    # -- for the next daemon --

    def take(self, record: LinkRecord) -> KnownLink:
        """Go on with one that an earlier daemon noted."""
        known = self.of(record.link.role)[record.peer] = known_of(record)
        return known

    def drop(self, record: LinkRecord) -> None:
        """Do not go on with it."""
        self.of(record.link.role).pop(record.peer, None)
        self.forget(record.link.interface)

    def note(self, known: KnownLink) -> None:
        """What the next daemon has to know of a link."""
        if known.link is not None:
            since, keyed = since_1970(known.since), since_1970(known.keyed)
            noted = since, keyed, known.mark, known.lane
            record = LinkRecord(known.link, known.process, known.identity, known.place, *noted)
            self._records.write_link(known.link.interface, record)

    def confirm(self, known: KnownLink, session: Peer | None) -> None:
        """The peer says in a session that it has this link: it has the certificate by which it speaks there, which it
        may have renewed. A session alone does not say so: another machine may have it, with another certificate of that
        peer.
        """
        if session is None or (certificate := session.proved) is None:
            return
        identity = PeerIdentity(certificate.serial, known.identity.number, certificate.until)
        if known.link is not None and known.identity != identity:
            known.identity = identity
            self.note(known)

    def forget(self, interface: str) -> None:
        """The next daemon is not to go on with what is on an interface."""
        self._records.forget(interface)


def known_of(record: LinkRecord) -> KnownLink:
    """What an earlier daemon noted of a link."""
    keyed = asyncio.get_running_loop().time() if record.keyed is None else monotonic(record.keyed)
    since = monotonic(record.since)
    known = KnownLink(record.identity, record.place, since, keyed, record.link, record.process, record.mark)
    known.lane = record.lane
    return known


def why_over(sessions: Sessions, end: LinkEnd, now: float) -> str:
    """Why a peer may not have its link any more, for people; empty where it may, as far as we know.

    OpenVPN looks at certificates every hour; WireGuard knows of none, nor of nodes.
    """
    if has_none(sessions, end.peer, now):
        return "it has no WireGuard any more"
    if end.identity.until is not None and time.time() > end.identity.until:
        return "its certificate has expired"
    known = sessions.peer(end.peer)
    certificate = None if known is None else known.proved
    if certificate is None or certificate.serial != end.identity.serial or sessions.crypto.still_good(certificate):
        return ""
    return "its certificate has expired, or is revoked"


def report_of(peer: Prefix, known: KnownLink, link: WireGuardLink, seen: LinkState) -> report.Link:
    """A link for the operator, and what its interface was like when it was `seen` last."""
    host, port = seen.endpoint or ("" if known.place is None else known.place.host, None)
    return report.Link(
        peer,
        outgoing=link.role is Role.CLIENT,
        protocol=TunnelProtocol.UDP6 if ":" in str(host) else TunnelProtocol.UDP,
        remote=str(host),
        port=port,
        interface=link.interface,
        since=known.since,
        received=seen.received,
        sent=seen.sent,
        carrier=TunnelCarrier.WIREGUARD,
        uplink=known.line,
    )
