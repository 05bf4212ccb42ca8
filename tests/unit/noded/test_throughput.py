"""The throughput plane is there as long as it is wanted and safe, and nothing waits at a way that is lost."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from re6st import cert
from re6st.client.files import Files
from re6st.core.machine.wanted_state import Fault, KernelRule, bulk_rules
from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import NextHop, Route, Table
from re6st.core.routing.route_history import RouteHistory
from re6st.core.routing.survey import Survey
from re6st.core.wire.params import Parameters
from re6st.linux.netlink import NetlinkError
from re6st.noded import throughput
from re6st.noded.routing import Follower, Nobody
from re6st.noded.settings import Config, EffectiveConfig, InForce
from re6st.noded.throughput import TablePlane, Throughput
from tests.unit.fake_program import until

HOP, OTHER = (NextHop(IPv6Address(f"fe80::{number}"), f"re6stnet{number}") for number in (1, 2))
PEER = Prefix(2, 16)


class PlayedPlane:
    """A plane whose babeld knows what the test says."""

    def __init__(self) -> None:
        self.table = Table()
        self.history = RouteHistory()
        self.priority = 1024
        self.age = 0.0
        self.running = False
        self.said: list[object] = []
        self.follower: Follower | None = None

    async def run(self, follower: Follower) -> None:
        self.running, self.follower = True, follower
        try:
            await asyncio.Event().wait()
        finally:
            self.running = False

    def follow_settings(self) -> None:
        self.said.append("settings")

    def forward(self, forwards: bool) -> None:
        self.said.append(forwards)

    async def until_unused(self, interface: str) -> None:
        self.said.append(interface)

    def reopen_log(self) -> None:
        self.said.append("log")

    def survey(self) -> Survey:
        return Survey()

    def read_soon(self) -> None:
        pass

    def look_again(self) -> None:
        self.said.append("look")

    def price(self, costs: Mapping[str, int]) -> None:
        self.said.append(costs)


class World:
    """What the room sees of its machine."""

    def __init__(self, identity: cert.Identity) -> None:
        here = Path(".")
        config = Config("", Files(here, here, here), here, here, here)
        self.network = identity.trust.network
        self.in_force = InForce(EffectiveConfig(config, identity, Parameters(Prefix(0, 16), planes=2), {}))
        self.leads = True
        self.by_class: bool | NetlinkError = True
        self.refused = False
        self.rules: tuple[KernelRule, ...] = ()
        self.thrown: dict[IPv6Network, bool] = {}
        self.planes: list[PlayedPlane] = []
        self.room = Throughput(self.make, self.in_force, self, self, self)

    def make(self) -> PlayedPlane:
        self.planes.append(PlayedPlane())
        return self.planes[-1]

    async def lead(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        if self.refused:
            return [Fault(rules[0], "no")]
        self.rules = rules
        return []

    async def leads_by_class(self) -> bool:
        if isinstance(self.by_class, NetlinkError):
            raise self.by_class
        return self.by_class

    async def follow(self, wanted: Mapping[IPv6Network, bool]) -> None:
        self.thrown = dict(wanted)

    def planes_of_network(self, count: int) -> None:
        effective = self.in_force.effective
        self.in_force.effective = replace(effective, parameters=replace(effective.parameters, planes=count))
        self.room.follow_settings()

    @property
    def running(self) -> bool:
        return bool(self.planes) and self.planes[-1].running

    async def in_life(self, steps: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self.room.run(Nobody()))
        try:
            await steps()
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert not self.running


@pytest.fixture
def world(nodes: dict[str, cert.Identity], monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(throughput, "LOOK", 0.001)
    monkeypatch.setattr(throughput, "AGAIN", 0.001)
    return World(nodes["1/16"])


def test_it_comes_and_goes_with_the_parameter(world: World) -> None:
    async def steps() -> None:
        await until(lambda: world.running)
        assert world.rules == bulk_rules(world.network)
        world.room.forward(False)
        world.planes_of_network(1)
        await until(lambda: not world.running and not world.rules)
        world.planes_of_network(2)
        await until(lambda: world.running)
        assert len(world.planes) == 2
        assert world.planes[1].said[0] is False, "nothing is forwarded still"

    asyncio.run(world.in_life(steps))


def test_without_nftables_it_must_not_be_there(world: World) -> None:
    async def steps() -> None:
        world.leads = False
        await until(lambda: bool(world.room.trouble))
        assert not world.planes
        world.leads = True
        await until(lambda: world.running)
        assert not world.room.trouble
        world.leads = False
        await until(lambda: not world.running)

    asyncio.run(world.in_life(steps))


def test_nor_on_a_kernel_that_cannot_lead_by_class_which_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps() -> None:
        world.by_class = False
        await until(lambda: "5.18" in world.room.trouble)

    asyncio.run(world.in_life(steps))
    assert not world.planes
    assert len(caplog.records) == 1


def test_a_kernel_that_refuses_rules_is_asked_again(world: World) -> None:
    async def steps() -> None:
        world.by_class = NetlinkError(errno.EOPNOTSUPP, "no rules")
        await until(lambda: "no rules" in world.room.trouble)
        world.by_class, world.refused = True, True
        await until(lambda: world.room.trouble.endswith("no"))
        assert not world.planes
        world.refused = False
        await until(lambda: world.running)

    asyncio.run(world.in_life(steps))


def test_what_comes_to_a_lost_way_or_a_dead_link_goes_on_by_latency(world: World) -> None:
    async def steps() -> None:
        await until(lambda: world.running)
        plane, peer = world.planes[-1], subnet(world.network, PEER)
        plane.table.routes["a"] = route(peer, HOP, installed=True)
        plane.table.routes["b"] = route(peer, OTHER, installed=False)
        await world.room.follow(plane.table, Survey(running=True))
        assert world.thrown == {peer: False}
        await world.room.avoid(frozenset({OTHER}))
        assert world.thrown == {peer: False}, "the way does not lead by that"
        await world.room.avoid(frozenset({HOP}))
        assert world.thrown == {peer: True}
        await world.room.avoid(frozenset())
        assert world.thrown == {peer: False}
        plane.table.clear()
        await world.room.follow(plane.table, Survey(running=False))
        assert world.thrown == {peer: False}, "the kernel has the routes of the babeld that ended"

    asyncio.run(world.in_life(steps))
    assert world.thrown == {}


def route(destination: IPv6Network, via: NextHop, *, installed: bool) -> Route:
    anywhere = IPv6Network("::/0")
    return Route("aa", destination, anywhere, installed, 256, 0, via)


def test_each_change_of_its_table_is_looked_at_for_who_claims_what_unless_it_is_old(world: World) -> None:
    looked: list[TablePlane | None] = []
    begun: list[TablePlane | None] = []

    async def steps() -> None:
        world.room.start(begun.append, looked.append)
        await until(lambda: world.running)
        plane = world.planes[-1]
        assert begun == [plane]
        await world.room.follow(plane.table, Survey(running=True))
        await world.room.follow(plane.table, Survey(running=False))
        await world.room.follow(plane.table, Survey(late=True))
        assert looked == [plane, plane]
        world.planes_of_network(1)
        await until(lambda: not world.running)

    asyncio.run(world.in_life(steps))
    assert looked[2:] == [None], "and that there is none any more"


def test_others_are_told_what_it_is_told(world: World) -> None:
    async def steps() -> None:
        world.room.reopen_log()
        await world.room.until_unused("re6stnet1")
        await until(lambda: world.running)
        world.room.reopen_log()
        world.room.follow_settings()
        await world.room.until_unused("re6stnet1")
        assert world.planes[0].said == [True, "log", "settings", "re6stnet1"]

    asyncio.run(world.in_life(steps))
