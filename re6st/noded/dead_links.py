"""Notices links that died, by the packets that go over them, and leads around them until babel does (docs/network.md).

core/routing/liveness.py decides which are dead, core/routing/detours.py which way leads around them.

A detour to the neighbour behind a dead link is for packets of our own subnet alone, until the neighbour is heard by it.
It may be dead itself: what others sent would go round between us and those that miss it too, sixty times each packet.
With its source, a packet takes such a detour at one node only, and goes on by routes that do not lead back there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from typing import Protocol

from re6st.core import interfaces
from re6st.core.machine.uplinks import Uplink
from re6st.core.machine.wanted_state import AddressPlan
from re6st.core.mesh import policy
from re6st.core.mesh.dead_clients import DeadClients
from re6st.core.prefix import Prefix, address, prefix_of, subnet
from re6st.core.routing.babel_lines import INFINITY, NextHop
from re6st.core.routing.detours import Detour, LowestCosts, Way, detours, for_packets_of
from re6st.core.routing.liveness import LEAST, QUIET, Liveness, LivenessFindings
from re6st.core.routing.look_pace import LookPace
from re6st.core.telemetry.event_log import EventLog
from re6st.core.telemetry.report import Record
from re6st.core.words import plural
from re6st.linux.probes import EchoAnswer
from re6st.noded.link_counts import LinkCounts, LinkEnds, NeighbourMacs, PacketCounters, TableSource
from re6st.noded.link_losses import LinkLosses

NOTE = 0.2
"""Seconds between two notes of which clients are dead."""
EVERYBODY = 5.0
"""Seconds between two times that all clients are asked for a sign of life, where somebody wants a place."""
FORGOTTEN = 10.0
"""Seconds for which destinations are led around a link that babel was to forget, while it finds no way to them."""
LASTING = 5.0
"""Seconds after which a tunnel of ours that is dead is closed, so that another is opened, although babel still has a
neighbour there; nothing at all may have come by it meanwhile: it may be a machine that has too much to do. Most often
babel has none by then, and the policy, which is told of the doubt at once, waits no longer.
"""
PROOF = 1.0
"""Seconds in which the neighbour behind a dead link must be heard by a detour, and again and again."""
TRY, TRIES = 0.2, 8
"""Seconds until another detour is tried where it is not, and how many are: whom the first one leads by may have lost
its link too, and not know it yet, as where a line died that both links went over.
"""
PROOFS = 20
"""Owners of subnets that neighbours claimed who are asked for: one who lies may claim any number."""
ASK, ASK_LATER, HASTE = 0.05, 0.25, 0.02
"""Between two questions for that: until it is heard, and then. And between two looks until it is heard."""
SEARCH, SEARCH_SHARE = 0.2, 5
"""Seconds between two searches for ways around the same links, and so many times what the last one took: of ten
thousand destinations, a tenth of a second."""
AGAIN = 10.0

log = logging.getLogger(__name__)


class Asker(Protocol):
    """Who sends echo requests and hears the answers: linux/probes.py."""

    def ask(self, address: IPv6Address, index: int = 0, source: IPv6Address | None = None) -> int | None: ...
    def answers(self) -> Iterator[EchoAnswer]: ...
    def close(self) -> None: ...


class Routes(Protocol):
    """Who puts detours into the kernel: linux/detour_routes.py."""

    async def follow(self, wanted: Mapping[Way, Detour], plans: Iterable[AddressPlan]) -> None: ...


class Networks(Protocol):
    """Our networks."""

    @property
    def wanted(self) -> Collection[AddressPlan]: ...


class OtherPlane(Protocol):
    """A plane beside the main one: noded/throughput.py."""

    async def avoid(self, dead: frozenset[NextHop]) -> None:
        """These links are dead, and no others."""


class CountingFilter(Protocol):
    """The packet filter."""

    @property
    def counts(self) -> bool: ...
    @property
    def active(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class LinkMachine:
    """What is asked of this machine. `open_traffic` and `open_echo` raise OSError."""

    filter: CountingFilter
    hardware: NeighbourMacs
    routes: Routes
    networks: Networks
    open_traffic: Callable[[], PacketCounters]
    open_echo: Callable[[], Asker]
    other_planes: tuple[OtherPlane, ...] = ()
    forget: Callable[[str], object] = lambda _: None
    """Has babel forget the neighbour on an interface of its own, until it hears it again."""


@dataclass(slots=True)
class _Proof:
    """Whether the owner of what is behind a dead link lives."""

    address: IPv6Address | None
    until: float
    heard: bool = False
    asked: float = float("-inf")
    tried: float = 0.0
    """Since when by the detour of now."""
    vain: set[NextHop] = field(default_factory=set)
    """By whom it was not heard."""
    tries: int = 1
    left: bool = False
    """Whether babel was to forget the neighbour."""


class DeadLinks:
    """Watches the links of tunnels with babel's neighbours behind them. `event` tells the policy. `avoided` are those
    that it avoids, as packets get lost there: these are led around too. `line`: of this machine, over which our link
    with a peer on an interface goes. `dead_clients` is told of those.
    """

    def __init__(
        self,
        network: IPv6Network,
        own: Prefix,
        routing: TableSource,
        ends: LinkEnds,
        machine: LinkMachine,
        event: Callable[[policy.Event], None],
        event_log: EventLog,
        avoided: Callable[[], frozenset[NextHop]] = frozenset,
        line: Callable[[Prefix, str], Uplink | None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
        dead_clients: DeadClients | None = None,
    ) -> None:
        self.liveness = Liveness()
        self.dead_clients = DeadClients() if dead_clients is None else dead_clients
        self.losses = LinkLosses(ends, event, avoided)
        self._network = network
        self._address, self._subnet = address(network, own), subnet(network, own)
        self._routing = routing
        self._counts = LinkCounts(routing, ends, machine.hardware, line)
        self._ends = ends
        self._machine = machine
        self._event = event
        self._event_log = event_log
        self._clock = clock
        self._pace = LookPace()
        self._active = False
        self._trouble = ""
        """Why links are not watched, as it was told."""
        self._lowest = LowestCosts()
        self._costs: dict[NextHop, int] = {}
        self._since: dict[NextHop, float] = {}
        """When each dead link died; it is taken out where the policy was told that it lasts."""
        self._found: dict[Way, Detour] = {}
        """All that there might be, and when they were searched for."""
        self._searched: tuple[frozenset[NextHop], frozenset[NextHop]] = frozenset(), frozenset()
        self._search_again = float("-inf")
        self._detours: dict[Way, Detour] = {}
        """Those that there are."""
        self._proofs: dict[tuple[NextHop, Prefix | None], _Proof] = {}
        """By dead link, and who is asked for."""
        self._owners: dict[NextHop, Prefix | None] = {}
        """Who was at the other end of each dead link."""
        self._asked_for: dict[Way, tuple[NextHop, Prefix | None]] = {}
        self._forgotten: dict[NextHop, tuple[Prefix | None, float]] = {}
        """Dead links that babel was to forget, with whom they are, and since when."""
        self._noted = self._asked_everybody = float("-inf")
        """When dead clients were last noted, and when all clients were asked for a sign of life."""

    def record(self) -> Record:
        """For the operator."""
        return {
            "active": self._active,
            "probes": self.liveness.probes + self.losses.measured.asked_for,
            "died": self.liveness.deaths,
            "dead": len(self.liveness.dead),
            "lossy": len(self.losses.measured.lossy),
            "unanswered": self.losses.measured.rests_until > self._clock(),
            "detours": len({way[0] for way, detour in self._detours.items() if detour.leads_around}),
        }

    def silent_peers(self) -> frozenset[Prefix]:
        """Those behind dead links who are not heard by another way either, for some seconds."""
        now = self._clock()
        found = (owner for owner, since in self._forgotten.values() if now - since < FORGOTTEN)
        return frozenset(owner for owner in found if owner is not None)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self._watch()
                except OSError as error:
                    if self._trouble != (trouble := str(error.strerror)):
                        self._trouble = trouble
                        log.warning("links are not watched for packets: %s. It is tried again", trouble)
                await self._rest()
                await asyncio.sleep(AGAIN)
        finally:
            self._active = False
            # Also those of a change that was broken off.
            await self._machine.routes.follow({}, self._machine.networks.wanted)

    async def _watch(self) -> None:
        traffic = self._machine.open_traffic()
        try:
            echo = self._machine.open_echo()
            try:
                while True:
                    self._active = self._machine.filter.counts
                    if not self._active:
                        await self._rest()
                    else:
                        await self.look(traffic, echo)
                        self._trouble = ""
                    await asyncio.sleep(self.pause(self._clock()) if self._active else QUIET)
            finally:
                echo.close()
        finally:
            traffic.close()

    async def _rest(self) -> None:
        """Nothing is known of the links."""
        self._active = False
        self.losses.stop(self._clock())
        self.dead_clients.forget()
        for known in (self._forgotten, self._found, self._asked_for, self._proofs):
            known.clear()
        self._search_again = float("-inf")
        await self._lead_around({})
        await self._tell_planes(frozenset())

    def pause(self, now: float) -> float:
        """Seconds until the next look."""
        pause = max(min(self.liveness.pause(now), self.losses.measured.pause(now)), LEAST)
        awaited = any(not proof.heard and now < proof.until for proof in self._proofs.values())
        return self._pace.pause(min(pause, HASTE) if awaited else pause, dying=awaited or self.liveness.dying)

    async def look(self, traffic: PacketCounters, echo: Asker) -> None:
        """Look once, and do what follows. Raises OSError."""
        for answer in echo.answers():
            self._answered(answer)
        now = self._clock()
        self._pace.looked(now)
        if self._counts.follow(now, at_once=bool(self._detours), quiet=self.liveness.quiet and not self._counts.ended):
            self._costs = self._lowest.note(self._counts.costs, now)
        packets = self._counts.count(traffic, self.liveness)
        now = self._clock()
        found = self.liveness.look(packets, now, self._counts.over_tcp, self._counts.ended)
        self._note_clients(now)
        self._question_others(now)
        self._question_clients(now)
        ask = partial(_ask, echo, {})
        for hop in found.probe:
            ask(hop)
        dead = self.liveness.dead
        sent = self._counts.losing(packets)
        self.losses.look({hop: count for hop, count in sent.items() if hop not in dead}, self._counts.missed, now, ask)
        forgotten = self._still_forgotten(now)
        left = dead | forgotten | self.losses.avoided
        self._since = {hop: since for hop, since in self._since.items() if hop in dead}
        self._owners = {hop: owner for hop, owner in self._owners.items() if hop in left}
        self._proofs = {key: proof for key, proof in self._proofs.items() if key[0] in left}
        if left or self._detours:
            self._since |= dict.fromkeys(found.died, now)
            await self._follow(left, forgotten, left | self.liveness.doubtful | self.losses.measured.lossy, now, echo)
        await self._tell_planes(left)  # what may wait goes by them
        self._tell(found, now)

    def _question_others(self, now: float) -> None:
        """Where a link seems dead, its line may be: ask the others over that, before ways around lead by them."""
        lines = self._counts.lines
        dying = {lines[hop].name for hop in self.liveness.dying_links(now) if hop in lines} if lines else set()
        if dying:
            self.liveness.question((hop for hop, line in lines.items() if line.name in dying), now, doubt=True)

    def _question_clients(self, now: float) -> None:
        """Where nothing goes to a client it would not be seen that it is dead: ask those of whom babel hears nothing
        any more; and all, if somebody wants a place."""
        everybody = self.dead_clients.place_sought and now - self._asked_everybody >= EVERYBODY
        if everybody:
            self._asked_everybody = now
        clients = self._counts.clients if everybody else self._counts.quiet_clients
        self.liveness.question(clients, now, doubt=False)
        self.dead_clients.place_sought = False

    def _note_clients(self, now: float) -> None:
        """Say which clients are dead by all their links with us, and heard by babel by none. babel may have forgotten
        them since."""
        dead = self.liveness.dead
        if (not dead and not self.dead_clients) or now - self._noted < NOTE:
            return
        self._noted = now
        alive = {self._ends.owner_at(hop) for hop in self._counts.costs if hop not in dead}
        self.dead_clients.heard(peer for peer in alive if peer is not None)
        for hop in dead & self._counts.quiet_clients:
            peer = self._ends.owner_at(hop)
            if peer is not None and peer not in alive:
                self.dead_clients.died(peer, hop.interface, now - self.liveness.silence(hop, now))

    def _answered(self, answer: EchoAnswer) -> None:
        (ip, index), now = answer.target, self._clock()
        if index:
            with suppress(OSError):
                hop = NextHop(ip, socket.if_indextoname(index))
                self.liveness.answered(hop, answer.seconds)
                self.losses.measured.answered(hop, answer.number, answer.seconds, now)
            return
        for proof in self._proofs.values():
            if proof.address == ip and now < proof.until:
                proof.heard, proof.until = True, now + PROOF

    # -- ways around --

    async def _follow(
        self,
        left: frozenset[NextHop],
        forgotten: frozenset[NextHop],
        doubtful: frozenset[NextHop],
        now: float,
        echo: Asker,
    ) -> None:
        """Lead around the links that are dead or avoided, or were until babel was to forget them.

        By a detour to the neighbour at the other end of one that is only avoided, no packets go but those of our own
        subnet, even where it is heard by it: the neighbour whom it leads by may avoid its own link there, and lead back
        to us, and both be heard by the links that lose packets.
        """
        self._try_others(now)
        self._search(left, doubtful, now)
        wanted = {}
        for way, detour in self._found.items():
            if not detour.unproved:
                wanted[way] = detour
                continue
            if way not in self._asked_for:
                continue
            proof = self._proof(self._asked_for[way], now)
            if now >= proof.until:
                continue
            if proof.heard and detour.instead_of in self.liveness.dead | forgotten:
                wanted[way] = detour
            elif detour.instead_of in forgotten:
                continue  # its interface may be down, which the way for packets of others leads by
            elif isinstance(way[0], IPv6Network) and self._subnet.subnet_of(way[1]):
                wanted |= for_packets_of(way, self._subnet, detour)
        await self._lead_around(wanted)
        for key in set(self._asked_for.values()) & self._proofs.keys():
            proof = self._proofs[key]
            # Where some answers get lost they come by the link that is avoided.
            seldom = proof.heard and key[0] in self.liveness.dead
            pause = ASK_LATER if seldom else 0.0 if proof.asked < 0 else ASK
            if proof.address is not None and now < proof.until and now - proof.asked >= pause:
                proof.asked = now
                echo.ask(proof.address, source=self._address)

    def _try_others(self, now: float) -> None:
        """Where the neighbour behind a dead link is not heard by a detour, try another one."""
        for way, key in self._asked_for.items():
            proof, detour = self._proofs.get(key), self._found.get(way)
            if proof is None or detour is None or proof.heard or key[1] != self._owners.get(key[0]):
                continue
            if now - proof.tried < TRY or proof.tries >= TRIES or key[0] not in self.liveness.dead:
                continue
            routes = self._routing.table.routes.values()
            others = {each.via for each in routes if each.destination == way[0] and each.metric < INFINITY}
            others -= {detour.by, detour.instead_of}
            proof.tried = now
            if not proof.left:
                proof.left = True
                self._have_babel_forget(key[0], now)
            if others:
                proof.vain = {*(proof.vain if others - proof.vain else ()), detour.by}
                proof.until, proof.tries = now + PROOF, proof.tries + 1
                self._search_again = now

    def _have_babel_forget(self, hop: NextHop, now: float) -> None:
        """Whom another node leads to us by may lead back: it has to hear from babel that this is no way any more.

        babel cannot forget one of many on an interface. Where the neighbour has just one, and it is a link's, it is
        down for a moment: so it is where a machine was away for half a second, and another way was known.
        """
        if interfaces.is_link(hop.interface):
            owner = self._owners.get(hop)
            log.info("babel leaves %s: %s is not heard by another way either", hop.interface, owner)
            self._machine.forget(hop.interface)
            self._forgotten[hop] = owner, now

    def _still_forgotten(self, now: float) -> frozenset[NextHop]:
        """The links that babel does not know any more since it was to forget them, and has not learned again.

        It asks others for ways to what was behind them, and has none for up to four seconds: detours stay meanwhile.
        """
        there = self._counts.costs
        alive = there.keys() - self.liveness.dead
        self._forgotten = {
            hop: (owner, since)
            for hop, (owner, since) in self._forgotten.items()
            if hop not in alive and now - since < FORGOTTEN
        }
        return frozenset(hop for hop in self._forgotten if hop not in there)

    def _search(self, dead: frozenset[NextHop], doubtful: frozenset[NextHop], now: float) -> None:
        """Find the ways around: at once where there is news of links, else now and then, as babel may have some."""
        if (dead, doubtful) == self._searched and now < self._search_again:
            return
        begun = self._clock()
        trying = self._machine.filter.active
        vain = {key[0]: proof.vain for key, proof in self._proofs.items() if proof.vain and not proof.heard}
        self._found = detours(self._routing.table, dead, doubtful, self._costs, self._found, trying=trying, vain=vain)
        self._ask_for()
        self._searched, self._search_again = (dead, doubtful), now + max(SEARCH, SEARCH_SHARE * (self._clock() - begun))

    def _ask_for(self) -> None:
        """Whom to ask for each way that is to be proved: the neighbour behind the dead link, or who owns a subnet that
        it claimed; of many such subnets the first ones, and the others are left to babel.
        """
        self._asked_for = {}
        claimed = {key for key in self._proofs if key[1] != self._owners.get(key[0])}
        for way, detour in self._found.items():
            if not detour.unproved:
                continue
            hop = detour.instead_of
            if hop not in self._owners:
                self._owners[hop] = self._ends.owner_at(hop)
            owner, destination = self._owners[hop], way[0]
            peer = prefix_of(self._network, destination) if isinstance(destination, IPv6Network) else None
            if peer is None or (owner is not None and owner.contains(peer)):
                self._asked_for[way] = hop, owner
            elif (hop, peer) in claimed or len(claimed) < PROOFS:
                claimed.add((hop, peer))
                self._asked_for[way] = hop, peer

    def _proof(self, key: tuple[NextHop, Prefix | None], now: float) -> _Proof:
        """It has been asked for from now on, if it is new."""
        if key not in self._proofs:
            ip = None if key[1] is None else address(self._network, key[1])
            self._proofs[key] = _Proof(ip, now + PROOF, tried=now)
        return self._proofs[key]

    async def _lead_around(self, wanted: dict[Way, Detour]) -> None:
        if wanted != self._detours:
            self._detours = wanted
            await self._machine.routes.follow(wanted, self._machine.networks.wanted)

    # -- who is told --

    async def _tell_planes(self, dead: frozenset[NextHop]) -> None:
        for plane in self._machine.other_planes:
            await plane.avoid(dead)

    def _tell(self, found: LivenessFindings, now: float) -> None:
        for hop, silent in found.died.items():
            led = (way[0] for way, each in self._detours.items() if each.instead_of == hop and each.leads_around)
            around = len(set(led))
            peer = self._ends.owner_at(hop)
            log.warning(
                "the link with %s on %s is dead: %s. %s",
                peer or hop.address,
                hop.interface,
                "its tunnel has ended"
                if hop in self._counts.ended
                else f"nothing has come for {silent:.2f} s, no answer to echo requests either",
                f"{plural(around, 'destination')} behind it {'is' if around == 1 else 'are'} led around it"
                if around
                else "No other way is known",
            )
            self._event_log.found("link-died", time.time(), *([peer] if peer else []))
            if peer is not None and not self._ends.is_shared(hop.interface):
                self._event(policy.LinkDoubted(peer, hop.interface))
        for hop in found.revived:
            peer = self._ends.owner_at(hop)
            log.info("the link with %s on %s is alive again", peer or hop.address, hop.interface)
            self._event_log.found("link-revived", time.time(), *([peer] if peer else []))
            if peer is not None and not self._ends.is_shared(hop.interface):
                self._event(policy.LinkRevived(peer, hop.interface))
        for hop, since in list(self._since.items()):
            if min(now - since, self.liveness.silence(hop, now)) >= LASTING:
                del self._since[hop]
                peer = self._ends.owner_at(hop)
                if peer is not None and not self._ends.is_shared(hop.interface):
                    self._event(policy.LinkDead(peer, hop.interface))


def _ask(echo: Asker, indexes: dict[str, int], hop: NextHop) -> int | None:
    """Ask a neighbour for a sign of life; the number of the request, if it went out."""
    try:
        if hop.interface not in indexes:
            indexes[hop.interface] = socket.if_nametoindex(hop.interface)
    except OSError:
        return None
    return echo.ask(hop.address, indexes[hop.interface])
