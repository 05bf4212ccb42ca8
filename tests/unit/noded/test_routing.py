"""A routing plane before a babeld that the test plays: who follows it, when babeld starts anew, what is removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Set
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Network
from pathlib import Path
from random import Random

import pytest

from re6st import cert
from re6st.babel import Babel, Left, Network
from re6st.client.files import Files
from re6st.core.machine.wanted_state import AddressPlan
from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import Table
from re6st.core.routing.babel_restart import Start
from re6st.core.routing.babel_settings import update_interval
from re6st.core.routing.planes import MAIN, THROUGHPUT, Plane
from re6st.core.routing.survey import Survey
from re6st.core.wire.params import Parameters
from re6st.linux.process import Backoff
from re6st.noded import routing
from re6st.noded.routing import AnyPlane, Follower, Planes, RoutingPlane
from re6st.noded.settings import Config, EffectiveConfig, InForce
from tests.unit.fake_program import FakePrograms, Script, all_gone, install, until

OWN, PEER = Prefix(1, 16), Prefix(2, 16)
ANY = IPv6Network("::/0")


class Machine:
    """A kernel: which routes of babelds that ended were removed."""

    def __init__(self) -> None:
        self.swept: list[tuple[int | None, int | None]] = []
        self.babel = {"re6stnet1": True}
        """The interfaces that there are, with whether a babeld uses each."""

    async def address_links(self, own: IPv4Interface | None) -> None:
        pass

    def babel_routes(self, plane: Plane) -> Routes:
        return Routes(self, plane.table)

    def has_babel(self, interface: str) -> bool:
        try:
            return self.babel[interface]
        except KeyError:
            raise OSError from None


class Routes:
    """Those of one table."""

    def __init__(self, machine: Machine, table: int | None) -> None:
        self._machine = machine
        self._table = table

    async def sweep(
        self, plans: Collection[AddressPlan], priority: int | None, only: Set[tuple[Network, Network]] | None = None
    ) -> list[None]:
        self._machine.swept.append((priority, self._table))
        return [None]

    async def sweep_lost(self, plans: Collection[AddressPlan]) -> list[None]:
        return []


class Networks:
    wanted: tuple[AddressPlan, ...] = ()
    former: tuple[AddressPlan, ...] = ()


class Memory:
    def __init__(self, routes: int) -> None:
        self.routes = routes


class Followed:
    """What a follower was told."""

    def __init__(self) -> None:
        self.surveys: list[Survey] = []

    async def follow(self, table: Table, seen: Survey) -> None:
        self.surveys.append(seen)


class Quick(Backoff):
    def next(self) -> float:
        return 0.001


class World:
    """A node's plane, with all around it played."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Path, identity: cert.Identity, plane: Plane) -> None:
        monkeypatch.setattr("re6st.linux.process.Backoff", Quick)
        monkeypatch.setattr("re6st.babel.SETTLED", 0.02)
        monkeypatch.setattr("re6st.babel.STEP", 0.01)
        monkeypatch.setattr(routing, "SETTLE", 0.001)
        monkeypatch.setattr(routing, "LOOK", 0.01)
        for name in ("SPREAD_FIRST", "SPREAD_LAST", "NEWS_TIME", "GROWTH_FIRST", "GROWTH_LAST"):
            monkeypatch.setattr(routing, name, 0.0)
        self._monkeypatch = monkeypatch
        self.run = run
        self.network = identity.trust.network
        files = Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key"))
        config = Config("http://localhost", files, log=run, run=run, state=run)
        parameters = Parameters(Prefix(0, 16))
        self.in_force = InForce(EffectiveConfig(config, identity, parameters, {"babeld": "babeld"}))
        self.machine, self.networks, self.memory, self.follower = Machine(), Networks(), Memory(1), Followed()
        self.plane = plane
        self.beside: tuple[AnyPlane, ...] = ()
        self.priorities: list[int] = []

    def route(self, peer: Prefix, number: int = 1) -> str:
        return (
            f"add route {number:012x} prefix {subnet(self.network, peer)} from ::/0 installed yes"
            " id a8:e2:88:40:b9:88:04:42 metric 96 refmetric 0 via fe80::1 if re6stnet1"
        )

    def played(self, *lines: str) -> Script:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"BABEL 1.0\nversion babeld-1.12.1\nhost here\nmy-id 1\nok\n")
            while command := (await reader.readline()).decode().strip():
                if command == "monitor":
                    writer.write("".join(f"{line}\n" for line in lines).encode())
                writer.write(b"ok\n")

        return script

    def play(
        self,
        scripts: list[Script],
        watch: Callable[[RoutingPlane, FakePrograms], Awaitable[None]],
        left: Left | None = None,
    ) -> None:
        programs = install(self._monkeypatch, "-G", *scripts)

        async def main() -> None:
            plane = RoutingPlane(self.plane, self.in_force, self.networks, self.machine, Random(1), self.memory, left)
            self.planes = Planes(plane, *self.beside)
            task = asyncio.create_task(self.planes.run(self.follower))
            try:
                async with asyncio.timeout(20):
                    await watch(plane, programs)
            finally:
                task.cancel()
                await asyncio.wait([task])
            assert task.cancelled()
            await all_gone(programs)

        asyncio.run(main())


