"""What a WireGuard link means to the rooms of a node: a tunnel of ours goes on by it, a client of ours stays one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from re6st import cert
from re6st.client.files import Files
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey
from re6st.core.transport.link_records import LinkRecord
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_state import CHECK_AGAIN, DIAL_TIME, KEY_LIFE, LIVES, PEERS_LIMIT
from re6st.core.transport.wireguard_uapi import Address, LinkConfig, LinkState
from re6st.core.tunnel_protocols import TunnelCarrier, TunnelProtocol
from re6st.core.wire import wireguard as words
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.core.wire.extensions import Extension
from re6st.core.wire.params import Parameters
from re6st.core.wire.sessions import AbilitiesTold, Datagram, Message, Output, Sessions
from re6st.core.wire.wireguard import Confirm, Met, Propose, Terms, link_local
from re6st.keys.wireguard import new_keys
from re6st.linux.wireguard import WireGuardError
from re6st.noded import link_table
from re6st.noded import wireguard as room
from re6st.noded.settings import Config, EffectiveConfig, InForce
from re6st.noded.takeover import Records
from re6st.noded.wireguard import WireGuard
from re6st.service.tasks import Tasks, end
from re6st.transport import wireguard as links
from re6st.tunnel import Dialer, ServerClient
from tests.unit.core.wire.test_seals import PlaySealer, SealedWorld
from tests.unit.fake_program import until
from tests.unit.session_world import NETWORK, PlayCertificate, PlayCrypto, source
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
        self.now = LinkState()
        self.ended = asyncio.Event()

    @property
    def own_key(self) -> bytes:
        return b"" if self.config is None else PUBLIC[self.config.secret]

    async def configure(self, config: LinkConfig) -> None:
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

    def take_link(self, name: str) -> None:
        self.links.append(name)

    def keep_link_up(self, name: str, address: IPv6Address) -> None: ...

    def leave_link(self, name: str) -> None:
        if name in self.links:
            self.links.remove(name)

    async def delete_link(self, name: str) -> None:
        self.deleted.append(name)

    async def bounce(self, name: str, until_unused: Callable[[], Awaitable[None]]) -> None:
        self.bounced.append(name)

    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None: ...

    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None: ...

    def set_mtu(self, index: int, mtu: int) -> None: ...


@dataclass
class Node:
    """One with its room, and what that sees of the others. `other` hears what it says."""

    plan: EffectiveConfig
    air: Air
    tasks: Tasks
    name: str = "a play"
    events: list[policy.Event] = field(default_factory=list)
    held: dict[Prefix, Dialer] = field(default_factory=dict)
    clients: dict[Prefix, ServerClient] = field(default_factory=dict)
    retired: list[Prefix] = field(default_factory=list)
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

    def __post_init__(self) -> None:
        self.kernel, self.drains = Kernel(), FakeFilter()
        self.own = self.plan.identity.prefix
        self.in_force = InForce(self.plan)
        self.mesh = policy.Mesh(self.plan.mesh(can_drain=True), {}, random.Random(1))
        self.sessions: Any = SimpleNamespace(peer=lambda _: None, connected=lambda *_: True)
        self.start()

    def start(self) -> None:
        """A daemon of it starts."""
        self.room = WireGuard(
            *(self.in_force, self.mesh, self.event, self.kernel, self.drains, Surroundings(), self.tasks),
            *(self, self.kernel),
        )
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
        return peer not in self.refused and serial not in self.plan.parameters.crl

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
        assert code == Code.WIREGUARD
        if self.carry is not None:
            asyncio.get_running_loop().call_soon(self.carry, self.own, peer, bytes([code]) + payload)
        elif self.other is not None and self.other.hears:
            asyncio.get_running_loop().call_soon(self.other.room.received, self.own, payload)

    def ensure(self, peer: Prefix) -> None:
        self.greeted.append(peer)

    def begin_anew(self, peer: Prefix) -> None:
        self.begin(self.own, peer)

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

    def served_link(self, other: Node) -> WireGuardLink:
        assert self.room._links is not None
        return self.room._links.agreement.links[other.own]

    def moved(self) -> list[tuple[Prefix, str]]:
        return [(event.peer, event.interface) for event in self.events if isinstance(event, policy.TunnelMoved)]

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


@pytest.fixture
def play(tmp_path: Path, nodes: dict[str, cert.Identity], monkeypatch: pytest.MonkeyPatch) -> Play:
    """Lets two nodes play a scene."""

    def made() -> tuple[bytes, bytes]:
        secret, key = new_keys()
        PUBLIC[secret] = key
        return secret, key

    monkeypatch.setattr(links, "new_keys", made)
    monkeypatch.setattr(links, "bring_up", lambda *_: None)
    monkeypatch.setattr(links, "LOOK_FIRST", 0.01)
    monkeypatch.setattr(room, "LOOK", 0.01)
    monkeypatch.setattr(room, "LOOK_BUSY", 0.01)
    speakers: list[Node] = []
    monkeypatch.setattr(room, "is_spoken_with", lambda *_: all(node.speaks for node in speakers))
    monkeypatch.setattr(
        link_table, "has_none", lambda _, peer, _now: any(node.bare for node in speakers if node.own == peer)
    )

    def plan(cn: str) -> EffectiveConfig:
        files, place = Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key")), tmp_path / cn.partition("/")[0]
        place.mkdir()
        ports = ((1194, TunnelProtocol.TCP),)
        config = Config("http://re6st.example.com/", files, place, place, place, ports=ports, wireguard=True)
        parameters = Parameters(Prefix(0, 16), babel_hello=0.05, max_clients=3)
        return EffectiveConfig(config, nodes[cn], parameters, {"openvpn": "/usr/sbin/openvpn"})

    def run(scene: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asyncio.timeout(30), Tasks() as tasks:
                try:
                    air = Air()
                    one, two = (Node(plan(cn), air, tasks) for cn in (A, B))
                    one.other, two.other = two, one
                    speakers[:] = [one, two]
                    await scene(World(one, two, air))
                finally:
                    await tasks.end_all()

        asyncio.run(whole())

    return run


def test_a_tunnel_moves_to_a_link_and_the_client_of_the_other_stays_one(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.moved()
        a, b = world.a, world.b
        assert a.mesh.tunnels[b.own].interface == "re6stnet-wg1"
        assert b.mesh.clients == {a.own: 1}
        assert b.client_events() == [policy.ClientUp, policy.ClientUp, policy.ClientDown]
        assert (a.room.carries(b.own), b.room.carries(a.own)) == (True, False)
        for node, outgoing in ((a, True), (b, False)):
            (listed,) = node.room.reports()
            assert (listed.outgoing, listed.carrier, listed.protocol) == (outgoing, TunnelCarrier.WIREGUARD, "udp")
            (other,) = node.room.ends()
            assert (other.peer, other.identity.serial) == (b.own if node is a else a.own, SERIAL)
        assert a.open == set(), "only a server needs its port open"
        assert b.open == {b.served_link(a).own.terms.port}
        assert b.room.served(TunnelProtocol.TCP, b.own) == 1
        assert b.room.served(TunnelProtocol.TCP, a.own) == b.room.served(TunnelProtocol.UDP, b.own) == 0

    play(scene)


def test_the_end_of_the_tunnel_ends_the_link_at_both_ends(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.moved()
        world.a.room.end(world.b.own)
        await until(lambda: not world.air.devices)
        assert not world.a.kernel.links + world.b.kernel.links
        assert world.b.mesh.clients == {}
        assert world.a.kernel.bounced == ["re6stnet-wg1"], "babel is told that nobody is there"
        assert world.b.ways == ["+192.0.2.1", "-192.0.2.1"]
        assert not world.b.open, "the router sends nothing to it any more"

    play(scene)


def test_who_holds_a_tunnel_hears_when_its_link_ends(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.moved()
        waiting = asyncio.create_task(world.a.room.outlast(world.b.own))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        for device in list(world.air.devices):
            if device.interface == "re6stnet-wg1":
                device.ended.set()
        await asyncio.wait_for(waiting, 10)
        assert not world.a.room.carries(world.b.own)
        assert world.a.room.why_not(world.b.own)

    play(scene)


def test_where_no_handshake_comes_the_tunnel_stays_and_it_is_said_why(play: Play) -> None:
    async def scene(world: World) -> None:
        world.air.passes = False
        world.a.dial(world.b)
        await until(lambda: world.a.room.why_not(world.b.own) != "")
        assert "no handshake" in world.a.room.why_not(world.b.own)
        assert world.a.moved() == []
        assert world.a.retired == []
        await until(lambda: not world.air.devices)
        assert world.b.client_events() == [policy.ClientUp]

    play(scene)


def test_a_peer_that_cannot_have_links_is_greeted_now_and_then_and_left_alone(play: Play) -> None:
    async def scene(world: World) -> None:
        world.a.speaks = False
        world.a.sessions.connected = lambda *_: False
        world.a.dial(world.b)
        await until(lambda: world.a.greeted == [world.b.own])
        await asyncio.sleep(0.1)
        assert world.a.greeted == [world.b.own]
        assert not world.air.devices

    play(scene)


@pytest.mark.parametrize("refused", [True, False], ids=["one that is kept out", "one without a tunnel"])
def test_only_clients_that_are_there_and_let_in_get_a_link(play: Play, refused: bool) -> None:
    async def scene(world: World) -> None:
        if refused:
            world.b.refused.add(world.a.own)
        world.a.dial(world.b)
        if not refused:
            world.b.clients.clear()
        await until(lambda: world.a.room.why_not(world.b.own) != "")
        assert "does not want" in world.a.room.why_not(world.b.own)
        assert not world.air.devices

    play(scene)


def test_who_is_revoked_has_no_link_at_once_and_hears_nothing(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.moved()
        world.a.hears = False
        world.b.room.cut_off(frozenset({SERIAL + 1}))
        assert len(world.b.room.ends()) == 1
        world.b.room.cut_off(frozenset({SERIAL}))
        assert world.b.room.ends() == []
        assert world.b.mesh.clients == {}
        await until(lambda: not world.b.kernel.links)

    play(scene)


@pytest.mark.parametrize("case", ["a client", "a client whose tunnel is gone", "a server"])
def test_who_is_revoked_while_its_link_waits_for_a_handshake_gets_none(play: Play, case: str) -> None:
    """At once, not when the link would be given up; and though OpenVPN may take a moment to end the tunnel."""

    async def scene(world: World) -> None:
        a, b = world.a, world.b
        node, interface = (a, "re6stnet-wg1") if case == "a server" else (b, "re6stnet-wgs1")
        world.air.passes = False
        a.dial(b)
        await until(lambda: interface in node.kernel.links)
        a.hears = b.hears = False
        if case == "a client whose tunnel is gone":
            b.clients.clear()
        node.room.cut_off(frozenset({SERIAL + 1}))
        if case != "a client whose tunnel is gone":  # nobody knows which certificate that one has
            assert interface in node.kernel.links
        node.room.cut_off(frozenset({SERIAL}))
        await until(lambda: not node.kernel.links, DIAL_TIME / 2)
        assert node.room.ends() == []

    play(scene)


def test_a_handshake_of_who_was_revoked_a_moment_ago_brings_no_link_up(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = world.a, world.b
        world.air.passes = False
        a.dial(b)
        await until(lambda: "re6stnet-wgs1" in b.kernel.links)
        b.refused.add(a.own)
        world.air.passes = True
        world.air.cable()
        await until(lambda: not b.kernel.links)
        assert b.room.ends() == []
        assert b.client_events() == [policy.ClientUp]

    play(scene)


def test_who_has_a_link_is_known_by_the_certificate_by_which_it_says_that_it_has_it(play: Play) -> None:
    """It may have renewed it. A machine that speaks by another certificate of the same node may have no link: that with
    the first one has it, and is cut off when that certificate is revoked."""

    async def scene(world: World) -> None:
        await world.moved()
        a, b = world.a, world.b
        b.sessions.peer = lambda _: SimpleNamespace(proved=SimpleNamespace(serial=SERIAL + 1, until=4e9))
        a.hears = False
        b.room.met_again(a.own)
        b.room.received(a.own, words.encode(Met(b.served_link(a).number, moved=True)))
        assert [end.identity.serial for end in b.room.ends()] == [SERIAL]
        link = b.served_link(a)
        b.room.received(a.own, words.encode(Confirm(link.number, link.theirs.key, link.own.terms.key)))
        assert [end.identity.serial for end in b.room.ends()] == [SERIAL + 1]
        (noted,) = Records(b.plan.config.run).read_links().values()
        assert noted.identity.serial == SERIAL + 1

    play(scene)


class Speech(SealedWorld):
    """The real sessions of two nodes, over which they speak of links."""

    def __init__(self, *nodes: Node) -> None:
        super().__init__()
        self.nodes = {node.own: node for node in nodes}
        for node in nodes:
            self.machines[node.own] = node.sessions = self.made(node.own, SERIAL)
            node.carry, node.begin = self.say, self.begin

    def made(self, own: Prefix, serial: int) -> Sessions:
        certificate = PlayCertificate(own, serial)
        sealer = PlaySealer(certificate)
        sealer.abilities = frozenset({Extension.WIREGUARD})
        return Sessions(NETWORK, PlayCrypto(certificate), 10, b"\0", lambda: next(self.secrets), sealer=sealer)

    def say(self, own: Prefix, other: Prefix, payload: bytes) -> None:
        self.now = time.monotonic()
        self.send(own, other, payload)

    def carry(self, sender: Prefix, outputs: list[Output]) -> int:
        """Each node acts at once on what it is told, as it does on what its socket brings."""
        flying = [(sender, data) for data in self.act(sender, outputs)]
        for count in range(100):
            if not flying:
                return count
            sender, data = flying.pop(0)
            (receiver,) = self.nodes.keys() - {sender}
            outputs = self.machines[receiver].receive(source(sender), data, self.now)
            flying += [(receiver, answer) for answer in self.act(receiver, outputs)]
        raise AssertionError("an endless exchange")

    def act(self, own: Prefix, outputs: list[Output]) -> list[bytes]:
        """What a node sends."""
        sent: list[bytes] = []
        for output in outputs:
            match output:
                case Datagram(_, _, data):
                    sent.append(data)
                case AbilitiesTold(peer):
                    self.nodes[own].room.met_again(peer)
                case Message() as message:
                    if message.code == Code.WIREGUARD:
                        self.nodes[own].room.received(message.peer, message.payload)
                    sent += self.act(own, self.machines[own].answer(message, None, self.now))
        return sent

    def begin(self, own: Prefix, other: Prefix) -> None:
        self.now = time.monotonic()
        self.carry(own, self.machines[own].begin_anew(other, self.now))

    def renew(self, own: Prefix, serial: int) -> None:
        """One goes on with another certificate."""
        fresh, machine = self.made(own, serial), self.machines[own]
        machine.crypto, machine._sealer = fresh.crypto, fresh._sealer
        self.nodes[own].room.renewed()


def test_a_link_ends_with_the_certificate_that_its_peer_renewed_and_not_with_the_earlier_one(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who renews it begins new sessions: in each it is asked whether it has the link, and answers by the new one."""
    monkeypatch.setattr(room, "is_spoken_with", words.is_spoken_with)
    monkeypatch.setattr(link_table, "has_none", words.has_none)

    async def scene(world: World) -> None:
        a, b = world.a, world.b
        speech = Speech(a, b)
        speech.say(a.own, b.own, b"\0")
        await world.moved()
        assert [end.identity.serial for end in (*a.room.ends(), *b.room.ends())] == [SERIAL, SERIAL]
        speech.renew(a.own, SERIAL + 1)
        await until(lambda: [end.identity.serial for end in b.room.ends()] == [SERIAL + 1], CHECK_AGAIN / 2)
        (noted,) = Records(b.plan.config.run).read_links().values()
        assert noted.identity.serial == SERIAL + 1
        b.room.cut_off(frozenset({SERIAL}))
        assert len(b.room.ends()) == 1, "the first one was replaced, and revoked for that"
        b.room.cut_off(frozenset({SERIAL + 1}))
        assert b.room.ends() == []

    play(scene)


