"""Two nodes whose rooms agree on WireGuard links, in memory, and scenes that they play."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import Signature, signature
from ipaddress import IPv6Address
from types import SimpleNamespace
from typing import Any

from re6st.core.mesh import policy
from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.survey import LinkUse, Survey
from re6st.core.transport.link_records import LinkRecord
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_uapi import Address, LinkConfig, LinkState
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire import wireguard as words
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.linux.wireguard import WireGuardError
from re6st.noded.further_links import FurtherLinks
from re6st.noded.line_places import Here
from re6st.noded.settings import EffectiveConfig, InForce
from re6st.noded.takeover import Records
from re6st.noded.wireguard import WireGuard
from re6st.service.tasks import Tasks, end
from re6st.tunnel import Dialer, ServerClient
from tests.unit.fake_program import until
from tests.unit.tunnel_doubles import FakeDialer, FakeFilter, Surroundings

A, B = "1/16", "0/16"
SERIAL = 11
TAP = "re6stnet1"


class Air:
    """All devices there are: two that have the keys of each other, and one of which dialled, hear each other."""

    def __init__(self) -> None:
        self.devices: list[Device] = []
        self.passes = True

    def cable(self) -> None:
        if not self.passes:
            return
        known = {device.own_key: device for device in self.devices if device.config is not None}
        for device in self.devices:
            config = device.config
            other = None if config is None else known.get(config.peer)
            if config is None or config.endpoint is None or other is None or other.config is None:
                continue
            if other.config.peer == device.own_key:
                device.now = replace(device.now, handshake=1.0, received=1)
                other.now = replace(other.now, handshake=1.0, received=1)


class Device:
    process = (4711, "r601234567")

    def __init__(self, air: Air, interface: str) -> None:
        self.air = air
        self.interface = interface
        self.config: LinkConfig | None = None
        self.marked = 0
        self.dialled: Address | None = None
        self.now = LinkState()
        self.ended = asyncio.Event()

    @property
    def own_key(self) -> bytes:
        return b"" if self.config is None else PUBLIC[self.config.secret]

    async def configure(self, config: LinkConfig) -> None:
        self.marked = config.mark or self.marked
        if config.endpoint is not None:
            self.dialled = config.endpoint[0]
        self.config, self.now = config, LinkState(config.port, config.peer, endpoint=config.endpoint)
        self.air.cable()

    async def state(self) -> LinkState:
        if self.ended.is_set():
            raise WireGuardError(None, f"{self.interface} has ended")
        return self.now

    async def gone(self) -> None:
        await self.ended.wait()

    async def remove(self) -> None:
        self.ended.set()
        if self in self.air.devices:
            self.air.devices.remove(self)


PUBLIC: dict[bytes, bytes] = {}


class Kernel:
    """Notes which interfaces it was given; they are those of a node's links."""

    def __init__(self) -> None:
        self.links: list[str] = []
        self.bounced: list[str] = []
        self.deleted: list[str] = []
        self.inside: set[str] = set()
        """Hosts to which the way leads through the network itself."""

    def take_link(self, name: str) -> None:
        self.links.append(name)

    def keep_link_up(self, name: str, address: IPv6Address) -> None: ...

    def leave_link(self, name: str) -> None:
        if name in self.links:
            self.links.remove(name)

    async def leads_outside(self, host: str, mark: int = 0) -> bool:
        return host not in self.inside

    async def delete_link(self, name: str) -> None:
        self.deleted.append(name)

    async def bounce(self, name: str, until_unused: Callable[[], Awaitable[None]]) -> None:
        self.bounced.append(name)

    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None: ...

    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None: ...

    def set_mtu(self, index: int, mtu: int) -> None: ...

    def bytes_sent(self, index: int) -> int | None: ...