async def still_waiting(plane: RoutingPlane) -> asyncio.Task[None]:
    """Who waits until re6stnet1 is unused, and waits still after a moment."""
    waiting = asyncio.create_task(plane.until_unused("re6stnet1"))
    await asyncio.sleep(0.03)
    assert not waiting.done()
    return waiting


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity]) -> World:
    return World(monkeypatch, tmp_path, nodes["1/16"], MAIN)


def test_who_follows_it_sees_the_mesh_and_whether_babeld_runs(world: World) -> None:
    speaks = asyncio.Event()
    again = world.played(world.route(PEER))

    async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await speaks.wait()
        await again(reader, writer)

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: world.follower.surveys)
        await programs.started[0].stop()
        await until(lambda: not world.follower.surveys[-1].running)
        speaks.set()
        await until(lambda: world.follower.surveys[-1].running)

    world.play([world.played(world.route(PEER)), later], watch)
    first, last = world.follower.surveys[0], world.follower.surveys[-1]
    assert first.peers == last.peers == {PEER}
    assert last.generation == first.generation + 1, "another babeld tells it"


def test_it_is_looked_at_again_when_somebody_asks_for_it(world: World) -> None:
    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: world.follower.surveys)
        count = len(world.follower.surveys)
        plane.look_again()
        await until(lambda: len(world.follower.surveys) > count)
        assert plane.history[subnet(world.network, PEER)] is not None

    world.play([world.played(world.route(PEER))], watch)


def test_who_follows_it_is_told_now_and_then_though_nothing_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "ANYWAY", 0.01)

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: len(world.follower.surveys) > 3)

    world.play([world.played(world.route(PEER))], watch)
    assert {PEER} == world.follower.surveys[-1].peers


def test_who_takes_an_interface_down_waits_until_babel_has_seen_it_but_not_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await plane.ready.wait()
        await plane.until_unused("re6stnet1")
        plane.table.feed("add interface re6stnet1 up true ipv6 fe80::1")
        waiting = await still_waiting(plane)
        plane.table.feed("change interface re6stnet1 up false")
        await waiting
        plane.table.feed("change interface re6stnet1 up true ipv6 fe80::1")
        monkeypatch.setattr(routing, "NOTICE", 0.01)
        await plane.until_unused("re6stnet1")

    world.play([world.played()], watch)


def test_the_kernel_knows_first_whether_babel_has_seen_it(world: World) -> None:
    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await plane.ready.wait()
        plane.table.feed("add interface re6stnet1 up true ipv6 fe80::1")
        waiting = await still_waiting(plane)
        world.machine.babel["re6stnet1"] = False
        async with asyncio.timeout(routing.NOTICE / 2):
            await waiting

    world.play([world.played()], watch)


def test_the_kernel_also_knows_while_babel_does_not_speak_with_us(world: World) -> None:
    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"BABEL 1.0\nok\n")
        await reader.readline()
        writer.write(b"add interface re6stnet1 up false\nok\n")
        writer.close()
        await asyncio.Event().wait()

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: plane.babel.late)
        waiting = await still_waiting(plane)  # it was not up when babel spoke last
        world.machine.babel["re6stnet1"] = False
        async with asyncio.timeout(routing.NOTICE / 2):
            await waiting

    world.play([closes], watch)


