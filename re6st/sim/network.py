"""A network of nodes in memory, event by event: what each decides, carried out by the daemon's own driver."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from random import Random
from typing import Any

from re6st.core.mesh import policy
from re6st.core.mesh.policy import HEARTBEAT
from re6st.core.prefix import Prefix
from re6st.core.telemetry.event_log import EventLog, Happening
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.noded.mesh_driver import MeshDriver
from re6st.noded.rhythm import Rhythm
from re6st.sim.engine import Engine
from re6st.sim.names import endpoints, name, prefix_of, server_name
from re6st.sim.router import nothing_seen, surveys

START = 1000.0
"""When a simulation begins."""
MUTE_TIME = 4.0
"""Seconds until no route uses a muted tunnel."""
DEAD_PEER_TIME = 60.0
"""Seconds until OpenVPN gives up a peer that is silent (ping-exit)."""
CONNECT_MIN, CONNECT_MAX, CONNECT_FAILS = 0.3, 1.0, 15.0
"""Seconds until a tunnel is connected, or turned away; and until one is given up that nobody answers."""
MEET_TIME = 0.5
"""Seconds until babel has met the peer on a new tunnel."""
DISCONNECT_TIME = 0.1
ANSWER_MIN, ANSWER_MAX = 0.1, 0.5
"""Seconds until a peer has told its address."""
MESSAGE_MIN, MESSAGE_MAX, MESSAGES_ARRIVE = 0.05, 0.3, 0.95
"""Seconds that a message takes, or the registry's answer; and how many messages between peers arrive."""
REGISTRY_TIMEOUT = 10.0
"""Seconds until a registry that does not answer is given up."""
CLOSE_TIME = 45.0
PATIENCE = {
    policy.Phase.OPENING: 20.0,
    policy.Phase.DRAINING: 50.0,
    policy.Phase.ASKED: 50.0,
    policy.Phase.CLOSING: 5.0,
}
"""Seconds that a tunnel may be in a phase: in one longer, it is stuck."""


class Stuck(Exception):
    """A node is in a state that must not be; what is wrong with it."""


@dataclass(eq=False)
class Carrier:
    """A tunnel of the network: `client` opened it."""

    client: Prefix
    server: Prefix
    up_at: float
    muted_at: float | None = None

    def routes(self, now: float) -> bool:
        """Whether routes use it."""
        return now >= self.up_at and (self.muted_at is None or now < self.muted_at + MUTE_TIME)

    def leaves_by(self, own: Prefix, interface: str) -> bool:
        """Whether it is behind this interface of a node."""
        at_client, at_server = (self.client, name(self.server)), (self.server, server_name(self.client))
        return (own, interface) in (at_client, at_server)


