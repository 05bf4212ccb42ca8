"""The room of WireGuard links of a node that can have them; no_links.py is that of all others. See contracts.Links.

The first link with each peer is that of wireguard.py. Here are those beside it, over other lines: which there are
decides core/transport/further_links.py, each is on a lane (lane.py), and all of a peer live and die with its tunnel.
For the policy they are that tunnel (`as_one`). Where the first one ends, and another one lives, that carries the tunnel
from then on: so a tunnel outlives the line that it went over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence, Set
from dataclasses import replace

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.telemetry import report
from re6st.core.transport.further_links import FurtherLinkChoice, LinkedPeer, Pair, serves
from re6st.core.transport.link_records import LinkRecord, PeerIdentity
from re6st.core.transport.met_links import MetLinks
from re6st.core.transport.wireguard_agreement import Agreement
from re6st.core.transport.wireguard_state import Ended, LinkSettings
from re6st.core.tunnel_protocols import Role, TunnelProtocol
from re6st.core.wire.datagrams import Code, Endpoint, WireError
from re6st.core.wire.extensions import Extension
from re6st.core.wire.further_links import LANES, Address, LineAddresses, OnLane, decode, encode, may_have_further
from re6st.core.wire.peer_table import Peer
from re6st.core.wire.wireguard import Reason
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
from re6st.noded.lane import Lane
from re6st.noded.line_places import Here, LinePlaces
from re6st.noded.link_groups import LinkGroups, LinkMember
from re6st.noded.link_interfaces import LinkInterfaces
from re6st.noded.link_table import KnownLink, host_of, why_over
from re6st.noded.settings import InForce
from re6st.noded.wireguard import WireGuard
from re6st.service.tasks import Tasks

LOOK = 1.0
"""Seconds between two looks at what is to be done."""
SETTLED = 5.0
"""Seconds that the first link with a peer has been up before there is a further one: the peer has said by then where
its lines are."""
AVOIDED_TIME = 300.0
"""Seconds until an address is tried again by which no link came up."""
PEERS_EVERY = 5.0
"""Seconds between two looks whether the peers may still have their links."""
BOTH = frozenset((4, 6))

log = logging.getLogger(__name__)


class FurtherLinks:
    """All links of a node: those of `first`, and those beside them."""

    def __init__(
        self,
        first: WireGuard,
        in_force: InForce,
        mesh: policy.Mesh,
        event: Callable[[policy.Event], None],
        kernel: InterfacesKernel,
        drains: BabelFilter,
        routing: Routing,
        tasks: Tasks,
        implementation: Implementation,
        netlink: WireGuardKernel,
        here: Here,
    ) -> None:
        self.first = first
        first.heirs = self
        self._in_force = in_force
        self._mesh = mesh
        self._event = event
        self._kernel = kernel
        self._drains = drains
        self._routing = routing
        self._tasks = tasks
        self._here = here
        self._hands: tuple[ReplaceableTunnels, LinkSpeaker] | None = None
        self._choice = FurtherLinkChoice()
        self._alone: dict[Prefix, Endpoint | None] = {}
        """Clients of ours whose first link has ended, and where they came from."""
        self._met = MetLinks()
        self._retiring: dict[str, float] = {}
        """Interfaces of links that are drained, and when they end."""
        self._avoided: dict[tuple[Prefix, Address], float] = {}
        """Addresses of peers by which no link came up, or to which the way leads through the network itself, until they
        are tried again."""
        self._opening: asyncio.Task[None] | None = None
        self._looked = float("-inf")
        self._leaving = False
        self._interfaces = LinkInterfaces(kernel, drains, routing, self._unfit)
        effective, machine = in_force.effective, (implementation, netlink)
        own, run = effective.identity.prefix, effective.config.run
        self._lanes = [
            Lane(number, self, own, run, self._interfaces, machine, tasks.start, self._all_agreements)
            for number in LANES
        ]
        self._groups = LinkGroups(first, self._lanes, here.lines.used, here.table)
        self._places = LinePlaces(self._groups, here, effective.identity.trust.network)

    def start(self, tunnels: ReplaceableTunnels, peers: LinkSpeaker, ports: PortOpener) -> None:
        """Work with these."""
        self._hands = tunnels, peers
        self.first.start(tunnels, peers, ports)

    async def run(self) -> None:
        """Until cancelled. The links stay."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.first.run(), name="first links")
            group.create_task(self._interfaces.run(), name="what further links carry")
            for lane in self._lanes:
                group.create_task(lane.links.run(), name=f"agreement on links of lane {lane.number}")
            group.create_task(self._look(), name="further links")

    # -- what peers say --

    def abilities(self) -> frozenset[Extension]:
        """What we announce to peers: links, as long as we let anybody have one, or there are some.

        Whoever hears that we have none ends its own.
        """
        announced = Extension.WIREGUARD, Extension.FURTHER_LINKS
        return frozenset(announced if self._drains.counts or self.ends() else ())

    def received(self, peer: Prefix, body: bytes) -> None:
        """Take a message about further links. What is none, or not from whom we take them, is dropped."""
        if not self._may_have(peer):
            return
        try:
            match decode(body):
                case OnLane(number, about):
                    self._lanes[LANES.index(number)].links.received(peer, about)
                case LineAddresses() as places:
                    self._places.learn(peer, places)
        except WireError as error:
            log.debug("%s: %s", peer, error)

    def met_again(self, peer: Prefix) -> None:
        """A peer has said in a new session what it can do."""
        self.first.met_again(peer)
        for lane in self._lanes:
            lane.links.met(peer)

    def renewed(self) -> None:
        """Our certificate is another one: by a new session each peer learns that the links are of that one."""
        self.first.renewed()
        begun = {end.peer for end in self.first.ends()}
        if self._hands is not None:
            for peer in {end.peer for lane in self._lanes for end in lane.ends()} - begun:
                self._hands[1].begin_anew(peer)
                self._hands[1].ensure(peer)

    # -- contracts.Links --

    def go_on(self, found: Iterable[LinkRecord], resumed: Callable[[list[LinkRecord]], None]) -> None:
        """See contracts.Links."""
        found = list(found)
        crl = self._in_force.effective.parameters.crl
        good = [each for each in found if each.lane and each.identity.serial and each.identity.serial not in crl]
        there = [record for lane in self._lanes for record in lane.go_on(r for r in good if r.lane == lane.number)]
        for record in found:
            if record.lane and record not in there:
                self._tasks.start(self._interfaces.remove(record.link.interface), "links left over")
                self._lanes[0].table.forget(record.link.interface)

        def with_heirs(first: list[LinkRecord]) -> None:
            heirs = {each.peer: each for each in there if each.link.role is Role.CLIENT}
            for record in first:
                heirs.pop(record.peer, None)
            for record in heirs.values():
                self._groups.carriers[record.peer] = self._lanes[record.lane - 1]
                self.first.go_on_carrying(record.peer, record.link.interface)
            resumed([*first, *heirs.values()])

        self.first.go_on((record for record in found if not record.lane), with_heirs)
        for lane in self._lanes:
            for peer, known, _ in lane.known(Role.CLIENT):
                if self._groups.carriers.get(peer) is not lane:
                    self._here.lines.resume((peer, lane.number), known.mark, known.place)
                    known.line = self._here.lines.used((peer, lane.number))
                else:
                    known.line = self._here.lines.used(peer)
            for peer, _, _ in lane.known(Role.SERVER):
                if peer not in self.first.table.served and peer not in self._alone:
                    self._alone[peer] = None
                    self._event(policy.ClientUp(peer))
        self.open_ports()

    def carries(self, peer: Prefix) -> bool:
        """See contracts.Links."""
        return self.first.carries(peer)

    async def outlast(self, peer: Prefix) -> None:
        """See contracts.Links."""
        await self.first.outlast(peer)

    async def outlast_all(self) -> None:
        """See contracts.Links."""
        await self.first.outlast_all()
        for peer in list(self._groups.carriers):
            await self.first.outlast(peer)

    def end(self, peer: Prefix) -> None:
        """See contracts.Links."""
        self._groups.carriers.pop(peer, None)  # none of them is to take over
        self._close_further(peer, Role.CLIENT, "its tunnel is over")
        self.first.end(peer)

    def cut(self, peer: Prefix) -> None:
        """See contracts.Links."""
        for role in Role:
            self._close_further(peer, role, "it is cut off", tell=False)
        self.first.cut(peer)

    def cut_off(self, crl: frozenset[int]) -> None:
        """See contracts.Links."""
        bad = {end.peer for end in self.ends() if end.identity.serial is None or end.identity.serial in crl}
        for peer in bad:
            for role in Role:
                self._close_further(peer, role, "its certificate is revoked", tell=False)
        self.first.cut_off(crl)

    async def leave(self) -> None:
        """See contracts.Links."""
        self._leaving = True
        for lane in self._lanes:
            await lane.links.end()
        await self.first.leave()

    def ends(self) -> list[LinkEnd]:
        """See contracts.Links."""
        return [*self.first.ends(), *(end for lane in self._lanes for end in lane.ends())]

    def reports(self) -> list[report.Link]:
        """See contracts.Links."""
        return [*self.first.reports(), *(each for lane in self._lanes for each in lane.reports())]

    def why_not(self, peer: Prefix) -> str:
        """See contracts.Links."""
        return self.first.why_not(peer)

    def served(self, protocol: TunnelProtocol, besides: Prefix) -> int:
        """See contracts.Links."""
        return self.first.served(protocol, besides)

    def is_served(self, peer: Prefix, protocol: TunnelProtocol) -> bool:
        """See contracts.Links."""
        return self.first.is_served(peer, protocol)

    def beside(self, interface: str) -> tuple[str, ...]:
        """See contracts.Links."""
        return tuple(name for name, hop in self.as_one().items() if hop.interface == interface)

    def as_one(self) -> dict[str, NextHop]:
        """See contracts.Links."""
        return self._groups.as_one()

    def user_of(self, peer: Prefix, interface: str) -> Hashable:
        """See contracts.Links."""
        for lane in self._lanes:
            link = lane.link(peer, Role.CLIENT)
            if link is not None and link.interface == interface and self._groups.carriers.get(peer) is not lane:
                return peer, lane.number
        return peer

    def gives_up(self, peer: Prefix, interface: str) -> bool:
        """See contracts.Links."""
        members = self._groups.of(peer, Role.CLIENT)
        dead = next((each for each in members if each.interface == interface), None)
        if dead is None or not any(self._groups.is_met(each.interface) for each in members if each is not dead):
            return False
        self._groups.end(dead, Reason.SILENT, "no sign of life")
        return True

    def leave_line(self, name: str) -> None:
        """See contracts.Links."""
        for _, members in self._groups.own():
            over = [each for each in members if self._groups.line(each) == name]
            for member in over if len(over) < len(members) else ():
                self._groups.end(member, Reason.SILENT, f"the uplink {name} is down")

    # -- wireguard.Heirs --

    def agreements(self) -> list[Agreement]:
        """Those of all lanes."""
        return [lane.links.agreement for lane in self._lanes]

    def inherit(self, peer: Prefix, role: Role, known: KnownLink) -> str:
        """See wireguard.Heirs."""
        if (heir := self._groups.heir(peer, role, self._retiring)) is None:
            return ""
        if role is Role.SERVER:
            self._alone[peer] = known.place
        else:
            self._choice.ended(peer, Reason.SILENT, _now(), was_up=True)
            self._have_carried(heir)
        return heir.interface

    def _have_carried(self, heir: LinkMember) -> None:
        """Have our tunnel with a peer go on over one of the further links."""
        assert heir.lane is not None
        peer, known = heir.link.peer, heir.known
        self._groups.carriers[peer] = heir.lane
        if self._retiring.pop(heir.interface, None) is not None:
            self._tasks.start(self._drains.unmute(heir.interface), f"use {heir.interface} again")
        self._here.lines.release((peer, heir.lane.number))
        self._here.lines.release(peer)
        self._here.lines.resume(peer, known.mark, known.place)
        over = f", over {known.line}" if known.line else ""
        log.info("the tunnel to %s goes on by another link%s, on %s", peer, over, heir.interface)

    # -- lane.LaneRoom --

    def say(self, peer: Prefix, body: bytes) -> None:
        """See lane.LaneRoom."""
        if self._hands is None:
            return
        if self._may_have(peer):
            self._hands[1].send(peer, Code.FURTHER_LINKS, body)
        else:
            self._hands[1].ensure(peer)

    def admits(self, peer: Prefix) -> bool:
        """See lane.LaneRoom."""
        identity = self.identity(peer)
        if self._hands is None or identity is None or not self._drains.counts:
            return False
        return self._hands[0].servers.admits(peer, identity.serial)

    def identity(self, peer: Prefix) -> PeerIdentity | None:
        """See lane.LaneRoom."""
        return next((each.known.identity for each in self._groups.of(peer, Role.SERVER)), None)

    def session(self, peer: Prefix) -> Peer | None:
        """See lane.LaneRoom."""
        return None if self._hands is None else self._hands[1].sessions.peer(peer)

    def open_ports(self) -> None:
        """See lane.LaneRoom."""
        self.first.open_ports()

    def came_up(self, lane: Lane, known: KnownLink) -> None:
        """See lane.LaneRoom."""
        self._routing.look_again()
        if known.link is not None and known.link.role is Role.CLIENT and known.line:
            self._here.lines.resume((known.link.peer, lane.number), known.mark, known.place)

    def ended(self, lane: Lane, ended: Ended, known: KnownLink | None) -> None:
        """See lane.LaneRoom."""
        peer = ended.peer
        self._routing.look_again()
        self._retiring.pop(ended.interface, None)
        if ended.role is Role.SERVER:
            self.open_ports()
            if peer in self._alone and not self._groups.of(peer, Role.SERVER):
                self.first.client_gone(peer, self._alone.pop(peer))
            return
        if ended.was_up:
            self._choice.ended(peer, ended.reason, _now(), was_up=True)
        elif ended.reason is not Reason.CLOSED:
            self._failed(peer, None if known is None else host_of(known.place), ended.reason)
        if self._groups.carriers.get(peer) is not lane:
            self._here.lines.release((peer, lane.number))
            return
        del self._groups.carriers[peer]
        if (heir := self._groups.heir(peer, Role.CLIENT, self._retiring)) is None:
            self.first.end(peer)
        else:
            self._have_carried(heir)
            self._event(policy.TunnelMoved(peer, heir.interface))

    # -- what is to be done --

    async def _look(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK)

    def look(self) -> None:
        """Look once."""
        if self._hands is None or self._leaving:
            return
        now = _now()
        for lane in self._lanes:
            ports = self._in_force.effective.config.wireguard_ports
            lane.use(LinkSettings(ports, self._names(lane, Role.SERVER)))
        if now - self._looked >= PEERS_EVERY:
            self._looked = now
            self._end_outdated(now)
        self._see(now)
        self._end_silent(now)
        self._retire(now)
        self._open_next(now)
        for peer, news in self._places.due(self._may_have, now):
            self.say(peer, encode(news))

    def _end_outdated(self, now: float) -> None:
        assert self._hands is not None
        for lane in self._lanes:
            for end in lane.ends():
                if why := why_over(self._hands[1].sessions, end, now):
                    lane.close(end.peer, Reason.CLOSED, why, tell=False)

    def _see(self, now: float) -> None:
        """Take note of where babel meets whom, and forget those with whom there is no link any more."""
        groups = self._groups.all()
        names = {member.interface for members in groups.values() for member in members}
        table = self._here.table
        age = table.age
        self._met.look(None if age is None else table.priority, now - (age or 0.0), names, self._groups.met())
        self._places.keep({peer for peer, _ in groups})

    def _end_silent(self, now: float) -> None:
        """End links on which babel does not meet the peer, if it does on another one.

        Not those on which it is muted, as the policy avoids them, or as they are drained.
        """
        muted = {hop.interface for hop in self._mesh.avoided_links} | self._retiring.keys()
        for peer, members in list(self._groups.own()):
            tunnel = self._mesh.tunnels.get(peer)
            if tunnel is None or tunnel.phase is not policy.Phase.UP:
                continue  # it is drained with all its links, or about to end
            used = [each for each in members if each.interface not in muted]
            silent = [each for each in used if self._met.is_silent(each.interface, each.known.since)]
            if silent and any(self._groups.is_met(each.interface) for each in members):
                self._groups.end(silent[0], Reason.SILENT, "babel does not meet the peer on it")
            elif any(self._met.is_lost(each.interface) for each in used):
                self._here.table.read_soon()

    def _knows_network(self, now: float) -> bool:
        """Whether babel knows how many neighbours we have: without it, each network would be a small one."""
        return self._mesh.survey.running and self._met.is_settled(now)

    def _retire(self, now: float) -> None:
        """Drain links that serve nothing any more, and end those that were drained."""
        if not self._knows_network(now):
            return
        lines, counts = self._lines(), self._here.lines.counts()
        for lane in self._lanes:
            for peer, known, link in lane.known(Role.CLIENT):
                if (at := self._retiring.get(link.interface)) is not None:
                    if now >= at:
                        lane.close(peer, Reason.CLOSED, "there are enough other tunnels by now")
                    continue
                others = {name for name, count in counts.items() if count > (name == known.line)}
                alone = self._groups.carriers.get(peer) is lane
                if not alone and not serves(known.line, lines, others, len(self._mesh.survey.neighbours)):
                    self._retiring[link.interface] = now + self._mesh.settings.link_drain_time
                    self._tasks.start(self._drains.mute(link.interface), f"drain {link.interface}")

    def _open_next(self, now: float) -> None:
        # What others begin with us does not count: they could go on with that for ever.
        begun = any(each.role(peer) is Role.CLIENT for each in self.agreements() for peer in each.begun)
        if begun or not self._drains.counts or not (self._opening is None or self._opening.done()):
            return
        self._avoided = {place: until for place, until in self._avoided.items() if now < until}
        if not self._knows_network(now):
            return
        used = {name for name, count in self._here.lines.counts().items() if count}
        own = self._groups.own()
        peers = {peer: linked for peer, members in own if (linked := self._linked(peer, members, now)) is not None}
        found = self._choice.next(self._lines(), used, len(self._mesh.survey.neighbours), peers, now)
        if found is None:
            return
        self._opening = self._tasks.start(self._open(*found), f"a further link to {found[0]}")

    async def _open(self, peer: Prefix, pair: Pair) -> None:
        """Open a link over these lines, unless the way to the peer's one leads through the network itself."""
        mark = self._here.lines.mark(pair.line) if pair.line else 0
        if not await self._kernel.leads_outside(str(pair.place), mark):
            self._failed(peer, pair.place, Reason.UNAVAILABLE)
            return
        members, now = self._groups.of(peer, Role.CLIENT), _now()
        if self._leaving or self._linked(peer, members, now) is None:
            return
        one, place = members[0].known, members[0].known.place
        lane = next((each for each in self._lanes if each.is_free(peer)), None)
        if lane is not None and place is not None:
            there = replace(place, host=str(pair.place))
            known = KnownLink(one.identity, there, now, now, mark=mark, line=pair.line)
            if lane.open(peer, known, self._names(lane, Role.CLIENT)):
                return
        self._choice.ended(peer, Reason.UNAVAILABLE, now, was_up=False)

    def _failed(self, peer: Prefix, place: Address | None, reason: Reason) -> None:
        """No link came up by an address of a peer: another one is tried soon if there is one, else none for a while."""
        now, known = _now(), self._places.of(peer)
        is_new = place is not None and place in known and (peer, place) not in self._avoided
        if place is not None:
            self._avoided[peer, place] = now + AVOIDED_TIME
        more = is_new and any((peer, each) not in self._avoided for each in known)
        self._choice.ended(peer, reason, now, was_up=more)

    def _linked(self, peer: Prefix, members: Sequence[LinkMember], now: float) -> LinkedPeer | None:
        """What the decision on a peer depends on; None where there is to be no further link now."""
        tunnel = self._mesh.tunnels.get(peer)
        if tunnel is None or tunnel.phase is not policy.Phase.UP or not self.first.is_carried(peer):
            return None
        pairs = [Pair(self._groups.line(each), each.host) for each in members if each.host is not None]
        if not pairs or now - min(each.known.since for each in members) < SETTLED or not self._may_have(peer):
            return None
        # Where the border of a country may be crossed, only the place is known that the policy chose.
        places = () if self._mesh.settings.same_country else self._places.of(peer)
        return LinkedPeer(tuple(pairs), tuple(place for place in places if (peer, place) not in self._avoided))

    # -- within --

    def _all_agreements(self) -> list[Agreement]:
        return [*self.agreements(), self.first.agreement]

    def _names(self, lane: Lane, role: Role) -> list[str]:
        """Those of the interfaces of a lane: each has its own, so that none is made while it is removed by another."""
        return self._in_force.effective.further_links(role)[lane.number - 1 :: len(LANES)]

    def _lines(self) -> dict[str, Set[int]]:
        """Our lines that are up, with the families that they carry."""
        if not self._here.lines.names:
            return {"": BOTH}
        return {each.name: each.ways.keys() for each in self._here.lines.up().values()}

    def _may_have(self, peer: Prefix) -> bool:
        return self._hands is not None and may_have_further(self._hands[1].sessions, peer, _now())

    def _close_further(self, peer: Prefix, role: Role, why: str, *, tell: bool = True) -> None:
        """End all further links with a peer at whose end we have this role, or that are begun."""
        for lane in self._lanes:
            agreed = lane.links.agreement.role(peer)
            if agreed is role:
                lane.close(peer, Reason.CLOSED, why, tell=tell)

    def _unfit(self, interface: str) -> None:
        """Not even the smallest packets pass."""
        for lane in self._lanes:
            for end in lane.ends():
                if end.interface == interface:
                    lane.close(end.peer, Reason.UNAVAILABLE, "not even the smallest packets pass on it")


def _now() -> float:
    return time.monotonic()