def test_of_an_interface_that_is_gone_babel_has_to_say_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await plane.ready.wait()
        del world.machine.babel["re6stnet1"]
        plane.table.feed("add interface re6stnet1 up true ipv6 fe80::1")
        waiting = await still_waiting(plane)
        plane.table.feed("change interface re6stnet1 up false")
        async with asyncio.timeout(routing.NOTICE / 2):
            await waiting

    world.play([world.played()], watch)


def test_what_the_last_babeld_left_is_removed_once_the_next_one_knows_its_way(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    routes: dict[tuple[Network, Network], int] = {(subnet(world.network, PEER), ANY): 1030}

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: len(world.machine.swept) == 2)

    world.play([world.played(world.route(PEER))], watch, Left(routes=routes))
    assert world.machine.swept == [(1031, None), (1031, None)], "one way as it comes, then all that is left"
    assert "the new babeld knows the network: removed 2 routes of the previous one" in caplog.text


def test_a_plane_with_a_table_of_its_own_leaves_the_routes_of_others_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    world = World(monkeypatch, tmp_path, nodes["1/16"], Plane("second", 6697, 77))

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: world.machine.swept)
        arguments = programs.started[0].argv
        assert [word for word in arguments if "second" in word] == [
            f"{tmp_path}/second.conf",
            f"{tmp_path}/second.ctl",
            f"{tmp_path}/second.state",
            f"{tmp_path}/second.log",
        ]
        text = (tmp_path / "second.conf").read_text()
        assert "protocol-port 6697\nexport-table 77\n" in text

    routes: dict[tuple[Network, Network], int] = {(subnet(world.network, PEER), ANY): 1024}
    world.play([world.played(world.route(PEER))], watch, Left(routes=routes))
    assert {table for _, table in world.machine.swept} == {77}


@pytest.mark.parametrize(("plane", "goes"), [(MAIN, False), (THROUGHPUT, True)], ids=["main", "throughput"])
def test_beside_the_main_plane_a_babeld_that_gets_other_settings_takes_its_routes_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity], plane: Plane, goes: bool
) -> None:
    """What the next one says of us could lead in a circle with routes that stay; packets have the main table."""
    world = World(monkeypatch, tmp_path, nodes["1/16"], plane)
    graces: list[float] = []

    def configured() -> str:
        return (tmp_path / f"{plane.name}.conf").read_text()

    async def watch(room: RoutingPlane, programs: FakePrograms) -> None:
        await room.ready.wait()
        child = programs.started[0]
        stop = child.stop

        async def noted(grace: float = 5.0) -> None:
            graces.append(grace)
            await stop(grace)

        monkeypatch.setattr(child, "stop", noted)
        room.price({"re6stnet-new": 256})
        await until(lambda: "re6stnet-new" in configured())
        assert len(programs.started) == 1, "one more interface is told to the babeld that runs"
        room.price({"re6stnet-new": 512})
        await until(lambda: len(programs.started) == 2 and room.ready.is_set())
        assert "rxcost 512" in configured() or plane == MAIN

    world.play([world.played(world.route(PEER))], watch)
    assert (graces[0] > 0) is goes


def test_a_machine_that_may_not_forward_tells_nobody_of_ways_through_it(world: World) -> None:
    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await plane.ready.wait()
        assert "out deny" not in (world.run / "babeld.conf").read_text()
        plane.forward(False)
        await until(lambda: len(programs.started) == 2 and plane.ready.is_set())
        assert "out deny" in (world.run / "babeld.conf").read_text()
        plane.forward(True)
        await until(lambda: len(programs.started) == 3 and plane.ready.is_set())
        assert "out deny" not in (world.run / "babeld.conf").read_text()

    world.play([world.played(world.route(PEER))], watch)


def test_another_plan_is_followed_and_the_same_one_changes_nothing(world: World) -> None:
    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await plane.ready.wait()
        plane.follow_settings()
        await asyncio.sleep(0)
        effective = world.in_force.effective
        world.in_force.effective = replace(effective, parameters=replace(effective.parameters, hello=7))
        plane.follow_settings()
        await until(lambda: len(programs.started) == 2 and plane.ready.is_set())
        assert "hello-interval 7" in (world.run / "babeld.conf").read_text()

    world.play([world.played(world.route(PEER))], watch)