class Machine:
    """One node: its policy, its memory, and the hands of its driver. `memory` is kept when it starts again."""

    def __init__(
        self, network: Network, mesh: policy.Mesh, memory: dict[Prefix, tuple[Endpoint, ...]], reachable: bool
    ) -> None:
        self._network = network
        self.prefix = mesh.settings.own
        self.mesh = mesh
        self.memory = memory
        self.reachable = reachable
        """Whether others can open tunnels to it."""
        self.up = True
        self.opened: list[float] = []
        """When it began to open a tunnel."""
        self.seen = nothing_seen(self.prefix)
        event_log = EventLog()
        event_log.listeners.add(self._happened)
        self.driver = MeshDriver(mesh, event_log, network.engine, self._happens)
        self._rhythm = Rhythm((self.driver,))
        self.wakes = 0
        """How often it looked what is due, because of the time or of what happened."""
        self._alarm = network.now
        """When it looks next."""
        self.driver.start(self, self, self)
        # Hearts of machines do not beat in step.
        self._set_alarm(network.now + network.rng.uniform(0, HEARTBEAT))

    def _happens(self) -> None:
        """The next deadline may be another one: look at it once what happens now is over."""
        self._set_alarm(self._network.now)

    def _set_alarm(self, moment: float) -> None:
        self._alarm = moment
        self._network.engine.after(moment - self._network.now, lambda: self._ring(moment))

    def _ring(self, moment: float) -> None:
        if moment == self._alarm and self._network.runs(self):
            self.wakes += 1
            self._alarm = float("inf")
            due = self._rhythm.step(self._network.now)
            self._network.check(self)
            self._set_alarm(due)

    def _happened(self, happening: Happening) -> None:
        if happening.kind == "tunnel-closed":
            self._network.closed.append(happening.reason)

    # -- what the driver has done --

    def open(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        self.opened.append(self._network.engine.now)
        self._network.later(CONNECT_MIN, CONNECT_MAX, lambda: self._network.connect(self, peer))

    def close(self, peer: Prefix, *, lost: bool = False) -> None:
        self._network.engine.after(DISCONNECT_TIME, lambda: self._network.disconnect(self, peer))

    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._network.mute(self.prefix, interface, self._network.engine.now)

    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._network.mute(self.prefix, interface, None)

    def avoid(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.drain(interface, neighbour)

    def trust(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.undrain(interface, neighbour)

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        match Code(code):
            case Code.ADDRESS:
                self._network.later(ANSWER_MIN, ANSWER_MAX, lambda: self._network.answer_address(self, peer))
            case Code.ASK_CLOSE:
                self._network.message(self.prefix, peer, policy.CloseAsked(self.prefix))
            case Code.ALLOW_CLOSE:
                self._network.message(self.prefix, peer, policy.CloseAllowed(self.prefix))
            case other:
                raise Stuck(f"{self.prefix}: the policy does not send {other}")

    def ensure(self, peer: Prefix) -> None:
        """Sessions are not modelled."""

    def ask_first_peer(self) -> None:
        self._network.later(MESSAGE_MIN, MESSAGE_MAX, lambda: self._network.name_first_peer(self))

    def doubt(self) -> None:
        """Parameters and certificates are not modelled."""


class Network:
    """The machines, their tunnels, and the events under way. `seed` decides all that is left to chance."""

    def __init__(self, seed: int, *, client_count: int = 10, max_clients: int = 20, refresh: float = 300.0) -> None:
        self.rng = Random(seed)  # noqa: S311
        self.engine = Engine(START)
        self.max_clients = max_clients
        self.registry = prefix_of(0)
        self.registry_answers = True
        self.members: dict[Prefix, Machine] = {}
        self.links: list[Carrier] = []
        self.closed: list[str] = []
        """Why tunnels were closed, as their nodes' operators read it."""
        self.lost_by_closing: list[tuple[Prefix, Prefix]] = []
        """Tunnels whose client reached fewer nodes once they were closed."""
        self._settings = policy.Settings(self.registry, self.registry, client_count, refresh, CLOSE_TIME)
        self._blocked: Callable[[Prefix, Prefix], bool] = lambda one, other: False
        self._dirty = True

    # -- members --

    def add(self, number: int, *, reachable: bool = True, memory: tuple[int, ...] = (), **more: Any) -> Machine:
        """A new node, which remembers others; `more` are settings of its policy."""
        settings = replace(self._settings, own=prefix_of(number), **more)
        return self._start(settings, {prefix_of(n): endpoints(prefix_of(n)) for n in memory}, reachable)

    def kill(self, member: Machine) -> None:
        """The machine is gone without a word."""
        member.up = False
        self._dirty = True
        for link in [link for link in self.links if member.prefix in (link.client, link.server)]:
            self.links.remove(link)
            other = self.members[link.server if link.client == member.prefix else link.client]
            ended = policy.TunnelDown(link.server) if other.prefix == link.client else policy.ClientDown(link.client)
            self.engine.after(DEAD_PEER_TIME, self._telling(other, ended))

    def restart(self, member: Machine) -> Machine:
        """The same machine again, with what it remembers."""
        return self._start(member.mesh.settings, member.memory, member.reachable)

    def block(self, blocked: Callable[[Prefix, Prefix], bool] = lambda one, other: False) -> None:
        """The network below carries nothing between two nodes for which this is true; by default it carries all."""
        self._blocked = blocked
        self._dirty = True

    @property
    def alive(self) -> list[Machine]:
        return [member for member in self.members.values() if member.up]

    @property
    def now(self) -> float:
        return self.engine.now

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass, at most so long; returns how long it was."""

        def look() -> bool:
            self._converge()
            return until is not None and until()

        return self.engine.run(seconds, look)

    def _start(self, settings: policy.Settings, memory: dict[Prefix, tuple[Endpoint, ...]], reachable: bool) -> Machine:
        mesh = policy.Mesh(settings, memory, Random(self.rng.random()))  # noqa: S311
        member = self.members[settings.own] = Machine(self, mesh, memory, reachable)
        return member

    # -- what the machines are told --

    def tell(self, member: Machine, event: policy.Event) -> None:
        """Something happened to a machine, if it is still there."""
        if self.runs(member):
            member.driver.event(event)
            self.check(member)

    def _telling(self, member: Machine, event: policy.Event) -> Callable[[], None]:
        return lambda: self.tell(member, event)

    def runs(self, member: Machine) -> bool:
        """Whether a machine is still there, and has not started again since."""
        return member.up and self.members.get(member.prefix) is member

    # -- what their drivers want to have done --

    def later(self, least: float, most: float, do: Callable[[], None]) -> None:
        """Have something done in so many seconds, at random."""
        self.engine.after(self.rng.uniform(least, most), do)

    def connect(self, member: Machine, peer: Prefix) -> None:
        """A machine's tunnel to a peer comes up, or not."""
        server = self.members.get(peer)
        clients = sum(link.server == peer for link in self.links)
        if not member.up:
            return
        if server is None or not server.up or not server.reachable or self._blocked(member.prefix, peer):
            self.engine.after(CONNECT_FAILS, self._telling(member, policy.TunnelDown(peer)))
        elif clients >= self.max_clients or server.mesh.settings.client_count == 0:
            self.tell(member, policy.TunnelDown(peer))
        else:
            self.links.append(Carrier(member.prefix, peer, self.engine.now + MEET_TIME))
            self._dirty = True
            self.engine.after(MEET_TIME, self._spoil)
            self.tell(server, policy.ClientUp(member.prefix))
            self.tell(member, policy.TunnelUp(peer, name(peer)))
            member.memory[peer] = endpoints(peer)

    def disconnect(self, member: Machine, peer: Prefix) -> None:
        """A machine's tunnel to a peer ends."""
        before = self.component(member.prefix)
        found = [link for link in self.links if (link.client, link.server) == (member.prefix, peer)]
        for link in found:
            self.links.remove(link)
            self._dirty = True
            self.engine.after(DISCONNECT_TIME, lambda: self.tell(self.members[peer], policy.ClientDown(member.prefix)))
        if found and self.component(member.prefix) != before:
            self.lost_by_closing.append((member.prefix, peer))
        self.tell(member, policy.TunnelDown(peer))

    def mute(self, own: Prefix, interface: str, since: float | None) -> None:
        """Babel stops hearing who is behind an interface, or hears it again."""
        for link in self.links:
            if link.leaves_by(own, interface):
                link.muted_at = since
                self.engine.after(MUTE_TIME + 0.01, self._spoil)

    def answer_address(self, member: Machine, peer: Prefix) -> None:
        """A peer that was asked where it is tells it, if it can."""
        other = self.members.get(peer)
        if other is not None and other.up and other.reachable and peer in self.component(member.prefix):
            member.memory[peer] = endpoints(peer)
            self.tell(member, policy.AddressLearned(peer, endpoints(peer)))

    def name_first_peer(self, member: Machine) -> None:
        """The registry that was asked for a peer answers, if it does."""
        if not self.registry_answers:
            self.engine.after(REGISTRY_TIMEOUT, self._telling(member, policy.BootstrapAnswered(None)))
            return
        others = sorted((self.component(self.registry) | {self.registry}) - {member.prefix})
        choice = [p for p in others if self.members[p].up and self.members[p].reachable]
        peer = self.rng.choice(choice) if choice else None
        if peer is not None:
            member.memory[peer] = endpoints(peer)
        self.tell(member, policy.BootstrapAnswered(peer, endpoints(peer) if peer else ()))

    def message(self, sender: Prefix, receiver: Prefix, event: policy.Event) -> None:
        """A message is under way, if there is a way for it."""

        def arrive() -> None:
            if receiver in self.component(sender) and self.rng.random() < MESSAGES_ARRIVE:
                self.tell(self.members[receiver], event)

        self.later(MESSAGE_MIN, MESSAGE_MAX, arrive)

    # -- routing --

    def component(self, prefix: Prefix) -> set[Prefix]:
        """Everybody that tunnels which carry routes lead to, the node itself included."""
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
        """Whether everybody reaches everybody."""
        alive = self.alive
        return len(self.component(alive[0].prefix)) == len(alive)

    def _spoil(self) -> None:
        """Routes change."""
        self._dirty = True

    def _routing(self) -> list[Carrier]:
        now = self.engine.now
        return [link for link in self.links if link.routes(now) and not self._blocked(link.client, link.server)]

    def _converge(self) -> None:
        """Give every machine its survey, if anything changed."""
        if not self._dirty:
            return
        self._dirty = False
        near: dict[Prefix, dict[Prefix, list[str]]] = {member.prefix: {} for member in self.alive}
        for link in self._routing():
            near[link.client].setdefault(link.server, []).append(name(link.server))
            near[link.server].setdefault(link.client, []).append(server_name(link.client))
        for prefix, seen in surveys(near):
            member = self.members[prefix]
            if seen != member.seen:
                member.seen = seen
                self.tell(member, policy.Surveyed(seen))

    # -- what must always hold --

    def check(self, member: Machine) -> None:
        """Raises Stuck if the policy of a machine is in a state that must not be."""
        mesh, now = member.mesh, self.engine.now
        if len(mesh.tunnels) > mesh.settings.client_count:
            raise Stuck(f"{member.prefix} has {len(mesh.tunnels)} tunnels at {now}")
        if member.prefix in mesh.tunnels or any(tunnel.peer != peer for peer, tunnel in mesh.tunnels.items()):
            raise Stuck(f"{member.prefix} has a tunnel with itself, or one that it takes for another, at {now}")
        if any(count <= 0 for count in mesh.clients.values()):
            raise Stuck(f"{member.prefix} counts clients that are gone at {now}")
        for tunnel in mesh.tunnels.values():
            if now - tunnel.since > PATIENCE.get(tunnel.phase, float("inf")):
                raise Stuck(f"{member.prefix}: {tunnel} at {now}")