@dataclass
class Node:
    """One with its room, and what that sees of the others. `other` hears what it says."""

    effective: EffectiveConfig
    air: Air
    tasks: Tasks
    name: str = "a play"
    events: list[policy.Event] = field(default_factory=list)
    held: dict[Prefix, Dialer] = field(default_factory=dict)
    clients: dict[Prefix, ServerClient] = field(default_factory=dict)
    retired: list[Prefix] = field(default_factory=list)
    links_ended: list[Prefix] = field(default_factory=list)
    """Clients that had links instead of their tunnels, and are gone."""
    greeted: list[Prefix] = field(default_factory=list)
    ways: list[str] = field(default_factory=list)
    open: frozenset[int] = frozenset()
    """Ports of links that the router is to open."""
    speaks: bool = True
    bare: bool = False
    """It has said that it has no links."""
    hears: bool = True
    refused: set[Prefix] = field(default_factory=set)
    other: Node | None = None
    running: list[asyncio.Task[None]] = field(default_factory=list)
    carry: Callable[[Prefix, Prefix, bytes], None] | None = None
    """Takes what it says, instead of `other`."""
    begin: Callable[[Prefix, Prefix], None] = lambda _own, _peer: None
    """Begins a session anew."""
    lines: UplinkChoice = field(default_factory=UplinkChoice)
    endpoints: list[Endpoint] = field(default_factory=list)
    """Where it tells others that it is."""
    table: Table = field(default_factory=Table)
    """Babel's."""
    age: float | None = 0.0
    """Of the table; None while no babeld tells it."""
    priority: int = 1024
    """Of that babeld's routes: each has another one."""
    asked: int = 0
    """How often it was asked for its table."""
    said_of_further: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kernel, self.drains = Kernel(), FakeFilter()
        self.own = self.effective.identity.prefix
        self.in_force = InForce(self.effective)
        self.mesh = policy.Mesh(self.effective.mesh(can_drain=True), {}, random.Random(1))
        self.sessions: Any = SimpleNamespace(peer=lambda _: None, connected=lambda *_: True)
        self.start()

    def start(self) -> None:
        """A daemon of it starts."""
        parts = self.in_force, self.mesh, self.event, self.kernel, self.drains, Surroundings(), self.tasks
        self.first = WireGuard(*parts, self, self.kernel)
        here = Here(self.lines, self, lambda: self.endpoints)
        self.room = FurtherLinks(self.first, *parts, self, self.kernel, here)
        self.room.start(self, self, self)
        self.running.append(self.tasks.start(self.room.run(), "links"))

    def event(self, event: policy.Event) -> None:
        self.events.append(event)
        self.mesh.handle(event, 0)

    # an Implementation

    async def make(self, interface: str) -> Device:
        device = Device(self.air, interface)
        self.air.devices.append(device)
        return device

    def found(self, interface: str, process: tuple[int, str] | None) -> Device:
        for device in self.air.devices:
            if device.interface == interface:
                return device
        raise WireGuardError(None, f"there is no {interface}")

    # tunnels

    @property
    def servers(self) -> Node:
        return self

    def openvpn_tunnels(self) -> dict[Prefix, Dialer]:
        return self.held

    def client(self, peer: Prefix) -> tuple[TunnelProtocol, ServerClient] | None:
        return (TunnelProtocol.TCP, self.clients[peer]) if peer in self.clients else None

    def admits(self, peer: Prefix, serial: int | None) -> bool:
        return peer not in self.refused and serial not in self.effective.parameters.crl

    def link_ended(self, peer: Prefix) -> None:
        self.links_ended.append(peer)

    def retire(self, peer: Prefix) -> None:
        self.retired.append(peer)
        self.held.pop(peer)

    def hold_way(self, address: str | None) -> None:
        self.ways.append(f"+{address}")

    def let_go(self, address: str | None) -> None:
        self.ways.append(f"-{address}")

    # the router

    def open_for_links(self, ports: frozenset[int]) -> None:
        self.open = ports

    # peers

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        assert code in (Code.WIREGUARD, Code.FURTHER_LINKS)
        if code == Code.FURTHER_LINKS:
            self.said_of_further.append(payload)
        if self.carry is not None:
            asyncio.get_running_loop().call_soon(self.carry, self.own, peer, bytes([code]) + payload)
        elif self.other is not None and self.other.hears:
            asyncio.get_running_loop().call_soon(self.other.hear, self.own, code, payload)

    def hear(self, peer: Prefix, code: int, payload: bytes) -> None:
        """A message has come."""
        room = self.room.first if code == Code.WIREGUARD else self.room
        room.received(peer, payload)

    def ensure(self, peer: Prefix) -> None:
        self.greeted.append(peer)

    def begin_anew(self, peer: Prefix) -> None:
        self.begin(self.own, peer)

    # babel

    def read_soon(self) -> None:
        self.asked += 1

    # what happens

    def dial(self, other: Node) -> None:
        """A tunnel of OpenVPN to another node is up, and babel has met it."""
        dialer = FakeDialer(TAP, other.own, connected=True)
        dialer.serial, dialer.number, dialer.since = SERIAL, 7, -100.0
        dialer.endpoint = Endpoint("192.0.2.2", 1194, TunnelProtocol.TCP)
        self.held[other.own] = dialer
        self.event(policy.Resumed(((other.own, TAP),)))
        other.clients[self.own] = ServerClient(self.own, SERIAL, "192.0.2.1", number=8)
        other.event(policy.ClientUp(self.own))
        self.sees(other, {TAP: [other.own]})
        other.sees(self, {"re6stnet-tcp": [self.own]})

    def sees(self, other: Node, interfaces: dict[str, list[Prefix]]) -> None:
        hops = tuple(
            LinkUse(NextHop(IPv6Address("fe80::1"), name), frozenset(carried), frozenset())
            for name, carried in interfaces.items()
        )
        seen = Survey(frozenset({other.own}), neighbours={other.own: hops}, alive=frozenset(interfaces))
        self.mesh.handle(policy.Surveyed(seen), 0)

    def meets(self, *interfaces: str) -> None:
        """Babel meets somebody on these interfaces, and on no others."""
        self.table = Table()
        for number, name in enumerate(interfaces):
            self.table.feed(
                f"add neighbour {number} address fe80::{number + 1:x} if {name} reach ffff ureach 0000 rxcost 96 "
                "txcost 96 rtt 1.000 rttcost 0 cost 96"
            )

    def links(self) -> list[WireGuardLink]:
        """All that are up."""
        agreements = [self.first.agreement, *self.room.agreements()]
        return [link for agreement in agreements for link in agreement.links.values()]

    def served_link(self, other: Node) -> WireGuardLink:
        return self.first.agreement.links[other.own]

    def moved(self) -> list[tuple[Prefix, str]]:
        return [(event.peer, event.interface) for event in self.events if isinstance(event, policy.TunnelMoved)]

    def shows(self, serial: int, until: float = 4e9) -> None:
        """In its sessions, peers show a certificate."""
        self.sessions.peer = lambda _: SimpleNamespace(proved=SimpleNamespace(serial=serial, until=until))

    def is_told(self, other: Node, message: words.Message) -> None:
        self.first.received(other.own, words.encode(message))

    def is_told_of_the_link(self, other: Node) -> None:
        """That the other one has it."""
        link = self.served_link(other)
        self.is_told(other, words.Confirm(link.number, link.theirs.key, link.own.terms.key))

    def noted(self) -> dict[str, LinkRecord]:
        """What the next daemon would find of links."""
        return Records(self.effective.config.run).read_links()

    def serials(self) -> list[int | None]:
        """Of the certificates with which the peers have their links."""
        return [end.identity.serial for end in self.room.ends()]

    def client_events(self) -> list[type[policy.Event]]:
        return [type(each) for each in self.events if isinstance(each, policy.ClientUp | policy.ClientDown)]