def test_a_network_that_has_grown_is_told_of_less_often(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    many = [world.route(Prefix(number, 16), number) for number in range(2, 102)]

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: len(programs.started) == 2 and plane.ready.is_set())
        assert plane.babel.settings.update == update_interval(100)

    world.play([world.played(*many)], watch)
    assert world.memory.routes == 100
    assert "the network has 100 nodes now" in caplog.text


def test_a_network_that_grows_at_once_has_other_things_to_do_first(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(routing, "GROWTH_FIRST", 60.0)
    monkeypatch.setattr(routing, "GROWTH_LAST", 60.0)
    many = [world.route(Prefix(number, 16), number) for number in range(2, 102)]

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: "babeld will repeat" in caplog.text)
        for _ in range(20):
            plane.look_again()
            await asyncio.sleep(0.001)
        assert len(programs.started) == 1

    world.play([world.played(*many)], watch)
    assert caplog.text.count("babeld will repeat its routes less often") == 1
    assert world.memory.routes == 1


@pytest.mark.parametrize("heard", [True, False])
def test_a_babeld_that_takes_none_of_the_ways_offered_is_started_anew_unless_they_lead_to_who_is_dead(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, heard: bool
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("PATIENCE", "PATIENCE_LAST", "SPREAD"):
        monkeypatch.setattr(f"re6st.core.routing.babel_restart.{name}", 0.0)
    refused = world.route(PEER).replace("installed yes", "installed no")

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        if not heard:
            plane.silent = lambda: frozenset([PEER])
            await until(lambda: PEER in plane.survey().starved)
            await asyncio.sleep(5 * routing.LOOK)
            assert len(programs.started) == 1
            return
        await until(lambda: len(programs.started) == 2)
        assert plane.ending() or plane.ready.is_set()

    world.play([world.played(refused)], watch)
    assert (f"starting babeld again: it uses none of the routes that lead to {PEER}" in caplog.text) is heard


def test_a_new_dump_does_not_make_what_was_seen_before_it_news(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that was lacking has come by then, and is seen when the dump is looked at."""
    monkeypatch.setattr(Babel, "age", property(lambda _: 0.01))
    ages: list[float] = []

    async def watch(plane: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: world.follower.surveys)
        due = plane._restarts.due

        def noted(seen: Survey, now: float, hello: float, age: float = 0.0) -> Start | None:
            ages.append(age)
            return due(seen, now, hello, age)

        monkeypatch.setattr(plane._restarts, "due", noted)
        await until(lambda: len(ages) > 10)

    world.play([world.played(world.route(PEER))], watch)
    assert ages == sorted(ages)
    assert ages[-1] - ages[0] > 0.05, "it is as old as it is"


# --- several of them ---


class Beside:
    """Another plane, of another kind."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.unused = asyncio.Event()

    async def run(self, follower: Follower) -> None:
        await follower.follow(Table(), Survey(peers=frozenset({PEER})))
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append("end")

    def follow_settings(self) -> None:
        self.told.append("settings")

    def forward(self, forwards: bool) -> None:
        self.told.append(forwards)

    async def until_unused(self, interface: str) -> None:
        await self.unused.wait()

    def reopen_log(self) -> None:
        self.told.append("log")


def test_a_plane_beside_the_main_one_is_told_all_and_the_policy_goes_by_the_main_one(world: World) -> None:
    beside = Beside()
    world.beside = (beside,)

    async def watch(main: RoutingPlane, programs: FakePrograms) -> None:
        await until(lambda: bool(world.follower.surveys))
        world.planes.follow_settings()
        world.planes.forward(False)
        world.planes.reopen_logs()

    world.play([world.played(world.route(Prefix(3, 16)))], watch)
    assert beside.told == ["settings", False, "log", "end"]
    assert all(PEER not in seen.peers for seen in world.follower.surveys), "nobody goes by the other one"


def test_an_interface_is_unused_once_no_plane_uses_it(world: World) -> None:
    beside = Beside()
    world.beside = (beside,)

    async def watch(main: RoutingPlane, programs: FakePrograms) -> None:
        await main.ready.wait()
        waiting = asyncio.create_task(world.planes.until_unused("re6stnet1"))
        await main.until_unused("re6stnet1")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done(), "the main one does not use it, the other one does"
        beside.unused.set()
        await waiting

    world.play([world.played(world.route(PEER))], watch)
