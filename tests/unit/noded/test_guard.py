"""Who announces what is not his is found out behind a server too, also who came after OpenVPN was asked last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import NextHop, Route, Route4, Table
from re6st.core.routing.claims import GRACE, HOLD, hardware_address
from re6st.core.routing.survey import Survey
from re6st.core.telemetry.event_log import EventLog
from re6st.core.transport.untimely import Untimely
from re6st.core.wire.requirement import AnnouncedNames, Requirement
from re6st.noded import guard as guard_room
from re6st.noded.admission import Admission
from re6st.noded.guard import Guard
from re6st.noded.requirement import RequirementWatch
from re6st.noded.settings import InForce
from re6st.service.run_names import REFUSED
from tests.unit.fake_program import until

NETWORK = IPv6Network("2001:db8:42::/48")
OWN, LIAR, VICTIM, OTHER = (Prefix(number, 16) for number in (1, 2, 3, 4))
SERVER = "re6stnet-tcp"
HOP = NextHop(IPv6Address("fe80::5c2e:7eff:fe12:a001"), SERVER)
HARDWARE = "5e:2e:7e:12:a0:01"


class FakeTunnels:
    """One server; OpenVPN answers at its next breath who is behind it."""

    def __init__(self) -> None:
        self.behind: dict[str, Prefix] = {}
        self.asked = 0
        self.cuts: list[Prefix] = []
        self.drained: list[tuple[str, IPv6Address | None]] = []
        self.looked: Callable[[], object] = lambda: None
        self._known: dict[str, Prefix] = {}

    @property
    def ends(self) -> FakeTunnels:
        return self

    def owner_at(self, hop: NextHop) -> Prefix | None:
        return self._known.get(hardware_address(hop.address) or "") if hop.interface == SERVER else None

    def is_shared(self, interface: str) -> bool:
        return interface == SERVER

    def numbers(self, peer: Prefix) -> frozenset[int]:
        return frozenset((peer.value,))

    def look(self, unknown: Iterable[NextHop] = ()) -> None:
        self.asked += 1
        asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        self._known = dict(self.behind)
        self.looked()

    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.drained.append((interface, neighbour))

    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.drained.remove((interface, neighbour))

    def cut(self, peer: Prefix) -> None:
        self.cuts.append(peer)


class Silent:
    """Peers that announce nothing."""

    @property
    def sessions(self) -> Silent:
        return self

    def announced(self) -> dict[Prefix, AnnouncedNames]:
        return {}

    def begin_anew(self, peer: Prefix) -> None:
        raise AssertionError


class World:
    """A node with a server, and what its babel knows."""

    def __init__(self, run: Path) -> None:
        self.tunnels, self.table, self.event_log = FakeTunnels(), Table(), EventLog()
        self.problem: str | None = None
        effective = SimpleNamespace(
            identity=SimpleNamespace(trust=SimpleNamespace(network=NETWORK), prefix=OWN),
            subnet=subnet(NETWORK, OWN),
            config=SimpleNamespace(accept_route=(), run=run),
            parameters=SimpleNamespace(ipv4=None, ipv4_sublen=0, regions=0, require=frozenset()),
            ipv4=None,
        )
        self.effective = effective
        self.priority = 1024
        self.age = 0.0
        self.tunnels.looked = self.look
        self.survey = Survey()
        requirement = Requirement()
        self.admission = Admission(run / REFUSED, requirement, self.event_log, self)
        watch = RequirementWatch(requirement, Silent(), self.tunnels)
        in_force = InForce(cast(Any, effective))
        self.guard = Guard(in_force, self, self.tunnels, self, self.admission, watch, self.event_log)

    def clock_problem(self) -> str | None:
        return self.problem

    def look(self) -> None:
        self.guard.look()

    def read_soon(self) -> None:
        pass

    def look_again(self) -> None:
        self.guard.look()

    def claim(self, peer: Prefix, via: NextHop = HOP) -> None:
        found = subnet(NETWORK, peer)
        self.table.routes[f"{peer}{via}"] = Route("", found, IPv6Network("::/0"), True, 96, 0, via, "r1")

    def claim4(self, text: str, via: NextHop = HOP) -> None:
        self.table.ipv4_routes[text] = Route4("", IPv4Network(text), True, 96, 0, via)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_room, "LOOK_SOON", 0.02)
    monkeypatch.setattr(guard_room, "LOOK_AGAIN", 0.05)


def test_a_client_that_came_after_openvpn_was_asked_is_found_out_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        world = World(tmp_path)
        other = NextHop(IPv6Address("fe80::5c2e:7eff:fe12:a002"), SERVER)
        world.tunnels.behind["5e:2e:7e:12:a0:02"] = OTHER
        world.claim(OTHER, other)
        world.look()
        await until(lambda: world.tunnels.asked)
        world.tunnels.behind[HARDWARE] = LIAR
        world.claim(LIAR)
        world.claim(VICTIM)
        began = time.monotonic()
        world.look()
        await until(lambda: world.tunnels.cuts)
        assert time.monotonic() - began < guard_room.LOOK_AGAIN, "although it was asked just before"
        world.guard.close()
        assert set(world.tunnels.cuts) == {LIAR}
        assert world.tunnels.drained == [(SERVER, HOP.address)], "nor is it heard until babel has forgotten it"
        assert world.admission.refused() == [LIAR]

    asyncio.run(run())
    assert f"{LIAR} announces {subnet(NETWORK, VICTIM)}, which is not its subnet" in caplog.text


class Beside:
    """A second plane: its own table of the same neighbours."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.table, self.priority, self.age = Table(), 1024, 0.0

    def read_soon(self) -> None:
        pass

    def look_again(self) -> None:
        self.world.guard.look_beside(self)

    def claim(self, peer: Prefix, router: str = "r2") -> None:
        found = subnet(NETWORK, peer)
        self.table.routes[f"{peer}"] = Route("", found, IPv6Network("::/0"), True, 256, 0, HOP, router)


