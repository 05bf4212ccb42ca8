"""A machine of a large simulated network: the daemon's policy and driver, and what its hands do to the world."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from random import Random
from typing import Protocol

from re6st.core.mesh import policy
from re6st.core.mesh.dead_clients import DeadClients
from re6st.core.mesh.memory import makes_room
from re6st.core.mesh.policy import Phase
from re6st.core.prefix import Prefix
from re6st.core.routing.regions import region_of
from re6st.core.telemetry.event_log import EventLog
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.noded.mesh_driver import MeshDriver
from re6st.sim.engine import Engine
from re6st.sim.fabric import Region, RegionSurvey
from re6st.sim.names import name, server_name
from re6st.sim.network import DEAD_PEER_TIME, Stuck
from re6st.sim.places import Place

BEAT = 60.0
"""Seconds between two looks of a machine at least: the daemon's heart beats faster, to notice that it slept."""
PATIENCE = {Phase.OPENING: 20.0, Phase.DRAINING: 55.0, Phase.ASKED: 55.0, Phase.CLOSING: 5.0}
"""Seconds that a tunnel may be in a phase, besides the beat: in one longer, it is stuck."""


@dataclass(frozen=True)
class Plan:
    """What the world is like. Nodes are numbered from 0, the registry's own."""

    nodes: int
    region_length: int
    seed: int
    hidden: float = 0.7
    """The part of the machines that others cannot connect to, as they are behind NAT."""
    client_count: int = 10
    max_clients: int = 20
    refresh: float = 300.0
    by_place: bool = True
    """Whether the registry gives prefixes by place; otherwise in the order in which machines come."""
    spare: float = 1.0
    """How many times the first nodes of a region have room in it."""
    news: float = 3.0
    """Seconds between two tellings of all nodes of a region who is in it; each is told at once of its own links."""
    forget: float = DEAD_PEER_TIME
    """Seconds for which a server keeps the place of a client that is gone without a word."""
    watch: bool = True
    """Whether nodes look at what links cost, to replace those that have become bad or are not the nearest."""


class Silent(EventLog):
    """Nobody reads what happened to each of so many nodes."""

    def note(self, event: policy.Event, *, connected: bool, now: float) -> None:
        """It is not kept."""

    def decided(self, action: policy.Action, now: float) -> None:
        """It is not kept."""


class Wire:
    """A tunnel of the network: `client` opened it. `costs` is what babel takes it for."""

    __slots__ = ("client", "cost", "drained", "routes", "server", "up")

    def __init__(self, client: Host, server: Host, cost: int) -> None:
        self.client = client
        self.server = server
        self.cost = cost
        self.up = True
        self.routes = False
        """Whether routes use it."""
        self.drained = False

    def interface_of(self, machine: Host) -> str:
        """Its name at one of its ends."""
        return name(self.server.prefix) if machine is self.client else server_name(self.client.prefix)

    def other_end(self, machine: Host) -> Host:
        return self.server if machine is self.client else self.client


class Surroundings(Protocol):
    """The world, as a machine uses it."""

    engine: Engine
    rng: Random
    region_length: int
    event_log: Silent
    plan: Plan
    places: dict[Prefix, int]

    def open(self, machine: Host, peer: Prefix) -> None: ...
    def close(self, machine: Host, peer: Prefix) -> None: ...
    def drain(self, machine: Host, interface: str, *, drained: bool) -> None: ...
    def send(self, machine: Host, peer: Prefix, code: Code) -> None: ...
    def ask_registry(self, machine: Host) -> None: ...


