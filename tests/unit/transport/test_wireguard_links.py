"""Two nodes' WireGuard links on interfaces that a test plays: made, dialled, changed, gone on with, and removed."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_state import Ended, LinkPhase, LinkSettings
from re6st.core.transport.wireguard_uapi import Address, LinkConfig, LinkState
from re6st.core.wire.datagrams import WireError
from re6st.core.wire.wireguard import Done, Message, Reason, decode
from re6st.linux.wireguard import WireGuardError
from re6st.service.tasks import Tasks, end
from re6st.transport import wireguard
from re6st.transport.wireguard import WireGuardLinks, has_heard, new_end
from tests.unit.fake_program import until

A, B = Prefix(1, 16), Prefix(2, 16)
HOSTS: dict[Prefix, Address] = {A: IPv4Address("192.0.2.1"), B: IPv4Address("192.0.2.2")}
NOWHERE = IPv4Address("192.0.2.99")


class PlayKernel:
    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None: ...

    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None: ...


class PlayDevice:
    """One end of a cable: two that have the keys of each other, and one of which dials the other, hear each other."""

    process = None

    def __init__(self, machine: Machine, interface: str) -> None:
        self.machine = machine
        self.interface = interface
        self.config: LinkConfig | None = None
        self.now = LinkState()
        self.dialled: list[tuple[Address, int] | None] = []

    async def configure(self, config: LinkConfig) -> None:
        await asyncio.sleep(0)
        self.machine.check(config)
        self.config, self.now = config, LinkState(config.port, config.peer, endpoint=config.endpoint)
        self.dialled.append(config.endpoint)
        self.machine.cable(self)

    async def state(self) -> LinkState:
        await asyncio.sleep(0)
        if self.interface not in self.machine.devices:
            raise WireGuardError(errno.ENODEV, f"{self.interface}: No such device")
        return self.now

    async def gone(self) -> None:
        await asyncio.Event().wait()

    async def remove(self) -> None:
        await asyncio.sleep(0)
        self.machine.devices.pop(self.interface, None)
        self.machine.removed.append(self.interface)


@dataclass
class Machine:
    """A node with its interfaces. `other` hears what it says."""

    own: Prefix
    links: WireGuardLinks | None = None
    other: Machine | None = None
    name = "a play"
    passes: bool = True
    hosts_of_peer: Sequence[Address] = ()
    taken: set[int] = field(default_factory=set)
    devices: dict[str, PlayDevice] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    may_leave: asyncio.Event = field(default_factory=asyncio.Event)
    peer_when_left: list[bytes] = field(default_factory=list)
    met_by_other: list[tuple[int, bool]] = field(default_factory=list)
    noted: dict[Prefix, WireGuardLink] = field(default_factory=dict)
    confirmations: list[int] = field(default_factory=list)
    """The numbers of links that the peer said that it has."""
    told: list[Ended] = field(default_factory=list)
    said: list[Message] = field(default_factory=list)

    # an Implementation

    async def make(self, interface: str) -> PlayDevice:
        await asyncio.sleep(0)
        assert interface not in self.devices, "made before the last one of that name was removed"
        self.devices[interface] = PlayDevice(self, interface)
        return self.devices[interface]

    def found(self, interface: str, process: tuple[int, str] | None) -> PlayDevice:
        if interface not in self.devices:
            raise WireGuardError(errno.ENODEV, f"there is no interface {interface}")
        return self.devices[interface]

    def check(self, config: LinkConfig) -> None:
        if config.port in self.taken:
            raise WireGuardError(errno.EADDRINUSE, f"UDP port {config.port}: Address already in use")

    def cable(self, device: PlayDevice) -> None:
        assert self.other is not None
        for each in self.other.devices.values():
            one, two = device.config, each.config
            if not (self.passes and one and two and one.endpoint == (HOSTS[self.other.own], two.port)):
                continue
            if (one.peer, two.peer) == (public(two.secret), public(one.secret)):
                device.now = replace(device.now, handshake=1.0, received=1)
                each.now = replace(each.now, handshake=1.0, received=1, endpoint=(HOSTS[self.own], one.port))

    # a LinkOwner

    def say(self, peer: Prefix, body: bytes) -> None:
        other = self.other
        self.said.append(decode(body))
        if other is not None and other.links is not None and peer == other.own:
            asyncio.get_running_loop().call_soon(other.links.received, self.own, body)

    def admits(self, peer: Prefix) -> bool:
        return True

    def hosts(self, peer: Prefix) -> Sequence[Address]:
        return self.hosts_of_peer

    def mark(self, peer: Prefix) -> int:
        return 0

    def made(self, interface: str) -> None: ...

    async def leaving(self, interface: str) -> None:
        self.left.append(interface)
        await self.may_leave.wait()
        device = self.devices.get(interface)
        if device is not None and device.config is not None:
            self.peer_when_left.append(device.config.peer)

    def met(self, link: WireGuardLink, moved: bool) -> None:
        self.met_by_other.append((link.number, moved))

    def confirmed(self, link: WireGuardLink) -> None:
        self.confirmations.append(link.number)

    def up(self, link: WireGuardLink, process: tuple[int, str] | None) -> None:
        self.noted[link.peer] = link

    def ended(self, ended: Ended) -> None:
        self.noted.pop(ended.peer, None)
        self.told.append(ended)


KEYS: dict[bytes, bytes] = {}


def public(secret: bytes) -> bytes:
    return KEYS[secret]


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> tuple[bytes, bytes]:
        number = len(KEYS) // 2 + 1
        secret, key = number.to_bytes(32), (number | 1 << 128).to_bytes(32)
        KEYS[secret] = key
        KEYS[key] = secret
        return secret, key

    monkeypatch.setattr(wireguard, "new_keys", made)
    monkeypatch.setattr(wireguard, "bring_up", lambda _kernel, _interface, _address, _mtu: None)
    monkeypatch.setattr(wireguard, "LOOK_FIRST", 0.01)
    monkeypatch.setattr(wireguard, "LOOK", 0.05)


SETTINGS = LinkSettings(range(51820, 51830), ("re6stnet11", "re6stnet12"))


class World:
    def __init__(self, tasks: Tasks, settings: LinkSettings = SETTINGS) -> None:
        self.tasks = tasks
        self.settings = settings
        self.a, self.b = Machine(A), Machine(B)
        self.a.other, self.b.other = self.b, self.a
        self.a.may_leave.set()
        self.b.may_leave.set()
        self.a.hosts_of_peer, self.b.hosts_of_peer = (NOWHERE, HOSTS[B]), (HOSTS[A],)
        self.runs: dict[Prefix, list[asyncio.Task[None]]] = {}
        for machine in (self.a, self.b):
            self.start(machine)

    def start(self, machine: Machine) -> WireGuardLinks:
        """A daemon of that node starts."""
        runs: list[asyncio.Task[None]] = []

        def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            runs.append(self.tasks.start(work, name))
            return runs[-1]

        links = WireGuardLinks(machine.own, self.settings, machine, PlayKernel(), machine, start)
        machine.links, self.runs[machine.own] = links, runs
        start(links.run(), f"links of {machine.own}")
        return links

    async def kill(self, machine: Machine) -> None:
        """Its daemon ends, and leaves everything as it is."""
        await asyncio.gather(*map(end, self.runs[machine.own]))

    def phase(self, machine: Machine) -> LinkPhase | None:
        assert machine.links is not None
        return machine.links.agreement.phase(B if machine.own == A else A)

    async def both(self, phase: LinkPhase | None) -> None:
        await until(lambda: self.phase(self.a) is self.phase(self.b) is phase)

    async def linked(self) -> None:
        assert self.a.links is not None
        assert self.a.links.open(B, "re6stnet1")
        await self.both(LinkPhase.UP)


def play(scene: Callable[[World], Awaitable[None]], settings: LinkSettings = SETTINGS) -> None:
    """Let two nodes play a scene."""

    async def run() -> None:
        async with asyncio.timeout(30), Tasks() as tasks:
            try:
                await scene(World(tasks, settings))
            finally:
                await tasks.end_all()

    asyncio.run(run())


def test_a_link_is_made_dialled_and_removed_at_both_ends() -> None:
    async def scene(world: World) -> None:
        await world.linked()
        assert world.a.noted[B].interface == "re6stnet1"
        assert world.b.noted[A].interface == "re6stnet11"
        assert world.a.devices["re6stnet1"].dialled[:3] == [None, (NOWHERE, 51820), (HOSTS[B], 51820)]
        assert world.a.links is not None
        world.a.links.close(B)
        await until(lambda: not world.a.devices and not world.b.devices)
        assert (world.a.noted, world.b.noted) == ({}, {})
        assert [ended.reason for ended in world.b.told] == [Reason.CLOSED]

    play(scene)


def test_an_interface_is_taken_as_soon_as_a_link_is_proposed() -> None:
    """Else two links that are opened at one time get the same one, and one of them fails."""

    async def scene(world: World) -> None:
        world.a.other = None  # there is no answer yet
        assert world.a.links is not None
        assert world.a.links.open(B, "re6stnet1")
        assert world.a.links.interfaces == {"re6stnet1"}
        world.a.links.close(B)
        await until(lambda: world.a.links is not None and not world.a.links.interfaces)

    play(scene)


def test_keys_change_on_the_same_interfaces() -> None:
    async def scene(world: World) -> None:
        await world.linked()
        before = world.a.noted[B], world.b.noted[A]
        await until(lambda: world.a.noted[B] != before[0] and world.b.noted[A] != before[1])
        one, two = world.a.devices["re6stnet1"], world.b.devices["re6stnet11"]
        await until(lambda: one.now.received == two.now.received == 1)
        assert one.config is not None
        assert one.config.secret == world.a.noted[B].own.secret
        assert world.a.removed == world.b.removed == []

    play(scene, replace(SETTINGS, key_life=0.3))


def test_a_change_of_keys_says_at_both_ends_that_the_peer_has_the_link() -> None:
    """Who agrees on keys speaks by the certificate of the session of now, which it may have renewed since."""

    async def scene(world: World) -> None:
        await world.linked()
        for machine in (world.a, world.b):
            await until(machine.confirmations.copy)
            machine.confirmations.clear()
        before = world.a.noted[B]
        await until(lambda: world.a.noted[B] != before and world.a.noted[B].number == world.b.noted[A].number)
        await until(lambda: bool(world.a.confirmations and world.b.confirmations))

    play(scene, replace(SETTINGS, key_life=0.3))


def test_the_next_daemon_goes_on_with_what_is_up() -> None:
    async def scene(world: World) -> None:
        await world.linked()
        link, device = world.a.noted[B], world.a.devices["re6stnet1"]
        world.b.said.clear()
        await world.kill(world.a)
        links = world.start(world.a)
        gone = replace(link, peer=Prefix(3, 16), interface="re6stnet2")
        links.resume([(link, None, time.monotonic()), (gone, None, time.monotonic())])
        await until(lambda: world.b.said and isinstance(world.b.said[-1], Done))
        assert links.agreement.links == {B: link}
        assert world.a.devices == {"re6stnet1": device}
        assert world.a.removed == world.b.removed == []

    play(scene)


def test_the_next_daemon_changes_the_keys_that_the_last_one_was_about_to_change() -> None:
    async def scene(world: World) -> None:
        await world.linked()
        link, device = world.a.noted[B], world.a.devices["re6stnet1"]
        await world.kill(world.a)
        assert device.config is not None
        await device.configure(replace(device.config, peer=b"o" * 32, secret=link.own.secret))
        device.now = replace(device.now, endpoint=(HOSTS[B], link.theirs.port))
        world.start(world.a).resume([(link, None, time.monotonic())])
        await until(lambda: device.config is not None and device.config.peer == link.theirs.key)
        assert device.config.endpoint == (HOSTS[B], link.theirs.port)

    play(scene)


def test_what_is_not_closed_stays_when_a_daemon_ends() -> None:
    machines: list[Machine] = []

    async def scene(world: World) -> None:
        await world.linked()
        machines.extend((world.a, world.b))

    play(scene)
    assert [list(machine.devices) for machine in machines] == [["re6stnet1"], ["re6stnet11"]]


def test_nothing_of_a_peer_comes_in_any_more_before_its_interface_goes() -> None:
    """The interface is up for another moment, for babel; the peer may be revoked."""

    async def scene(world: World) -> None:
        await world.linked()
        key = world.a.noted[B].theirs.key
        assert world.a.links is not None
        world.a.links.close(B, tell=False)
        await until(lambda: not world.a.devices)
        (peer,) = world.a.peer_when_left
        assert peer not in (b"", key)

    play(scene)


def test_an_interface_that_does_not_answer_is_removed_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(world: World) -> None:
        await world.linked()

        async def hang(_: LinkConfig) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(wireguard, "SHUT_TIME", 0.05)
        monkeypatch.setattr(world.a.devices["re6stnet1"], "configure", hang)
        assert world.a.links is not None
        world.a.links.close(B)
        await until(lambda: not world.a.devices)

    play(scene)


def test_a_node_that_ends_removes_its_interfaces_and_says_so() -> None:
    async def scene(world: World) -> None:
        await world.linked()
        assert world.a.links is not None
        await world.a.links.end()
        assert world.a.devices == {}
        await until(lambda: not world.b.devices)

    play(scene)


def test_a_port_that_is_taken_is_told_to_the_other_end_and_not_tried_again() -> None:
    async def scene(world: World) -> None:
        world.b.taken.add(51820)
        assert world.a.links is not None
        world.a.links.open(B, "re6stnet1")
        await until(lambda: bool(world.a.told))
        assert [ended.reason for ended in world.a.told] == [Reason.UNAVAILABLE]
        await until(lambda: not world.b.devices)
        assert world.b.links is not None
        world.b.links.open(A, "re6stnet1")
        await world.both(LinkPhase.UP)
        assert world.b.noted[A].own.terms.port == 51821

    play(scene)


def test_an_interface_that_somebody_removes_ends_the_link() -> None:
    async def scene(world: World) -> None:
        await world.linked()
        del world.b.devices["re6stnet11"]
        await world.both(None)
        assert [ended.reason for ended in world.b.told] == [Reason.UNAVAILABLE]
        await until(lambda: not world.a.devices)

    play(scene)


def test_a_peer_that_starts_anew_gets_its_link_on_the_same_interface() -> None:
    async def scene(world: World) -> None:
        await world.linked()
        await world.kill(world.a)
        world.a.devices.clear()
        world.a.noted.clear()
        links = world.start(world.a)
        assert links.open(B, "re6stnet1")
        await world.both(LinkPhase.UP)
        assert world.b.noted[A].theirs == world.a.noted[B].own.terms

    play(scene, replace(SETTINGS, interfaces=("re6stnet11",)))


def test_an_interface_is_made_only_when_the_last_one_of_its_name_is_gone() -> None:
    """Also where one between them was closed before it could begin."""

    async def scene(world: World) -> None:
        await world.linked()
        assert world.a.links is not None
        world.a.may_leave.clear()
        world.a.links.close(B)
        await until(lambda: world.a.left == ["re6stnet1"])
        await world.both(None)
        world.a.links.open(B, "re6stnet1")
        await until(lambda: world.phase(world.a) is LinkPhase.MAKING)
        world.a.links.close(B)
        await asyncio.sleep(0.05)
        assert world.a.links.interfaces == {"re6stnet1"}, "it is still there"
        world.a.links.open(B, "re6stnet1")
        await until(lambda: world.phase(world.a) is LinkPhase.MAKING)
        world.a.may_leave.set()
        await world.both(LinkPhase.UP)
        world.a.links.close(B)
        links = world.a.links
        await until(lambda: not world.a.devices and not links.interfaces)

    play(scene)


def test_it_waits_for_all_those_before_it_that_are_not_gone() -> None:
    """Also where the one right before it is waiting too, and is closed at the same moment."""

    async def scene(world: World) -> None:
        await world.linked()
        links = world.a.links
        assert links is not None
        world.b.may_leave.clear()
        links.close(B)
        await until(lambda: world.b.left == ["re6stnet11"])
        await world.both(None)
        links.open(B, "re6stnet1")
        await until(lambda: world.phase(world.b) is LinkPhase.MAKING)
        await asyncio.sleep(0.01)  # it waits
        links.close(B)
        links.open(B, "re6stnet1")
        await asyncio.sleep(0.05)
        assert world.phase(world.b) is LinkPhase.MAKING, "the first one is still there"
        world.b.may_leave.set()
        await world.both(LinkPhase.UP)
        links.close(B)
        await until(lambda: world.b.links is not None and not world.b.devices and not world.b.links.interfaces)

    play(scene, replace(SETTINGS, interfaces=("re6stnet11",)))


def test_what_is_no_message_is_refused() -> None:
    async def scene(world: World) -> None:
        assert world.a.links is not None
        with pytest.raises(WireError):
            world.a.links.received(B, b"nothing")

    play(scene)


def test_something_came_in_if_there_are_more_bytes_or_another_handshake() -> None:
    before = LinkState(received=5, handshake=7.0)
    assert not has_heard(before, before)
    assert not has_heard(before, replace(before, sent=9))
    assert has_heard(before, replace(before, received=6))
    assert has_heard(before, replace(before, handshake=8.0))
    assert not has_heard(LinkState(), LinkState())
    assert not has_heard(LinkState(), LinkState(received=148)), "a first packet that no handshake came of"


def test_each_link_has_an_address_and_keys_of_its_own() -> None:
    one, two = new_end(), new_end()
    assert one.own.terms.key != two.own.terms.key
    assert one.own.terms.address != two.own.terms.address
    assert one.own.terms.address.is_link_local
    assert isinstance(one.own.terms.address, IPv6Address)
