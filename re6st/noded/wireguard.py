"""WireGuard links of a node, which take the place of its tunnels with peers that can have them too.

core/transport/upgrades.py decides when, core/transport/wireguard_agreement.py how two nodes agree on a link, and
transport/wireguard.py has the interfaces. Here is what a link means to the other rooms: to the policy it is the tunnel
that it was before, on another interface; to a server of ours one of its clients.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, assert_never

from re6st.core.limits.said import LastWords
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.telemetry import report
from re6st.core.transport.link_records import LinkRecord, PeerIdentity
from re6st.core.transport.mtu_probe import LEAST
from re6st.core.transport.upgrades import (
    Action,
    Ask,
    CloseLink,
    Held,
    Move,
    Mute,
    OpenLink,
    Retire,
    Step,
    Unmute,
    Upgrades,
    has_moved,
    is_met,
)
from re6st.core.transport.wireguard_agreement import Agreement
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_state import Ended, LinkSettings
from re6st.core.transport.wireguard_uapi import Address
from re6st.core.tunnel_protocols import Role, TunnelProtocol
from re6st.core.wire.datagrams import Code, Endpoint, WireError
from re6st.core.wire.sessions import Sessions
from re6st.core.wire.wireguard import Reason, is_spoken_with
from re6st.linux.wireguard import Implementation, WireGuardKernel
from re6st.noded.contracts import (
    BabelFilter,
    InterfacesKernel,
    LinkEnd,
    LinkSpeaker,
    PortOpener,
    ReplaceableTunnels,
    Routing,
)
from re6st.noded.link_interfaces import LinkInterfaces
from re6st.noded.link_table import KnownLink, LinkTable, report_of, why_over
from re6st.noded.settings import InForce
from re6st.service.tasks import Tasks
from re6st.transport.wireguard import WireGuardLinks
from re6st.tunnel import ServerClient

LOOK, LOOK_BUSY = 1.0, 0.1
"""Seconds between two looks at what is to be done: while no link is on its way, and while one is."""
PEERS_EVERY = 5.0
"""Seconds between two looks whether the peers of links may still have them."""
GREET_AGAIN = 10.0
"""Seconds between two greetings of a peer with whom there is a tunnel, and no session by which it would say that it can
have links."""

UNCOUNTED = "not now: packets of tunnels are not counted here, so a link that died would be noticed late"

log = logging.getLogger(__name__)


class Heirs(Protocol):
    """Who has further links beside these: noded/further_links.py."""

    def agreements(self) -> list[Agreement]: ...

    def inherit(self, peer: Prefix, role: Role, known: KnownLink) -> str:
        """The first link with a peer has ended, at whose end we have this role: the interface of one that carries the
        tunnel instead from now on; empty where there is none."""


class WireGuard:
    """The first link with each peer, of a node that can have links; the room is further_links.py. See there, and
    contracts.Links.
    """

    def __init__(
        self,
        in_force: InForce,
        mesh: policy.Mesh,
        event: Callable[[policy.Event], None],
        kernel: InterfacesKernel,
        drains: BabelFilter,
        routing: Routing,
        tasks: Tasks,
        implementation: Implementation,
        netlink: WireGuardKernel,
    ) -> None:
        self._in_force = in_force
        self._mesh = mesh
        self._event = event
        self._drains = drains
        self._tasks = tasks
        self.interfaces = LinkInterfaces(kernel, drains, routing, self._unfit)
        self.table = LinkTable(in_force.effective.config.run)
        self.heirs: Heirs | None = None
        self._upgrades = Upgrades()
        self._why: dict[Prefix, str] = {}
        """Why a link is being ended by us, for people."""
        self._said = LastWords()
        self._waiting: dict[Prefix, asyncio.Event] = {}
        self._greeted: dict[Prefix, float] = {}
        self._looked = float("-inf")
        self._counted = drains.counts
        self._hands: tuple[ReplaceableTunnels, LinkSpeaker] | None = None
        self._ports: PortOpener | None = None
        own = in_force.effective.identity.prefix
        self._links = WireGuardLinks(own, self._settings(), implementation, netlink, self, tasks.start, self._beside)

    def _beside(self) -> list[Agreement]:
        return [] if self.heirs is None else self.heirs.agreements()

    def start(self, tunnels: ReplaceableTunnels, peers: LinkSpeaker, ports: PortOpener) -> None:
        """Work with these."""
        self._hands, self._ports = (tunnels, peers), ports

    async def run(self) -> None:
        """Until cancelled. The links stay."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._links.run(), name="agreement on links")
            group.create_task(self._look(), name="which tunnels links replace")
            group.create_task(self.interfaces.run(), name="what links carry")

    # -- what peers say --

    def received(self, peer: Prefix, body: bytes) -> None:
        """Take a message about links. What is none, or not from whom we take them, is dropped."""
        if self._hands is None:
            return
        if not is_spoken_with(self._hands[1].sessions, peer, _now()):
            return
        try:
            self._links.received(peer, body)
        except WireError as error:
            log.debug("%s: %s", peer, error)

    def met_again(self, peer: Prefix) -> None:
        """A peer has said in a new session what it can do."""
        self._links.met(peer)

    def renewed(self) -> None:
        """Our certificate is another one: by a new session each peer learns that the link is of that one.

        Else the peer would end it when the earlier one ends, or is revoked.
        """
        if self._hands is None:
            return
        for end in self.ends():
            self._hands[1].begin_anew(end.peer)
            self._hands[1].ensure(end.peer)  # it is tried again

    # -- contracts.Links --

    def go_on(self, found: Iterable[LinkRecord], resumed: Callable[[list[LinkRecord]], None]) -> None:
        """See contracts.Links."""
        found = list(found)
        crl = self._in_force.effective.parameters.crl
        good = [record for record in found if record.identity.serial is not None and record.identity.serial not in crl]
        self._links.resume((record.link, record.process, self.table.take(record).keyed) for record in good)
        there = [record for record in good if self._links.agreement.phase(record.peer) is not None]
        for record in found:
            if record not in there:
                self._leave_over(record)
        own, served = ([each for each in there if each.link.role is role] for role in (Role.CLIENT, Role.SERVER))
        for record in there:
            self.interfaces.keep_up(record.link)
            self.interfaces.watch(record.link)
        for record in own:
            self.go_on_carrying(record.peer, record.link.interface)
        resumed(own)
        for record in served:
            self._hold_way(record.place)
            self._event(policy.ClientUp(record.peer))
        self.open_ports()

    def go_on_carrying(self, peer: Prefix, interface: str) -> None:
        """A link on this interface, the first one or not, carries our tunnel with a peer since an earlier daemon."""
        self._upgrades.resume(peer, interface, _now())
        self._waiting[peer] = asyncio.Event()

    def _leave_over(self, record: LinkRecord) -> None:
        """Do not go on with what an earlier daemon left."""
        self.table.drop(record)
        self._tasks.start(self.interfaces.remove(record.link.interface), "links left over")

    @property
    def agreement(self) -> Agreement:
        return self._links.agreement

    def is_carried(self, peer: Prefix) -> bool:
        """Whether nothing but links carries our tunnel with a peer."""
        return self._upgrades.step(peer) is Step.DONE

    def carries(self, peer: Prefix) -> bool:
        """See contracts.Links."""
        return self._upgrades.carries(peer)

    async def outlast(self, peer: Prefix) -> None:
        """See contracts.Links."""
        if self._upgrades.carries(peer):
            await self._waiting.setdefault(peer, asyncio.Event()).wait()

    async def outlast_all(self) -> None:
        """See contracts.Links."""
        for peer in list(self.table.ours):
            await self.outlast(peer)

    def end(self, peer: Prefix) -> None:
        """See contracts.Links."""
        self._upgrades.forget(peer)
        if peer in self.table.ours:
            self.close(peer, Reason.CLOSED, "its tunnel is over")
        self.table.ours.pop(peer, None)
        if (waiting := self._waiting.pop(peer, None)) is not None:
            waiting.set()

    def cut(self, peer: Prefix) -> None:
        """See contracts.Links."""
        self.close(peer, Reason.CLOSED, "it is cut off", tell=False)

    def cut_off(self, crl: frozenset[int]) -> None:
        """See contracts.Links. Also one that is not up yet: an interface may be there, and wait for a handshake."""
        found = [(end.peer, end.identity.serial) for end in self.ends()]
        found += [(peer, self._serial(peer)) for peer in self._links.agreement.begun]
        for peer, serial in found:
            if serial is None or serial in crl:
                self.close(peer, Reason.CLOSED, "its certificate is revoked", tell=False)

    def _serial(self, peer: Prefix) -> int | None:
        """Of the certificate of who is to have a link; None where its tunnel is gone meanwhile."""
        if (known := self.table.ours.get(peer)) is not None:
            return known.identity.serial
        client = self._client(peer)
        return None if client is None else client[1].serial

    async def leave(self) -> None:
        """See contracts.Links."""
        await self._links.end()

    def ends(self) -> list[LinkEnd]:
        """See contracts.Links."""
        return self.table.ends()

    def reports(self) -> list[report.Link]:
        """See contracts.Links. Not of those that are about to take the place of a tunnel: that one is told of."""
        found = [(peer, each) for peer, each in self.table.ours.items() if self._upgrades.carries(peer)]
        found += self.table.served.items()
        links = ((peer, each, each.link) for peer, each in found if each.link is not None)
        return [report_of(peer, each, link, self._links.seen(link.interface)) for peer, each, link in links]

    def why_not(self, peer: Prefix) -> str:
        """See contracts.Links."""
        if not self._drains.counts:
            return UNCOUNTED
        reason = self._links.agreement.paused(peer, _now())
        return self._upgrades.why_not(peer, _now()) if reason is None else reason.words

    def served(self, protocol: TunnelProtocol, besides: Prefix) -> int:
        """See contracts.Links. Those that still have their tunnel too are counted there."""
        both = (peer for peer in self.table.served if self._client(peer) is not None)
        return self.table.served_by(protocol, (besides, *both))

    def is_served(self, peer: Prefix, protocol: TunnelProtocol) -> bool:
        """See contracts.Links."""
        return self.table.is_served(peer, protocol) and self._client(peer) is None

    # -- transport.wireguard.LinkOwner --

    def say(self, peer: Prefix, body: bytes) -> None:
        """Send a message about links, if the peer takes such messages now; else a session is begun."""
        if self._hands is None:
            return
        peers = self._hands[1]
        if is_spoken_with(peers.sessions, peer, _now()):
            peers.send(peer, Code.WIREGUARD, body)
        else:
            peers.ensure(peer)

    def admits(self, peer: Prefix) -> bool:
        """Whether a peer may open a link to us: one that is let in as a client of a server of ours, and is there."""
        client = self._client(peer)
        if self._hands is None or client is None or not self._drains.counts:
            return False
        return self._hands[0].servers.admits(peer, client[1].serial)

    def hosts(self, peer: Prefix) -> Sequence[Address]:
        """Where a peer was reached by its tunnel."""
        return self.table.hosts(peer)

    def mark(self, peer: Prefix) -> int:
        """That of the tunnel which the link is to replace: it goes by the same uplink."""
        return self.table.mark(peer)

    def made(self, interface: str) -> None:
        """Take an interface for one of ours. Raises OSError."""
        self.interfaces.take(interface)
        self.open_ports()

    async def leaving(self, interface: str) -> None:
        """Tell babel that nobody is behind an interface, which is about to go."""
        self.table.forget(interface)
        await self.interfaces.leave(interface)

    def up(self, link: WireGuardLink, process: tuple[int, str] | None) -> None:
        """A link is up, or has other keys."""
        table = self.table.of(link.role)
        if (known := table.get(link.peer)) is None:
            client = None if link.role is Role.CLIENT else self._client(link.peer)
            if client is None or not self.admits(link.peer):
                # Its tunnel has ended, or is about to: who is revoked, or refused, was still let in when it asked.
                self.close(link.peer, Reason.CLOSED, "it has no tunnel any more", tell=client is None)
                return
            protocol, one = client
            ports = {each: port for port, each in self._in_force.effective.servers}
            place = None if one.address is None else Endpoint(one.address, ports.get(protocol, 1), protocol)
            known = table[link.peer] = KnownLink(PeerIdentity(one.serial, one.number), place, _now(), _now())
        is_new, known.link, known.process, known.keyed = known.link is None, link, process, _now()
        self.interfaces.keep_up(link)
        self.table.note(known)
        if not is_new:
            log.info("the WireGuard link with %s has other keys", link.peer)
            return
        known.since = _now()
        self.interfaces.watch(link)
        if link.role is Role.CLIENT:
            log.info("WireGuard link to %s is up, on %s", link.peer, link.interface)
            self._upgrades.up(link.peer, link.interface, _now())
        else:
            self._hold_way(known.place)
            log.info("%s has a WireGuard link with us, on %s", link.peer, link.interface)
            self._event(policy.ClientUp(link.peer))

    def confirmed(self, link: WireGuardLink) -> None:
        """The peer has this link."""
        known = self.table.of(link.role).get(link.peer)
        if self._hands is not None and known is not None:
            self.table.confirm(known, self._hands[1].sessions.peer(link.peer))

    def met(self, link: WireGuardLink, moved: bool) -> None:
        """The peer has met us on a link."""
        if link.role is Role.CLIENT:
            self._upgrades.answered(link.peer, moved)
        elif is_met(self._mesh.survey, link.peer, link.interface):
            self._links.tell_met(link.peer, has_moved(self._mesh.survey, link.peer, self._besides(link.interface)))

    def ended(self, ended: Ended) -> None:
        """There is no link with a peer any more, or none came up."""
        peer = ended.peer
        self.table.forget(ended.interface)  # at once: it may have been revoked, and the next daemon may start any time
        words = self._why.pop(peer, ended.reason.words)
        # A port that a firewall closes is tried again and again.
        level = logging.INFO if self._said.are_new(peer, words) or ended.was_up else logging.DEBUG
        log.log(level, "no WireGuard link with %s: %s", peer, words)
        if ended.role is Role.SERVER:
            self.open_ports()
            known = self.table.served.pop(peer, None)
            if known is not None and known.link is not None and not self._inherited(peer, ended.role, known):
                self.client_gone(peer, known.place)
            return
        if (
            self.is_carried(peer)
            and (known := self.table.ours.get(peer))
            and (heir := self._inherited(peer, ended.role, known))
        ):
            self.table.ours.pop(peer)
            self._event(policy.TunnelMoved(peer, heir))
            return
        carried = self._upgrades.carries(peer)
        actions = self._upgrades.ended(peer, words, _now(), was_up=ended.was_up)
        self.table.ours.pop(peer, None)
        if carried and (self._hands is None or peer not in self._hands[0].openvpn_tunnels()):
            if (waiting := self._waiting.pop(peer, None)) is not None:
                waiting.set()
        else:
            self._carry_out(actions)

    def _inherited(self, peer: Prefix, role: Role, known: KnownLink) -> str:
        return "" if self.heirs is None else self.heirs.inherit(peer, role, known)

    def client_gone(self, peer: Prefix, place: Endpoint | None) -> None:
        """A client of ours, which came from that place, has no link any more."""
        if self._hands is not None:
            self._hands[0].servers.link_ended(peer)
            if place is not None:
                self._hands[0].let_go(place.host)
        self._event(policy.ClientDown(peer))

    # -- which tunnels links replace --

    async def _look(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_BUSY if self._upgrades.busy else LOOK)

    def look(self) -> None:
        """Look once."""
        if self._hands is None:
            return
        self._links.agreement.settings = self._settings()
        self._greeted = {peer: at for peer, at in self._greeted.items() if peer in self._mesh.tunnels}
        if _now() - self._looked >= PEERS_EVERY:
            self._looked = _now()
            self._end_outdated(self._hands[1].sessions)
        self._announce_anew(self._hands[1])
        found = {
            peer: Held(dialer.interface, dialer.since, self._is_ready(peer))
            for peer, dialer in self._hands[0].openvpn_tunnels().items()
            if dialer.since is not None
        }
        self._carry_out(self._upgrades.tick(found, self._mesh.survey, self._in_force.effective.babel_hello, _now()))

    def _announce_anew(self, peers: LinkSpeaker) -> None:
        """Once packets are counted, tell those with whom there are tunnels that they can have links."""
        before, self._counted = self._counted, self._drains.counts
        if self._counted and not before:
            for peer in {*self._mesh.tunnels, *self._mesh.clients}:
                peers.begin_anew(peer)

    def _end_outdated(self, sessions: Sessions) -> None:
        for end in self.ends():
            if why := why_over(sessions, end, _now()):
                self.close(end.peer, Reason.CLOSED, why, tell=False)

    def _is_ready(self, peer: Prefix) -> bool:
        """Whether a link may take the place of our tunnel with a peer, as far as others say."""
        assert self._hands is not None
        tunnel, peers = self._mesh.tunnels.get(peer), self._hands[1]
        if tunnel is None or tunnel.phase is not policy.Phase.UP or not tunnel.met or peer in self._mesh.clients:
            return False
        if self.why_not(peer):
            return False
        if is_spoken_with(peers.sessions, peer, _now()):
            return True
        if not peers.sessions.connected(peer, _now()):
            self._greet(peer, peers)
        return False

    def _greet(self, peer: Prefix, peers: LinkSpeaker) -> None:
        """Begin a session with a peer, by which it would say that it can have links; not too often."""
        if _now() - self._greeted.get(peer, float("-inf")) >= GREET_AGAIN:
            self._greeted[peer] = _now()
            peers.ensure(peer)

    def _carry_out(self, actions: Iterable[Action]) -> None:
        assert self._hands is not None
        for action in actions:
            match action:
                case OpenLink(peer):
                    self._open(peer)
                case CloseLink(peer, reason):
                    self.close(peer, Reason.CLOSED, reason or "its tunnel is given up")
                case Ask(peer, moved):
                    self._links.tell_met(peer, moved)
                case Move(peer, interface):
                    if self._upgrades.carries(peer):
                        self._waiting.setdefault(peer, asyncio.Event())
                    self._event(policy.TunnelMoved(peer, interface))
                case Mute(interface):
                    self._tasks.start(self._drains.mute(interface), f"drain {interface}")
                case Unmute(interface):
                    self._tasks.start(self._drains.unmute(interface), f"undrain {interface}")
                case Retire(peer):
                    self._hands[0].retire(peer)
                case _:
                    assert_never(action)

    def _open(self, peer: Prefix) -> None:
        assert self._hands is not None
        dialer = self._hands[0].openvpn_tunnels().get(peer)
        used = {end.interface for end in self.ends()} | self._links.interfaces
        if dialer is None or (free := self.table.free(self._in_force.effective.own_links, used)) is None:
            self._upgrades.forget(peer)
            return
        identity = PeerIdentity(dialer.serial, dialer.number)
        self.table.ours[peer] = KnownLink(identity, dialer.endpoint, _now(), _now(), mark=dialer.mark)
        if not self._links.open(peer, free):
            self._upgrades.forget(peer)
            self.table.ours.pop(peer, None)

    # -- within --

    def _unfit(self, interface: str) -> None:
        """Not even the smallest size passes."""
        for end in self.ends():
            if end.interface == interface:
                self.close(end.peer, Reason.UNAVAILABLE, f"not even packets of {LEAST} bytes pass on it")

    def close(self, peer: Prefix, reason: Reason, why: str, *, tell: bool = True) -> None:
        """End a link, if there is one: `reason` is for the peer, if it is told, and `why` for people."""
        self._why[peer] = why
        self._links.close(peer, reason, tell=tell)
        self._why.pop(peer, None)

    def open_ports(self) -> None:
        """Those that clients of ours have links to, or are about to."""
        if self._ports is not None:
            self._ports.open_for_links(self._links.agreement.served_ports)

    def _client(self, peer: Prefix) -> tuple[TunnelProtocol, ServerClient] | None:
        return None if self._hands is None else self._hands[0].servers.client(peer)

    def _hold_way(self, place: Endpoint | None) -> None:
        if self._hands is not None and place is not None:
            self._hands[0].hold_way(place.host)

    def _besides(self, interface: str) -> frozenset[str]:
        return frozenset((interface, *self._in_force.effective.config.lan))

    def _settings(self) -> LinkSettings:
        effective = self._in_force.effective
        return LinkSettings(effective.config.wireguard_ports, effective.served_links)


def _now() -> float:
    return time.monotonic()