def test_whose_certificate_expires_loses_its_link(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that never changes the keys; but nobody whose next certificate is not known to be that of the link."""
    monkeypatch.setattr(room, "PEERS_EVERY", 0.0)

    async def scene(world: World) -> None:
        await world.moved()
        a, b = world.a, world.b
        a.hears = False
        good = True
        b.sessions.crypto = SimpleNamespace(still_good=lambda certificate: good or certificate.serial != SERIAL)
        b.sessions.peer = lambda _: SimpleNamespace(proved=SimpleNamespace(serial=SERIAL + 1))
        b.room.look()
        b.sessions.peer = lambda _: SimpleNamespace(proved=SimpleNamespace(serial=SERIAL))
        b.room.look()
        assert len(b.room.ends()) == 1
        good = False
        b.room.look()
        assert b.room.ends() == []
        await until(lambda: not b.kernel.links)

    play(scene)


def test_that_is_known_of_a_peer_that_has_no_session_any_more(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the next daemon forget when the certificate ends, and how old the keys are."""
    monkeypatch.setattr(room, "PEERS_EVERY", 0.0)

    async def scene(world: World) -> None:
        await world.moved()
        a, b = world.a, world.b
        ends = time.time() + 1000
        b.sessions.peer = lambda _: SimpleNamespace(proved=SimpleNamespace(serial=SERIAL, until=ends))
        a.hears = False
        link = b.served_link(a)
        b.room.received(a.own, words.encode(Confirm(link.number, link.theirs.key, link.own.terms.key)))
        b.sessions.peer = lambda _: None
        (noted,) = Records(b.plan.config.run).read_links().values()
        assert noted.identity.until == ends
        assert noted.keyed == pytest.approx(time.time(), abs=30)
        found = await killed(b)
        b.room.go_on(found.values())
        b.room.look()
        assert len(b.room.ends()) == 1
        monkeypatch.setattr(link_table, "time", SimpleNamespace(time=lambda: ends + 1))
        b.room.look()
        assert b.room.ends() == []

    play(scene)


def test_the_next_daemon_ends_a_link_whose_keys_were_not_changed_for_long(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.moved()
        b = world.b
        (found,) = (await killed(b)).values()
        b.ways.clear()
        b.room.go_on([replace(found, keyed=time.time() - LIVES * KEY_LIFE - 1)])
        await until(lambda: b.room.ends() == [])
        assert b.client_events() == [policy.ClientUp, policy.ClientDown], "as every other one that ends"
        assert b.ways == ["+192.0.2.1", "-192.0.2.1"]
        await until(lambda: not b.air.devices or all(each.interface != "re6stnet-wgs1" for each in b.air.devices))

    play(scene)


def test_a_peer_that_was_started_without_wireguard_has_no_link_any_more(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel may still answer by the one it had, so that something comes in."""
    monkeypatch.setattr(room, "PEERS_EVERY", 0.0)

    async def scene(world: World) -> None:
        await world.moved()
        waiting = asyncio.create_task(world.a.room.outlast(world.b.own))
        world.b.bare, world.a.hears, world.b.hears = True, False, False
        await asyncio.wait_for(waiting, 10)
        assert world.a.room.ends() == []

    play(scene)


def test_the_next_daemon_goes_on_with_links_at_both_ends(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.moved()
        for node in (world.a, world.b):
            found = await killed(node)
            there = node.room.go_on(found.values())
            assert [record.peer for record in there] == ([world.b.own] if node is world.a else [])
        assert world.a.room.carries(world.b.own)
        assert world.b.mesh.clients == {world.a.own: 1}
        waiting = asyncio.create_task(world.a.room.outlast_all())
        await asyncio.sleep(0.1)
        assert not waiting.done(), "a tunnel of ours is carried by one"
        assert {end.interface for node in (world.a, world.b) for end in node.room.ends()} == {
            "re6stnet-wg1",
            "re6stnet-wgs1",
        }
        world.a.room.end(world.b.own)
        await asyncio.wait_for(waiting, 10)

    play(scene)


async def killed(node: Node) -> dict[str, LinkRecord]:
    """Its daemon ends, and leaves everything as it is; what the next one, which starts, finds of links."""
    for task in node.running:
        await end(task)
    for task in [each for each in asyncio.all_tasks() if each.get_name().startswith("WireGuard interface")]:
        await end(task)
    node.mesh = policy.Mesh(node.plan.mesh(can_drain=True), {}, random.Random(1))
    node.events.clear()
    found = Records(node.plan.config.run).read_links()
    node.start()
    return found


@pytest.mark.parametrize("revoked", [True, False])
def test_the_next_daemon_does_not_go_on_with_the_link_of_who_was_revoked_meanwhile(play: Play, revoked: bool) -> None:
    async def scene(world: World) -> None:
        await world.moved()
        b = world.b
        found = await killed(b)
        crl = frozenset({SERIAL if revoked else SERIAL + 1})
        b.in_force.plan = replace(b.plan, parameters=replace(b.plan.parameters, crl=crl))
        b.room.go_on(found.values())
        assert [end.peer for end in b.room.ends()] == ([] if revoked else [world.a.own])
        assert b.mesh.clients == ({} if revoked else {world.a.own: 1})
        await until(lambda: b.kernel.deleted == (["re6stnet-wgs1"] if revoked else []))
        assert (Records(b.plan.config.run).read_links() == {}) is revoked

    play(scene)


def test_a_link_that_was_ended_is_not_gone_on_with_by_the_next_daemon(play: Play) -> None:
    """Though this one is killed while the interface is about to go."""

    async def scene(world: World) -> None:
        await world.moved()
        b = world.b
        assert Records(b.plan.config.run).read_links()
        b.room.cut_off(frozenset({SERIAL}))
        assert "re6stnet-wgs1" in b.kernel.links, "it is still there"
        assert Records(b.plan.config.run).read_links() == {}

    play(scene)


def test_a_thousand_proposals_of_absurd_values_cost_no_interface(play: Play) -> None:
    """From a peer that is let in as a client; from others not even one is looked at."""

    async def scene(world: World) -> None:
        a, b = world.a, world.b
        b.clients[a.own] = ServerClient(a.own, SERIAL, "192.0.2.1")
        for number in range(1000):
            for terms in (
                Terms(bytes(32), 21194, 1420, link_local(1)),
                Terms(b"k" * 32, 22, 1420, link_local(1)),
                Terms(b"k" * 32, 21194, 100, link_local(1)),
            ):
                b.room.received(a.own, words.encode(Propose(2 * number + 2 + (a.own > b.own), 0, terms)))
        assert not world.air.devices
        for number in range(1000):
            terms = Terms(number.to_bytes(32, "big", signed=False)[:-1] + b"k", 21194, 1420, link_local(number + 1))
            b.room.received(a.own, words.encode(Propose(2 * number + 2 + (a.own > b.own), 0, terms)))
            b.room.received(a.own, bytes([number & 255]) * (number % 80))
        await asyncio.sleep(0.1)
        assert len(world.air.devices) <= 1, "one peer has one interface, however often it proposes"
        for number in range(3, PEERS_LIMIT):
            stranger = Prefix(number, 16)
            b.room.received(stranger, words.encode(Propose(2 + (stranger > b.own), 0, replace(terms, key=b"s" * 32))))
        await asyncio.sleep(0.1)
        assert len(world.air.devices) <= 1

    play(scene)
