"""A large simulated network: many machines in regions, their tunnels, the ways between them, and the registry.

Event by event, as network.py, whose delays it has; but made so that 100,000 machines fit: what the nodes of a region
see is worked out for all of them at once, each second in which something changed (fabric.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from re6st.core.mesh import policy
from re6st.core.mesh.dead_clients import DeadClients
from re6st.core.prefix import Prefix
from re6st.core.routing.regions import region_of
from re6st.core.wire.datagrams import Code
from re6st.sim import places
from re6st.sim.engine import Engine
from re6st.sim.fabric import Region, RegionPart, global_parts
from re6st.sim.hosts import Host, Plan, Silent, Wire
from re6st.sim.names import endpoints, name
from re6st.sim.network import (
    ANSWER_MAX,
    ANSWER_MIN,
    CLOSE_TIME,
    CONNECT_FAILS,
    CONNECT_MAX,
    CONNECT_MIN,
    DISCONNECT_TIME,
    MEET_TIME,
    MESSAGE_MAX,
    MESSAGE_MIN,
    MESSAGES_ARRIVE,
    REGISTRY_TIMEOUT,
    START,
)

STEP = 1.0
"""Seconds within which routes are where they belong, and babel's news are read."""
DRAIN_SEEN = 1.5
"""Seconds until no route uses a drained tunnel."""
NOTICED_MIN, NOTICED_MAX = 0.5, 3.0
"""Seconds until a link that died is noticed: by the packets that go over it, or by babel (docs/performance.md)."""
REGISTRY_RATE = 1600.0
"""Calls a second that a registry answers (docs/capacity.md)."""
BASE, RTT_MIN, RTT_MAX, PENALTY = 96, 10.0, 500.0, 5000
"""Babel's costs, with the network's default settings."""
TRIES = 12
"""Nodes that are looked at for one who can be named."""