class Host:
    """One node. What it remembers is kept when it starts again."""

    __slots__ = (
        "_armed",
        "_due",
        "_told",
        "_world",
        "clients",
        "dead_clients",
        "driver",
        "ghosts",
        "links",
        "max_clients",
        "memory",
        "mesh",
        "place",
        "prefix",
        "public",
        "region",
        "region_prefix",
        "running",
        "settings",
        "slot",
        "starts",
    )

    def __init__(
        self,
        world: Surroundings,
        settings: policy.Settings,
        region: Region,
        slot: int,
        place: Place,
        *,
        public: bool,
        max_clients: int,
    ) -> None:
        self._world = world
        self.settings = settings
        self.prefix = settings.own
        self.region = region
        self.region_prefix = region_of(settings.own, world.region_length)
        self.slot = slot
        """Where it is in its region."""
        self.place = place
        self.public = public
        """Whether others can open tunnels to it."""
        self.max_clients = max_clients
        self.clients = 0
        """Those that its servers count."""
        self.ghosts: list[Wire] = []
        """The tunnels of clients that are gone, and still have their place."""
        self.dead_clients = DeadClients()
        self.memory: dict[Prefix, tuple[Endpoint, ...]] = {}
        self.links: list[Wire] = []
        self.running = False
        self.starts = 0
        self.mesh: policy.Mesh
        self.driver: MeshDriver
        self._due = self._armed = float("inf")
        self._told: tuple[object, ...] = ()

    def start(self) -> None:
        """The daemon starts, with what an earlier one remembered; tunnels that it finds are its own."""
        world = self._world
        self.running = True
        self.starts += 1
        self.mesh = policy.Mesh(self.settings, self.memory, world.rng)
        self.driver = MeshDriver(self.mesh, world.event_log, world.engine)
        self._due = self._armed = float("inf")
        self._told = ()
        self.driver.start(self, self, self)
        if self.links:
            own = tuple((link.server.prefix, name(link.server.prefix)) for link in self.links if link.client is self)
            self.tell(policy.Resumed(own))
            for link in self.links:
                if link.server is self:
                    self.tell(policy.ClientUp(link.client.prefix))
        else:
            self._ring()

    def tell(self, event: policy.Event) -> None:
        """Something happened to the node, if it runs."""
        if not self.running:
            return
        now = self._world.engine.now
        self.mesh.awake(now)
        self.driver.event(event)
        self._check()
        self._arm(now)

    def remember(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        """A peer told where it is."""
        if peer not in self.memory and (
            spare := makes_room(self.memory, lambda each: each not in self.mesh.tunnels, self._world.rng)
        ):
            del self.memory[spare]
        self.memory[peer] = endpoints

    def look(self) -> bool:
        """Tell the policy what babel says, if that is news; returns whether it was."""
        world, region = self._world, self.region
        part = region.part_of[self.slot]
        if part is None:
            return False
        links = {
            link.interface_of(self): (self._name_of(link.other_end(self)), link.cost if world.plan.watch else 0)
            for link in self.links
            if link.routes
        }
        told = (part.seen, part.split, links)
        if told == self._told:
            return False
        self._told = told
        self.tell(policy.Surveyed(RegionSurvey(self.prefix, region, self.slot, part, links, world.places)))
        return True

    def _name_of(self, other: Host) -> Prefix:
        return other.prefix if other.region is self.region else other.region_prefix

    # -- time --

    def _arm(self, now: float) -> None:
        self._due = self.mesh.next_deadline(now, BEAT)
        if self._due < self._armed:
            self._armed = self._due
            starts = self.starts
            self._world.engine.after(self._due - now, lambda: self._wake(starts))

    def _wake(self, starts: int) -> None:
        if not self.running or starts != self.starts:
            return
        now = self._world.engine.now
        if self._armed > now:
            return  # an earlier alarm has taken the place of this one
        self._armed = float("inf")
        if self._due <= now:
            self._ring()
        else:
            self._arm(now)

    def _ring(self) -> None:
        now = self._world.engine.now
        self.mesh.awake(now)
        self.driver.tick()
        self._check()
        self._arm(now)

    def _check(self) -> None:
        """Raises Stuck if the policy is in a state that must not be."""
        mesh, now = self.mesh, self._world.engine.now
        if len(mesh.tunnels) > mesh.settings.client_count or self.prefix in mesh.tunnels:
            raise Stuck(f"{self.prefix} has {len(mesh.tunnels)} tunnels, or one with itself, at {now}")
        if len(mesh.clients) > self.max_clients:
            raise Stuck(f"{self.prefix} has {len(mesh.clients)} clients at {now}")
        for tunnel in mesh.tunnels.values():
            if tunnel.phase is not Phase.UP and now - tunnel.since > PATIENCE[tunnel.phase] + BEAT:
                raise Stuck(f"{self.prefix}: {tunnel} at {now}")

    # -- what the driver has done --

    def open(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        self._world.open(self, peer)

    def close(self, peer: Prefix, *, lost: bool = False) -> None:
        self._world.close(self, peer)

    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._world.drain(self, interface, drained=True)

    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._world.drain(self, interface, drained=False)

    def avoid(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.drain(interface, neighbour)

    def trust(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.undrain(interface, neighbour)

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        self._world.send(self, peer, Code(code))

    def ensure(self, peer: Prefix) -> None:
        """Sessions are not modelled."""

    def ask_first_peer(self) -> None:
        self._world.ask_registry(self)

    def doubt(self) -> None:
        """Parameters and certificates are not modelled."""