@dataclass
class World:
    a: Node
    b: Node
    air: Air

    async def linked(self) -> None:
        """Their link is up."""
        self.a.dial(self.b)
        await until(lambda: "re6stnet-wg1" in self.a.kernel.links and len(self.b.events) > 1)

    async def moved(self) -> None:
        """It carries the tunnel, and the old one was ended."""
        await self.linked()
        both = {"re6stnet-wg1": [], TAP: [self.b.own]}, {"re6stnet-wgs1": [], "re6stnet-tcp": [self.a.own]}
        self.a.sees(self.b, both[0])
        self.b.sees(self.a, both[1])
        await until(lambda: self.a.moved() == [(self.b.own, "re6stnet-wg1")])
        await until(lambda: self.a.drains.done == [TAP])
        self.a.sees(self.b, {"re6stnet-wg1": [self.b.own], TAP: []})
        self.b.sees(self.a, {"re6stnet-wgs1": [self.a.own]})
        await until(lambda: self.a.retired == [self.b.own])
        del self.b.clients[self.a.own]
        self.b.event(policy.ClientDown(self.a.own))


Play = Callable[[Callable[[World], Awaitable[None]]], None]


def scene(acts: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Makes a test of a scene that two nodes play. What it asks for beside its world are fixtures and cases."""

    @wraps(acts)
    def test(play: Play, **others: Any) -> None:
        play(lambda world: acts(world, **others))

    # By this, pytest knows what the test asks for.
    world, *others = signature(acts).parameters.values()
    test.__signature__ = Signature([world.replace(name="play"), *others])  # type: ignore[attr-defined]
    return test


async def killed(node: Node) -> dict[str, LinkRecord]:
    """Its daemon ends, and leaves everything as it is; what the next one, which starts, finds of links."""
    for task in node.running:
        await end(task)
    for task in [each for each in asyncio.all_tasks() if each.get_name().startswith("WireGuard interface")]:
        await end(task)
    node.mesh = policy.Mesh(node.effective.mesh(can_drain=True), {}, random.Random(1))
    node.events.clear()
    found = node.noted()
    node.start()
    return found