class World:
    """Machines, tunnels and what happens to them. What is left to chance is decided by the seed of the plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = Random(plan.seed)  # noqa: S311
        self.engine = Engine(START)
        self.region_length = plan.region_length
        self.event_log = Silent()
        self.registry_answers = True
        self.calls = 0
        """Calls of nodes that asked the registry for somebody."""
        self.counts: Counter[str] = Counter()
        """Messages that nodes sent each other, tunnels that came up, and that did not."""
        self.machines: list[Host] = []
        self.by_prefix: dict[Prefix, Host] = {}
        self.places: dict[Prefix, int] = {}
        """Where each node is in its region."""
        self.regions: dict[Prefix, Region] = {}
        self.across: set[Wire] = set()
        """Links between regions that carry routes."""
        self.blocked: Callable[[Host, Host], bool] | None = None
        """What the network below does not carry."""
        self._registry_free = START
        self._dirty: set[Region] = set()
        self._untold: set[Region] = set()
        self._across_dirty = False
        self._touched: set[Host] = set()
        self._settle_in()

    def _settle_in(self) -> None:
        plan = self.plan
        found = [places.place(self.rng) for _ in range(plan.nodes)]
        count = 1 << plan.region_length
        if plan.by_place:
            groups = places.neighbourhoods(found, count)
        else:
            groups = [list(range(first, plan.nodes, count)) for first in range(count)]
        size = max(1, round(max(map(len, groups)) * plan.spare))
        bits = (size - 1).bit_length()
        self._length = plan.region_length + bits
        registry = Prefix(0, self._length)
        self._settings = policy.Settings(
            registry, registry, plan.client_count, plan.refresh, CLOSE_TIME, region_length=plan.region_length
        )
        for number, group in enumerate(groups):
            region = Prefix(number, plan.region_length)
            self.regions[region] = Region(region, size)
            for index in group:
                self.add(region, found[index], public=self.rng.random() >= plan.hidden)
        self.machines[0].public = True

    def add(self, region: Prefix, place: places.Place, *, public: bool) -> Host:
        """A machine more, which does not run yet."""
        room = self.regions[region]
        slot = sum(1 for each in self.machines[-len(room.nodes) :] if each.region is room)
        prefix = Prefix(region.value << self._length - self.region_length | slot, self._length)
        while prefix in self.by_prefix:
            slot += 1
            prefix = Prefix(prefix.value + 1, self._length)
        machine = Host(
            self,
            replace(self._settings, own=prefix),
            room,
            slot,
            place,
            public=public,
            max_clients=self.plan.max_clients,
        )
        self.machines.append(machine)
        self.by_prefix[prefix] = machine
        self.places[prefix] = slot
        return machine

    # -- machines that come and go --

    @property
    def now(self) -> float:
        return self.engine.now

    def running(self) -> list[Host]:
        return [machine for machine in self.machines if machine.running]

    def start(self, machine: Host) -> None:
        """A machine's daemon starts; if it is its first in a while, without any tunnel."""
        if machine.running:
            return
        machine.region.nodes[machine.slot] = machine.prefix
        self._dirty.add(machine.region)
        for wire in list(machine.links):  # of which the others have not noticed yet that they are cut
            self._remove(wire)
        machine.clients = 0
        machine.ghosts, machine.dead_clients = [], DeadClients()
        machine.start()

    def kill(self, machine: Host) -> None:
        """A machine is gone without a word."""
        machine.running = False
        machine.region.nodes[machine.slot] = None
        self._dirty.add(machine.region)
        for link in list(machine.links):
            self._cut(link)

    def upgrade(self, machine: Host) -> None:
        """The next daemon takes the place of the one that runs, and its tunnels."""
        machine.start()

    def block(self, blocked: Callable[[Host, Host], bool] | None) -> None:
        """The network below carries nothing between two machines for which this is true."""
        self.blocked = blocked
        if blocked is not None:
            links = {link for machine in self.machines for link in machine.links if link.client is machine}
            for link in sorted(links, key=lambda each: (each.client.prefix.value, each.server.prefix.value)):
                if blocked(link.client, link.server):
                    self._cut(link)

    def _cut(self, link: Wire) -> None:
        """Nothing passes any more: both ends notice, the server's process last."""
        if not link.up:
            return
        link.up = False
        client, server = link.client, link.server

        def notice() -> None:
            self._remove(link)
            if client.running and (held := client.mesh.tunnels.get(server.prefix)) is not None:
                client.tell(policy.LinkDead(server.prefix, held.interface))

        self.later(NOTICED_MIN, NOTICED_MAX, notice)

    def _remove(self, link: Wire) -> None:
        self._route(link, routes=False)
        client, server = link.client, link.server
        if link not in server.links:
            return
        client.links.remove(link)
        server.links.remove(link)
        server.ghosts.append(link)
        if not link.up:
            server.dead_clients.died(client.prefix, link.interface_of(server), self.now)
        self.engine.after(DISCONNECT_TIME if link.up else self.plan.forget, lambda: self._forget(link))

    def _forget(self, link: Wire) -> None:
        """The server gives up a client that is gone, if it has not yet."""
        client, server = link.client, link.server
        if link in server.ghosts:
            server.ghosts.remove(link)
            server.clients -= 1
            server.dead_clients.heard((client.prefix,))
            server.tell(policy.ClientDown(client.prefix))

    def _make_room(self, server: Host, newcomer: Host) -> bool:
        """Whether a server takes a newcomer: who comes again has its own place, others may have that of a dead one."""
        gone = next((ghost for ghost in server.ghosts if ghost.client is newcomer), None)
        if gone is None and server.clients >= server.max_clients:
            spare = server.dead_clients.spare(self.now)[:1]
            gone = next((ghost for ghost in server.ghosts if ghost.client.prefix in spare), None)
        if gone is not None:
            self._forget(gone)
        return server.clients < server.max_clients

    def _route(self, link: Wire, *, routes: bool) -> None:
        """Routes use a link from now on, or do no more."""
        if link.routes == routes:
            return
        link.routes = routes
        client, server = link.client, link.server
        self._touched |= {client, server}
        if client.region is server.region:
            self._dirty.add(client.region)
            if routes:
                client.region.link(client.slot, server.slot, link.cost)
            else:
                client.region.unlink(client.slot, server.slot)
        else:
            self._across_dirty = True
            (self.across.add if routes else self.across.discard)(link)

    # -- what machines have done --

    def later(self, least: float, most: float, do: Callable[[], None]) -> None:
        """Have something done in so many seconds, at random."""
        self.engine.after(self.rng.uniform(least, most), do)

    def open(self, machine: Host, peer: Prefix) -> None:
        self.later(CONNECT_MIN, CONNECT_MAX, lambda: self._connect(machine, machine.starts, peer))

    def _connect(self, machine: Host, starts: int, peer: Prefix) -> None:
        server = self.by_prefix[peer]
        if not machine.running or machine.starts != starts:
            return
        blocked = self.blocked is not None and self.blocked(machine, server)
        if not server.running or not server.public or blocked:
            self.counts["tunnels not answered"] += 1
            self.engine.after(CONNECT_FAILS, lambda: self._failed(machine, starts, peer))
        elif not self._make_room(server, machine):
            self.counts["tunnels turned away"] += 1
            machine.tell(policy.TunnelDown(peer))
        else:
            self.counts["tunnels"] += 1
            server.clients += 1
            server.dead_clients.joined(machine.prefix, self.now)
            trip = places.round_trip(machine.place, server.place)
            excess = max(0.0, min(trip, RTT_MAX) - RTT_MIN)
            link = Wire(machine, server, BASE + round(PENALTY * excess / (RTT_MAX - RTT_MIN)))
            machine.links.append(link)
            server.links.append(link)
            self.engine.after(MEET_TIME, lambda: self._meet(link))
            machine.remember(peer, endpoints(peer))
            server.tell(policy.ClientUp(machine.prefix))
            machine.tell(policy.TunnelUp(peer, name(peer)))

    def _failed(self, machine: Host, starts: int, peer: Prefix) -> None:
        if machine.starts == starts:
            machine.tell(policy.TunnelDown(peer))

    def _meet(self, link: Wire) -> None:
        if link.up and link in link.client.links and not link.drained:
            self._route(link, routes=True)

    def close(self, machine: Host, peer: Prefix) -> None:
        def end() -> None:
            for link in [link for link in machine.links if link.client is machine and link.server.prefix == peer]:
                self._remove(link)
            machine.tell(policy.TunnelDown(peer))

        self.engine.after(DISCONNECT_TIME, end)

    def drain(self, machine: Host, interface: str, *, drained: bool) -> None:
        for link in machine.links:
            if link.interface_of(machine) == interface and link.up:
                link.drained = drained
                if drained:
                    self.engine.after(DRAIN_SEEN, lambda link=link: self._leave(link))  # type: ignore[misc]
                else:
                    self._route(link, routes=True)

    def _leave(self, link: Wire) -> None:
        if link.drained:
            self._route(link, routes=False)

    def send(self, machine: Host, peer: Prefix, code: Code) -> None:
        self.counts["messages"] += 1
        if self.rng.random() >= MESSAGES_ARRIVE:
            return
        match code:
            case Code.ADDRESS if peer.length <= self.region_length:
                self.later(ANSWER_MIN, ANSWER_MAX, lambda: self._answer_for_region(machine, peer))
            case Code.ADDRESS:
                self.later(ANSWER_MIN, ANSWER_MAX, lambda: self._answer(machine, peer))
            case Code.ASK_CLOSE:
                self._message(machine, peer, policy.CloseAsked(machine.prefix))
            case Code.ALLOW_CLOSE:
                self._message(machine, peer, policy.CloseAllowed(machine.prefix))
            case _:
                raise ValueError(f"the policy does not send {code}")

    def _message(self, machine: Host, peer: Prefix, event: policy.Event) -> None:
        self.later(MESSAGE_MIN, MESSAGE_MAX, lambda: self.by_prefix[peer].tell(event))

    def _answer(self, machine: Host, peer: Prefix) -> None:
        other = self.by_prefix[peer]
        if not machine.running or not other.running or not self.reaches(machine, other):
            return
        self.counts["messages"] += 1
        machine.remember(peer, endpoints(peer)) if other.public else None
        machine.tell(policy.AddressLearned(peer, endpoints(peer) if other.public else ()))

    def _answer_for_region(self, machine: Host, region: Prefix) -> None:
        """The nearest of a few names somebody whom it remembers, or itself."""
        part = machine.region.part_of[machine.slot]
        if not machine.running or part is None or region not in part.regions:
            return
        asking = machine
        if machine.region_prefix == region:
            across = [wire.other_end(machine) for wire in machine.links if wire in self.across]
            if not across:
                return
            asking = self.rng.choice(across)
        who = self._whoever(self.regions[region], near=asking)
        if who is None:
            return
        known = [peer for peer in who.memory if region_of(peer, self.region_length) == region]
        named = self.rng.choice([*known, who.prefix] if who.public else known) if who.public or known else None
        if named is None:
            return
        self.counts["messages"] += 1
        machine.tell(policy.RegionAnswered(region, named, endpoints(named)))

    def _whoever(self, region: Region, near: Host) -> Host | None:
        """Somebody who runs in a region, and has links: of three, the nearest."""
        found = []
        for _ in range(TRIES):
            prefix = self.rng.choice(region.nodes)
            if prefix is not None and self.by_prefix[prefix].links:
                found.append(self.by_prefix[prefix])
        return min(found[:3], key=lambda each: places.round_trip(each.place, near.place), default=None)

    def ask_registry(self, machine: Host) -> None:
        """The registry has its node ask the region of who asks; where nobody answers, it names somebody else."""
        self.calls += 1
        starts = machine.starts
        if not self.registry_answers or (self.blocked and self.blocked(machine, self.machines[0])):
            self.engine.after(REGISTRY_TIMEOUT, lambda: self._named(machine, starts, None))
            return
        self._registry_free = max(self._registry_free, self.now) + 1 / REGISTRY_RATE
        wait = self._registry_free - self.now
        if wait > REGISTRY_TIMEOUT:
            self._registry_free -= 1 / REGISTRY_RATE
            self.engine.after(REGISTRY_TIMEOUT, lambda: self._named(machine, starts, None))
            return
        self.later(
            wait + MESSAGE_MIN,
            wait + MESSAGE_MAX + ANSWER_MAX,
            lambda: self._named(machine, starts, self._first(machine)),
        )

    def _first(self, machine: Host) -> Host | None:
        own = self.machines[0]
        part = own.region.part_of[own.slot]
        if part is None:
            return own if own.running and machine is not own else None
        if machine.region_prefix in part.regions:
            found = self._public(machine.region, part)
            if found is not None and found is not machine:
                return found
        elsewhere = self.regions[self.rng.choice(sorted(part.regions, key=lambda each: each.value))]
        return self._public(elsewhere, part) or own

    def _public(self, region: Region, part: RegionPart) -> Host | None:
        """Somebody in a region who can be connected to, and whom the registry's node reaches, which is in `part`."""
        for _ in range(8 * TRIES):
            slot = self.rng.randrange(len(region.nodes))
            prefix, where = region.nodes[slot], region.part_of[slot]
            if prefix is not None and where is not None and where.regions is part.regions:
                found = self.by_prefix[prefix]
                if found.public and found.links:
                    return found
        return None

    def _named(self, machine: Host, starts: int, peer: Host | None) -> None:
        if not machine.running or machine.starts != starts:
            return
        if peer is None:
            machine.tell(policy.BootstrapAnswered(None))
        else:
            machine.remember(peer.prefix, endpoints(peer.prefix))
            machine.tell(policy.BootstrapAnswered(peer.prefix, endpoints(peer.prefix)))

    # -- routing --

    def reaches(self, machine: Host, other: Host) -> bool:
        """Whether packets of one arrive at the other; in a region of several parts they may come to the wrong one."""
        part, there = machine.region.part_of[machine.slot], other.region.part_of[other.slot]
        if part is None or there is None:
            return False
        if machine.region is other.region:
            return part is there
        return other.region_prefix in part.regions and part.regions is there.regions and not there.split

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass, at most so long; returns how long it was."""
        self._tick_on()

        def look() -> bool:
            self.converge()
            return until is not None and until()

        return self.engine.run(seconds, look)

    def _tick_on(self) -> None:
        """So that there is something due in each step."""

        def again() -> None:
            if self._stepping == token:
                self.engine.after(STEP, again)

        token = self._stepping = self._stepping + 1
        self.engine.after(0, again)

    _stepping = 0

    def converge(self) -> None:
        """Routes are where they belong, and every node is told what it sees, as far as that changed."""
        if not (self._dirty or self._across_dirty or self._untold):
            return
        for region in self._dirty:
            region.find_parts()
        regions = list(self.regions.values())
        before = {part: (part.regions, part.split) for region in regions for part in region.parts}
        global_parts(regions, self._crossings())
        self._untold |= self._dirty
        self._untold.update(
            region for region in regions if any(before[part] != (part.regions, part.split) for part in region.parts)
        )
        looking = set(self._touched)
        for region in [region for region in self._untold if self.now - region.told >= self.plan.news]:
            region.told = self.now
            self._untold.discard(region)
            looking.update(self.by_prefix[prefix] for part in region.parts for prefix in part.members)
        self._dirty, self._across_dirty, self._touched = set(), False, set()
        for machine in sorted(looking, key=lambda each: each.prefix.value):
            if machine.running:
                machine.look()

    def _crossings(self) -> Sequence[tuple[RegionPart, RegionPart]]:
        found = []
        for link in self.across:
            one = link.client.region.part_of[link.client.slot]
            other = link.server.region.part_of[link.server.slot]
            if one is not None and other is not None:
                found.append((one, other))
        return found