@pytest.mark.usefixtures("quick")
def test_who_lies_in_the_second_plane_alone_is_found_out_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        world = World(tmp_path)
        beside = Beside(world)
        world.tunnels.behind[HARDWARE] = LIAR
        world.claim(LIAR)
        beside.claim(LIAR)
        beside.claim(VICTIM)
        world.look()
        beside.look_again()
        await until(lambda: world.tunnels.cuts)
        world.guard.close()
        assert set(world.tunnels.cuts) == {LIAR}
        assert world.tunnels.drained == [(SERVER, HOP.address)], "it is heard in neither plane"
        assert world.admission.refused() == [LIAR]

    asyncio.run(run())
    assert f"{LIAR} announces {subnet(NETWORK, VICTIM)}, which is not its subnet" in caplog.text
    assert "two machines have the certificate" not in caplog.text, "each machine has a router of each plane"


def test_our_subnet_is_said_once_to_be_announced_by_another_machine_as_long_as_it_is_in_any_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And no more once the plane has ended."""
    caplog.set_level("INFO")
    clock = [1000.0]
    monkeypatch.setattr(guard_room, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))

    async def run() -> None:
        world = World(tmp_path)
        beside = Beside(world)
        beside.claim(OWN)
        world.claim(OWN)
        for _ in range(2):
            beside.look_again()
            world.look()
            clock[0] += GRACE + 1
        assert world.guard.record()["own_subnet_from"] == [f"{HOP.address}%{SERVER}"]
        world.table.routes.clear()
        world.look()
        assert "nobody else announces our subnet" not in caplog.text
        assert len(world.guard.problems()) == 1
        world.guard.look_beside(None)
        assert world.guard.problems() == []
        world.guard.close()

    asyncio.run(run())
    assert caplog.text.count("is ours, and announced by another machine too") == 1


@pytest.mark.usefixtures("quick")
def test_openvpn_is_asked_again_until_it_knows_who_it_is(tmp_path: Path) -> None:
    async def run() -> None:
        world = World(tmp_path)
        world.claim(VICTIM)
        world.look()
        await until(lambda: world.tunnels.asked > 2)
        world.tunnels.behind[HARDWARE] = LIAR
        await until(lambda: world.tunnels.cuts)
        world.guard.close()

    asyncio.run(run())


def test_who_makes_up_neighbours_has_openvpn_asked_a_few_times_a_second_only(tmp_path: Path) -> None:
    async def run() -> None:
        world = World(tmp_path)
        began = time.monotonic()
        for number in range(500):
            world.claim(VICTIM, NextHop(IPv6Address("fe80::1") + number, SERVER))
            world.look()
            await asyncio.sleep(0)
        took = time.monotonic() - began
        world.guard.close()
        assert 1 <= world.tunnels.asked <= 1 + took / guard_room.LOOK_SOON

    asyncio.run(run())


def test_openvpn_is_not_asked_who_is_on_a_lan(tmp_path: Path) -> None:
    async def run() -> None:
        world = World(tmp_path)
        world.claim(VICTIM, NextHop(HOP.address, "eth0"))
        world.look()
        world.guard.close()
        assert not world.tunnels.asked

    asyncio.run(run())


def test_an_ipv4_subnet_is_held_against_the_number_in_the_certificate_also_while_the_network_changes_it(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        world = World(tmp_path)
        world.tunnels.behind[HARDWARE] = LIAR
        world.claim(LIAR)
        world.effective.parameters = SimpleNamespace(ipv4=IPv4Network("10.42.0.0/16"), ipv4_sublen=8, regions=0)
        world.claim4("10.42.2.0/24")
        world.look()
        await until(lambda: world.tunnels.owner_at(HOP))
        world.effective.parameters = SimpleNamespace(ipv4=IPv4Network("10.0.0.0/8"), ipv4_sublen=16, regions=0)
        world.look()
        await asyncio.sleep(2 * HOLD)
        world.look()
        assert not world.tunnels.cuts, "it has not heard of the other network yet"
        world.claim4("10.0.3.0/24")
        world.look()
        await until(lambda: world.tunnels.cuts)
        world.guard.close()

    asyncio.run(run())
    assert f"{LIAR} announces 10.0.3.0/24, which is not its subnet" in caplog.text


def test_who_is_refused_stays_so_for_the_next_daemon(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        world = World(tmp_path)
        world.tunnels.behind[HARDWARE] = LIAR
        world.claim(VICTIM)
        world.look()
        await until(lambda: world.tunnels.cuts)
        world.guard.close()
        following = World(tmp_path)
        assert following.admission.refused() == [LIAR]
        assert following.admission.is_refused(LIAR)

    asyncio.run(run())
    caplog.clear()
    (tmp_path / REFUSED).write_text("{")
    assert World(tmp_path).admission.refused() == []
    assert "Peers that were refused may connect again" in caplog.text


def test_two_machines_with_one_certificate_are_told_with_the_addresses_that_they_connect_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        world = World(tmp_path)
        for address in ("192.0.2.1", "192.0.2.2") * 3:
            world.admission.came(LIAR, address)
        text = f"two machines have the certificate of {LIAR}: they connect from 192.0.2.1 and 192.0.2.2 in turn"
        assert caplog.text.count(text) == 1
        assert world.guard.problems() == [f"{text}: see the log"]
        assert world.guard.record()["doubled"] == [LIAR.cn]
        assert world.admission.came(LIAR, "192.0.2.1") == "192.0.2.2", "it is told at once"
        world.guard.close()

    asyncio.run(run())


def test_a_twin_is_told_of_itself_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        world = World(tmp_path)
        for _ in range(3):
            world.admission.told_of_twin(OTHER, "192.0.2.2")
        text = f"another machine has our certificate too (192.0.2.2), as {OTHER} saw: a disk that was copied"
        assert caplog.text.count(text) == 1
        assert "Enrol one of the two anew, or change the key (re6st-conf rekey)" in caplog.text
        assert [problem.startswith(text) for problem in world.guard.problems()] == [True]
        world.guard.close()

    asyncio.run(run())


def test_who_is_untimely_is_named_once_with_the_difference_of_the_clocks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        world = World(tmp_path)
        world.problem = "the clock here is 3 h behind the registry's: set the one that is wrong"
        for _ in range(3):
            world.admission.untimely(Untimely(OTHER, 12, early=True))
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1
        assert f"a tunnel was refused: the certificate 12 of {OTHER} is not valid yet by the clock here, 20" in said[0]
        assert said[0].endswith("; the clock here is 3 h behind the registry's: set the one that is wrong")
        assert any(f"the certificate 12 of {OTHER} is not valid yet" in each for each in world.guard.problems())
        world.problem = None
        assert any("Set the clock that is wrong, there or here" in each for each in world.guard.problems())
        world.admission.came(OTHER, "192.0.2.1")
        assert not any("certificate 12" in each for each in world.guard.problems()), "it was let in since"
        world.guard.close()

    asyncio.run(run())
