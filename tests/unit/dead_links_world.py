"""What a node that watches its links sees of the machine and of babel, and does: counters, probes and routes are
played, the decisions are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from random import Random

import pytest

from re6st.core.machine.uplinks import Uplink
from re6st.core.machine.wanted_state import AddressPlan
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import Neighbour, NextHop, Route, Table
from re6st.core.routing.detours import ANYWHERE, NOWHERE, Detour, Way
from re6st.core.telemetry.event_log import EventLog
from re6st.linux.link_traffic import Shared
from re6st.linux.probes import EchoAnswer
from re6st.noded.dead_links import DeadLinks, LinkMachine

NETWORK = IPv6Network("2001:db8:42::/48")
OWN, A, B = Prefix.from_cn("9/16"), Prefix.from_cn("1/16"), Prefix.from_cn("2/16")
HOP_A = NextHop(IPv6Address("fe80::a"), "re6stnet1")
HOP_B = NextHop(IPv6Address("fe80::b"), "re6stnet-tcp")
OTHER = NextHop(IPv6Address("fe80::c"), "re6stnet-tcp")
HARDWARE = {HOP_B: "02:00:00:00:00:0b", OTHER: "02:00:00:00:00:0c"}
OTHERS, OURS = Prefix.from_cn("3/16"), subnet(NETWORK, OWN)
WAY_A, WAY_B = (subnet(NETWORK, A), ANYWHERE), (subnet(NETWORK, B), ANYWHERE)


@dataclass
class World:
    """What the room sees of the machine and of babel; and what it does. The clock is played."""

    now: float = 100.0
    table: Table = field(default_factory=Table)
    counts: bool = True
    active: bool = False
    """Whether the packet filter drops what comes from outside with our address."""
    received: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    local: dict[str, int] = field(default_factory=dict)
    shared_now: Shared = field(default_factory=Shared)
    asked: list[tuple[IPv6Address, int]] = field(default_factory=list)
    heard: list[EchoAnswer] = field(default_factory=list)
    routes: dict[Way, Detour] = field(default_factory=dict)
    events: list[policy.Event] = field(default_factory=list)
    wanted: tuple[AddressPlan, ...] = ()
    closed: int = 0
    answers_to: set[IPv6Address] = field(default_factory=set)
    owners: dict[NextHop, Prefix] = field(default_factory=lambda: {HOP_A: A, HOP_B: B})
    sources: list[IPv6Address] = field(default_factory=list)
    """From where those were asked that are not to be asked from just anywhere."""
    followed: int = 0
    over_tcp: frozenset[str] = frozenset()
    gone: set[NextHop] = field(default_factory=set)
    """Whose tunnels have ended."""
    avoided: frozenset[NextHop] = frozenset()
    """The links of which the second plane was told."""
    lost: dict[IPv6Address, float] = field(default_factory=dict)
    """Which part of the requests to an address is not answered, by chance."""
    rng: Random = field(default_factory=lambda: Random(1))
    lossy: frozenset[NextHop] = frozenset()
    """Those that the policy avoids."""
    forgotten: list[str] = field(default_factory=list)
    """Interfaces whose neighbours babel was to forget."""
    lines: dict[Prefix, Uplink] = field(default_factory=dict)
    """Of this machine, over which our tunnels to peers go."""

    def __post_init__(self) -> None:
        self.event_log = EventLog()
        machine = LinkMachine(self, self, self, self, lambda: self, lambda: self, (self,), self.forgotten.append)
        self.room = DeadLinks(
            *(NETWORK, OWN, self, self, machine, self.events.append, self.event_log),
            avoided=lambda: self.lossy,
            line=lambda peer, _: self.lines.get(peer),
            clock=lambda: self.now,
        )

    # the ends and their hardware addresses

    def owner_at(self, hop: NextHop) -> Prefix | None:
        return self.owners.get(hop)

    def is_shared(self, interface: str) -> bool:
        return interface == "re6stnet-tcp"

    def left(self, hops: Iterable[NextHop]) -> frozenset[NextHop]:
        return frozenset(hop for hop in hops if hop in self.gone)

    def is_over_tcp(self, interface: str) -> bool:
        return interface in self.over_tcp

    def __getitem__(self, hop: NextHop) -> str:
        return HARDWARE.get(hop, "")

    def find(self, hops: Iterable[NextHop]) -> None:
        self.looked_up = list(hops)

    # counters

    def by_interface(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        return {name: (self.received.get(name, 0), self.sent.get(name, 0)) for name in names}

    def local_sent(self) -> dict[str, int]:
        return self.local

    def shared(self) -> Shared:
        return Shared(dict(self.shared_now.received), dict(self.shared_now.sent), self.shared_now.full)

    def close(self) -> None:
        self.closed += 1

    # echo requests

    def ask(self, address: IPv6Address, index: int = 0, source: IPv6Address | None = None) -> int:
        self.asked.append((address, index))
        if source is not None:
            self.sources.append(source)
        if address in self.answers_to and self.rng.random() >= self.lost.get(address, 0.0):
            self.heard.append(EchoAnswer((address, index), len(self.asked), 0.01))
        return len(self.asked)

    def answers(self) -> Iterator[EchoAnswer]:
        while self.heard:
            yield self.heard.pop(0)

    # routes

    async def follow(self, wanted: Mapping[Way, Detour], plans: Iterable[AddressPlan]) -> None:
        self.routes = dict(wanted)
        self.followed += 1

    # the second plane

    async def avoid(self, dead: frozenset[NextHop]) -> None:
        self.avoided = dead

    # what a test does

    def meet(self, *hops: NextHop) -> None:
        for hop in hops:
            self.table.neighbours[str(hop)] = Neighbour(str(hop), hop.address, hop.interface, 0xFFFF, 96, 96, 96, None)

    def way(self, way: Way, via: NextHop, refmetric: int, *, used: bool) -> None:
        ident, destination = f"{way}{via}", way[0]
        assert isinstance(destination, IPv6Network)
        self.table.routes[ident] = Route(ident, destination, way[1], used, refmetric + 96, refmetric, via)

    def flow(self, hop: NextHop, seconds: float, *, back: bool) -> None:
        """Packets go out to a neighbour, with answers or without, while the room looks when it wants to."""
        until = self.now + seconds
        while self.now < until:
            self.sent[hop.interface] = self.sent.get(hop.interface, 0) + 2
            if self.is_shared(hop.interface):
                key = hop.interface, hop.address
                self.shared_now.sent[key] = self.shared_now.sent.get(key, 0) + 2
            if back:
                self.come(hop)
            self.look()

    def die(self, hop: NextHop, seconds: float) -> None:
        """After packets went both ways nobody answers any more, and some time passes."""
        self.flow(hop, 2, back=True)
        self.answers_to.clear()
        self.flow(hop, seconds, back=False)

    def come(self, hop: NextHop) -> None:
        self.received[hop.interface] = self.received.get(hop.interface, 0) + 1
        if self.is_shared(hop.interface):
            key = hop.interface, HARDWARE[hop]
            self.shared_now.received[key] = self.shared_now.received.get(key, 0) + 1

    def look(self) -> None:
        self.now += self.room.pause(self.now)
        asyncio.run(self.room.look(self, self))


@pytest.fixture(name="world")
def make_world(monkeypatch: pytest.MonkeyPatch) -> World:
    names = ["", "re6stnet1", "re6stnet-tcp", "re6stnet-wg1", "re6stnet-wgs1"]
    monkeypatch.setattr("socket.if_nametoindex", names.index)
    monkeypatch.setattr("socket.if_indextoname", names.__getitem__)
    made = World()
    made.meet(HOP_A, HOP_B)
    made.way(WAY_A, HOP_A, 0, used=True)
    made.way(WAY_A, HOP_B, 96, used=False)
    made.way(WAY_B, HOP_B, 0, used=True)
    made.way(WAY_B, HOP_A, 96, used=False)
    made.answers_to = {HOP_A.address, HOP_B.address}
    return made


def around(world: World) -> list[Way]:
    """What is led around dead links. Packets of ours that have no source yet go as those from our subnet do."""
    found = [way for way, detour in world.routes.items() if detour.leads_around]
    ours = {way[0] for way in found if way[1] == OURS}
    assert {way[0] for way in found if way[1] == NOWHERE} <= ours
    return [way for way in found if way[1] != NOWHERE]
