"""A network of `Mesh`es in memory, on a simulated clock, over an ideal router: what test_mesh.py watches.

Routing is by the number of tunnels, converges in a second, and like babel without split horizon it hears from every
neighbour about every destination, also about those that the neighbour reaches through us.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from random import Random

from re6st.core.mesh import policy as mesh
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import Link, Survey
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint

COST = 96
MUTE_TIME = 4.0
"""Seconds until no route uses a muted tunnel."""
DEAD_PEER_TIME = 60.0
"""Seconds until OpenVPN gives up a peer that is silent (ping-exit)."""


PREFIXES = [Prefix(n, 16) for n in range(256)]


def name(prefix: Prefix) -> str:
    return f"t{prefix.value}"


def endpoints(prefix: Prefix) -> tuple[Endpoint, ...]:
    return (Endpoint(f"10.0.{prefix.value >> 8}.{prefix.value & 255}", 1194, TunnelProtocol.TCP),)


@dataclass(eq=False)
class Tunnel:
    """A tunnel of the network: `client` opened it."""

    client: Prefix
    server: Prefix
    up_at: float
    muted_at: float | None = None

    def routes(self, now: float) -> bool:
        return now >= self.up_at and (self.muted_at is None or now < self.muted_at + MUTE_TIME)


@dataclass(eq=False)
class Member:
    prefix: Prefix
    mesh: mesh.Mesh
    memory: dict[Prefix, tuple[Endpoint, ...]]
    reachable: bool
    up: bool = True
    opened: list[float] = field(default_factory=list)


class Network:
    """The members, their tunnels, and the events under way."""

    def __init__(self, seed: int, *, client_count: int = 10, max_clients: int = 20, refresh: float = 300.0) -> None:
        self.rng = Random(seed)
        self.now = 1000.0
        self.client_count, self.max_clients, self.refresh = client_count, max_clients, refresh
        self.members: dict[Prefix, Member] = {}
        self.links: list[Tunnel] = []
        self.registry = PREFIXES[0]
        self.registry_answers = True
        self.blocked: Callable[[Prefix, Prefix], bool] = lambda one, other: False
        """Whether the network below carries nothing between two members."""
        self.closed: list[str] = []
        self.lost_by_closing: list[tuple[Prefix, Prefix]] = []
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._dirty = True

    # -- members --

    def settings(self, prefix: Prefix, **more: object) -> mesh.Settings:
        made: dict[str, object] = {
            "own": prefix,
            "registry": self.registry,
            "client_count": self.client_count,
            "tunnel_refresh": self.refresh,
            "close_time": 45.0,
        }
        return mesh.Settings(**{**made, **more})  # type: ignore[arg-type]

    def add(self, number: int, *, reachable: bool = True, memory: tuple[int, ...] = (), **more: object) -> Member:
        prefix = PREFIXES[number]
        known = {PREFIXES[n]: endpoints(PREFIXES[n]) for n in memory}
        policy = mesh.Mesh(self.settings(prefix, **more), known, Random(self.rng.random()))
        member = self.members[prefix] = Member(prefix, policy, known, reachable)
        self._tick(member)
        return member

    def kill(self, member: Member) -> None:
        """The machine is gone without a word."""
        member.up = False
        self._dirty = True
        for link in [link for link in self.links if member.prefix in (link.client, link.server)]:
            self.links.remove(link)
            other = self.members[link.server if link.client == member.prefix else link.client]
            ended = mesh.TunnelDown(link.server) if other.prefix == link.client else mesh.ClientDown(link.client)
            self.after(DEAD_PEER_TIME, lambda other=other, ended=ended: self.tell(other, ended))  # type: ignore[misc]

    def restart(self, member: Member) -> Member:
        """The same machine again, with what it remembers."""
        again = mesh.Mesh(member.mesh.settings, member.memory, Random(self.rng.random()))
        fresh = self.members[member.prefix] = Member(member.prefix, again, member.memory, member.reachable)
        self._tick(fresh)
        return fresh

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members.values() if member.up]

    # -- time --

    def after(self, delay: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), do))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass, at most so long; returns how long it was."""
        start, end, check = self.now, self.now + seconds, self.now
        while self._events and self._events[0][0] <= end:
            self.now, _, do = heapq.heappop(self._events)
            do()
            if self.now >= check:
                check = self.now + 1.0
                self._converge()
                if until is not None and until():
                    return self.now - start
        self.now = end
        return seconds

    # -- what the machines do --

    def tell(self, member: Member, event: mesh.Event) -> None:
        if member.up and self.members[member.prefix] is member:
            self.carry_out(member, member.mesh.handle(event, self.now))

    def _tick(self, member: Member) -> None:
        if member.up and self.members[member.prefix] is member:
            self.carry_out(member, member.mesh.tick(self.now))
            self.after(1.0, lambda: self._tick(member))

    def carry_out(self, member: Member, actions: list[mesh.Action]) -> None:
        for action in actions:
            self._do(member, action)
        self.check(member)

    def _do(self, member: Member, action: mesh.Action) -> None:
        own, chance = member.prefix, self.rng.uniform
        match action:
            case mesh.OpenTunnel(peer):
                member.opened.append(self.now)
                self.after(chance(0.3, 1.0), lambda: self._connect(member, peer))
            case mesh.CloseTunnel(peer, reason):
                self.closed.append(reason)
                self.after(0.1, lambda: self._disconnect(member, peer))
            case mesh.DrainTunnel(peer):
                self._mute(own, peer, self.now)
            case mesh.UndrainTunnel(peer):
                self._mute(own, peer, None)
            case mesh.DrainClient(peer) | mesh.UndrainClient(peer):
                raise AssertionError("nobody here is of the older software")
            case mesh.AskAddress(peer):
                self.after(chance(0.1, 0.5), lambda: self._answer_address(member, peer))
            case mesh.AskBootstrap():
                self.after(chance(0.05, 0.3), lambda: self._bootstrap(member))
            case mesh.AskClose(peer):
                self.after(chance(0.05, 0.3), lambda: self._message(own, peer, mesh.CloseAsked(own)))
            case mesh.AllowClose(peer):
                self.after(chance(0.05, 0.3), lambda: self._message(own, peer, mesh.CloseAllowed(own)))
            case mesh.EnsureSession():
                pass

    def _connect(self, member: Member, peer: Prefix) -> None:
        server = self.members.get(peer)
        clients = sum(link.server == peer for link in self.links)
        if not member.up:
            return
        if server is None or not server.up or not server.reachable or self.blocked(member.prefix, peer):
            self.after(15.0, lambda: self.tell(member, mesh.TunnelDown(peer)))
        elif clients >= self.max_clients or server.mesh.settings.client_count == 0:
            self.tell(member, mesh.TunnelDown(peer))
        else:
            self.links.append(Tunnel(member.prefix, peer, self.now + 0.5))
            self._dirty = True
            self.after(0.5, self._spoil)
            self.tell(server, mesh.ClientUp(member.prefix))
            self.tell(member, mesh.TunnelUp(peer, name(peer)))
            member.memory[peer] = endpoints(peer)

    def _disconnect(self, member: Member, peer: Prefix) -> None:
        before = self.component(member.prefix)
        found = [link for link in self.links if (link.client, link.server) == (member.prefix, peer)]
        for link in found:
            self.links.remove(link)
            self._dirty = True
            self.after(0.1, lambda: self.tell(self.members[peer], mesh.ClientDown(member.prefix)))
        if found and self.component(member.prefix) != before:
            self.lost_by_closing.append((member.prefix, peer))
        self.tell(member, mesh.TunnelDown(peer))

    def _mute(self, client: Prefix, server: Prefix, since: float | None) -> None:
        for link in self.links:
            if (link.client, link.server) == (client, server):
                link.muted_at = since
                self.after(MUTE_TIME + 0.01, self._spoil)

    def _spoil(self) -> None:
        self._dirty = True

    def _answer_address(self, member: Member, peer: Prefix) -> None:
        other = self.members.get(peer)
        if other is not None and other.up and other.reachable and peer in self.component(member.prefix):
            member.memory[peer] = endpoints(peer)
            self.tell(member, mesh.AddressLearned(peer, endpoints(peer)))

    def _bootstrap(self, member: Member) -> None:
        if not self.registry_answers:
            self.after(10.0, lambda: self.tell(member, mesh.BootstrapAnswered(None)))
            return
        others = sorted((self.component(self.registry) | {self.registry}) - {member.prefix})
        choice = [p for p in others if self.members[p].up and self.members[p].reachable]
        peer = self.rng.choice(choice) if choice else None
        if peer is not None:
            member.memory[peer] = endpoints(peer)
        self.tell(member, mesh.BootstrapAnswered(peer, endpoints(peer) if peer else ()))

    def _message(self, sender: Prefix, receiver: Prefix, event: mesh.Event) -> None:
        if receiver in self.component(sender) and self.rng.random() < 0.95:
            self.tell(self.members[receiver], event)

    # -- routing --

    def component(self, prefix: Prefix) -> set[Prefix]:
        """Everybody that tunnels which carry routes lead to, the member itself included."""
        if prefix not in self.members or not self.members[prefix].up:
            return set()
        near: defaultdict[Prefix, list[Prefix]] = defaultdict(list)
        for link in self._routing():
            near[link.client].append(link.server)
            near[link.server].append(link.client)
        found, pending = {prefix}, [prefix]
        while pending:
            for other in near[pending.pop()]:
                if other not in found:
                    found.add(other)
                    pending.append(other)
        return found

    def connected(self) -> bool:
        alive = self.alive
        return len(self.component(alive[0].prefix)) == len(alive)

    def _near(self) -> defaultdict[Prefix, dict[Prefix, list[str]]]:
        """For each member its neighbours, with the interface of each link."""
        near: defaultdict[Prefix, dict[Prefix, list[str]]] = defaultdict(dict)
        for link in self._routing():
            near[link.client].setdefault(link.server, []).append(name(link.server))
            near[link.server].setdefault(link.client, []).append(f"s{link.client.value}")
        return near

    def _routing(self) -> list[Tunnel]:
        return [link for link in self.links if link.routes(self.now) and not self.blocked(link.client, link.server)]

    def _converge(self) -> None:
        """Give every member its survey, if anything changed."""
        if not self._dirty:
            return
        self._dirty = False
        near = self._near()
        balls = _balls({member.prefix.value: [p.value for p in near[member.prefix]] for member in self.alive})
        for member in self.alive:
            seen = self._survey(member.prefix, near[member.prefix], balls)
            if seen != member.mesh.survey:
                self.tell(member, mesh.Surveyed(seen))

    def _survey(self, own: Prefix, links: dict[Prefix, list[str]], balls: dict[int, list[int]]) -> Survey:
        """What survey.py makes of babel's table. Sets of destinations are bits of integers here."""
        hops = [(peer, interface, balls[peer.value]) for peer, names in links.items() for interface in names]
        hops = hops[own.value % (len(hops) or 1) :] + hops[: own.value % (len(hops) or 1)]
        carried, sole = [0] * len(hops), [0] * len(hops)
        mine = balls[own.value]
        for distance in range(1, len(mine)):
            left = mine[distance] & ~mine[distance - 1]
            # Another neighbour is a way of its own if it is no farther from the destination than we are.
            once = twice = 0
            for _, _, ball in hops:
                near = ball[min(distance, len(ball) - 1)]
                once, twice = once | near, twice | once & near
            for index, (_, _, ball) in enumerate(hops):
                taken = left & ball[min(distance - 1, len(ball) - 1)]
                left &= ~taken
                carried[index] |= taken
                sole[index] |= taken & ~twice
        neighbours: defaultdict[Prefix, tuple[Link, ...]] = defaultdict(tuple)
        for index, (peer, interface, _) in enumerate(hops):
            hop = NextHop(IPv6Address(0xFE80 << 112 | peer.value), interface)
            neighbours[peer] += (Link(hop, _prefixes(carried[index]), _prefixes(sole[index])),)
        return Survey(
            peers=_prefixes(mine[-1] & ~(1 << own.value)),
            neighbours=dict(neighbours),
            alive=frozenset(interface for _, interface, _ in hops),
        )

    # -- what must always hold --

    def check(self, member: Member) -> None:
        policy = member.mesh
        assert len(policy.tunnels) <= policy.settings.client_count
        assert member.prefix not in policy.tunnels
        assert all(tunnel.peer == peer for peer, tunnel in policy.tunnels.items())
        assert all(count > 0 for count in policy.clients.values())
        patience = {
            mesh.Phase.OPENING: 20.0,
            mesh.Phase.DRAINING: 50.0,
            mesh.Phase.ASKED: 50.0,
            mesh.Phase.CLOSING: 5.0,
        }
        for tunnel in policy.tunnels.values():
            stuck = self.now - tunnel.since > patience.get(tunnel.phase, float("inf"))
            assert not stuck, f"{member.prefix}: {tunnel} at {self.now}"


def _balls(near: dict[int, list[int]]) -> dict[int, list[int]]:
    """For each member who is within 0, 1, 2... tunnels of it, as bits, up to everybody it reaches."""
    balls = {member: [1 << member] for member in near}
    growing = list(near)
    while growing:
        level = {member: balls[member][-1] for member in near}
        still = []
        for member in growing:
            ball = level[member]
            for other in near[member]:
                ball |= level[other]
            if ball != level[member]:
                balls[member].append(ball)
                still.append(member)
        growing = still
    return balls


def _prefixes(bits: int) -> frozenset[Prefix]:
    return frozenset(PREFIXES[n] for n in range(bits.bit_length()) if bits >> n & 1)
