"""With --mptcp one connection uses all lines; what others set in the kernel stays, and what it was comes back."""

from __future__ import annotations

import asyncio
import errno
import logging
from ipaddress import IPv6Network, ip_address
from pathlib import Path

import pytest

from re6st.core.machine.mptcp import NEEDED, SIGNAL, SUBFLOW, MptcpEndpoint, MptcpLimits
from re6st.core.machine.uplinks import Uplink
from re6st.core.machine.wanted_state import Fault, KernelRule, Placed
from re6st.core.prefix import Prefix
from re6st.linux.mptcp_netlink import NoMptcp
from re6st.noded.mptcp import Mptcp
from re6st.noded.mptcp_settings import MptcpSettings

NETWORK, OWN = IPv6Network("2001:db8:42::/48"), Prefix(1, 16)
OF_OTHERS = MptcpEndpoint(ip_address("192.0.2.5"), SUBFLOW)
DEFAULT = MptcpLimits(2, 0)


class World:
    """A kernel, and a machine with two lines."""

    def __init__(self, directory: Path) -> None:
        self.note = directory / "re6stnet-mptcp.note"
        self.has = {1: OF_OTHERS}
        self.most = 8
        self.limit = DEFAULT
        self.lacks = ""
        self.up = {1: Uplink("fibre", "eth0"), 2: Uplink("dsl", "eth1")}
        self.things: tuple[Placed | KernelRule, ...] = ()
        self.steps: list[str] = []
        self.refuses = False
        self.open = 0

    def node(self, own: Prefix = OWN, *, on: bool = True) -> tuple[Mptcp, MptcpSettings]:
        settings = MptcpSettings(self.note, self.make)
        return Mptcp(NETWORK, own, lambda: self.up, self, settings, on=on, clock=lambda: 0.0), settings

    @property
    def ours(self) -> set[str]:
        return {f"{each.address} {each.use}" for each in self.has.values() if each != OF_OTHERS}

    @property
    def addresses(self) -> set[str]:
        return {str(each.ip) for each in self.things if isinstance(each, Placed)}

    # -- the kernel --

    async def lead_mptcp(self, things: tuple[Placed | KernelRule, ...]) -> list[Fault]:
        self.steps.append("addresses")
        self.things = things
        return [Fault(each, "the kernel refuses it") for each in things] if self.refuses else []

    def make(self) -> World:
        self.need()
        self.open += 1
        return self

    def close(self) -> None:
        self.open -= 1

    def need(self) -> None:
        if self.lacks:
            raise NoMptcp(self.lacks)

    def endpoints(self) -> dict[int, MptcpEndpoint]:
        return dict(self.has)

    def add(self, endpoint: MptcpEndpoint) -> None:
        if len(self.has) >= self.most:
            raise OSError(errno.ERANGE, "out of range")
        assert str(endpoint.address) in self.addresses, "the kernel has the address before"
        self.steps.append(f"add {endpoint.address}")
        self.has[max(self.has, default=0) + 1] = endpoint

    def delete(self, number: int, endpoint: MptcpEndpoint) -> None:
        assert self.has.pop(number) == endpoint
        self.steps.append(f"delete {endpoint.address}")

    def limits(self) -> MptcpLimits:
        return self.limit

    def set_limits(self, limits: MptcpLimits) -> None:
        assert self.note.exists(), "what it was is noted before"
        self.limit = limits


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def look(node: Mptcp) -> None:
    asyncio.run(node.look())


PREFIX = "2001:db8:42:1:ffff:ffff:ffff:fe"
FIBRE, DSL = ({f"{PREFIX}0{slot} opening", f"{PREFIX}1{slot} announced"} for slot in (1, 2))


def test_each_line_has_endpoints_and_the_limits_are_raised(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node, _ = world.node()
    look(node)
    look(node)
    assert world.ours == FIBRE | DSL
    assert {each.split()[0] for each in world.ours} == world.addresses
    assert world.limit == NEEDED
    assert node.record() == {
        "wanted": True,
        "active": True,
        "trouble": "",
        "lines": {
            "fibre": {"opening": f"{PREFIX}01", "announced": f"{PREFIX}11"},
            "dsl": {"opening": f"{PREFIX}02", "announced": f"{PREFIX}12"},
        },
    }
    assert node.problem() is None
    assert [each.message for each in caplog.records] == [
        f"one connection of MPTCP uses all lines: fibre from {PREFIX}01, {PREFIX}11; dsl from {PREFIX}02, {PREFIX}12"
    ]


def test_at_the_end_all_is_as_it_was(world: World) -> None:
    node, settings = world.node()
    look(node)
    settings.undo()
    assert list(world.has.values()) == [OF_OTHERS]
    assert world.limit == DEFAULT
    assert not world.note.exists()
    assert world.open == 0


def test_what_the_administrator_set_meanwhile_stays(world: World) -> None:
    node, settings = world.node()
    look(node)
    world.limit = MptcpLimits(8, 8)
    look(node)
    settings.undo()
    assert world.limit == MptcpLimits(8, 8)


def test_limits_that_somebody_lowers_are_raised_again_and_are_his_at_the_end(world: World) -> None:
    node, settings = world.node()
    look(node)
    world.limit = MptcpLimits(3, 1)
    look(node)
    assert world.limit == NEEDED
    settings.undo()
    assert world.limit == MptcpLimits(3, 1)


def test_limits_that_are_high_enough_are_not_touched(world: World) -> None:
    world.limit = MptcpLimits(8, 8)
    node, settings = world.node()
    look(node)
    settings.undo()
    assert world.limit == MptcpLimits(8, 8)


def test_the_next_daemon_goes_on_and_still_knows_what_the_limits_were(world: World) -> None:
    look(world.node()[0])
    world.steps.clear()
    node, settings = world.node()
    look(node)
    assert world.steps == ["addresses"], "no subflow has to be opened anew"
    settings.undo()
    assert (list(world.has.values()), world.limit) == ([OF_OTHERS], DEFAULT)


@pytest.mark.parametrize("remains", [True, False])
def test_a_daemon_without_the_option_takes_away_what_an_earlier_one_left(world: World, remains: bool) -> None:
    if remains:
        look(world.node()[0])
    asyncio.run(world.node(on=False)[0].run())
    assert (list(world.has.values()), world.limit, world.things) == ([OF_OTHERS], DEFAULT, ())


def test_a_note_that_was_damaged_costs_the_limits_alone(world: World) -> None:
    look(world.node()[0])
    world.note.write_text('{"room": 7, "before": "x"')
    node, settings = world.node()
    look(node)
    assert world.ours == FIBRE | DSL
    settings.undo()
    assert list(world.has.values()) == [OF_OTHERS]


def test_endpoints_that_others_remove_are_put_back(world: World) -> None:
    node, _ = world.node()
    look(node)
    world.has.clear()
    look(node)
    assert world.ours == FIBRE | DSL


def test_a_line_that_goes_takes_its_endpoints_along_before_their_addresses(world: World) -> None:
    world.up[3] = Uplink("lte", "wwan0")
    node, _ = world.node()
    look(node)
    world.steps.clear()
    del world.up[2]
    look(node)
    assert world.steps == [f"delete {PREFIX}02", f"delete {PREFIX}12", "addresses"]
    assert not world.ours & DSL
    assert f"{PREFIX}02" not in world.addresses
    world.up[2] = Uplink("dsl", "eth1")
    look(node)
    assert world.ours >= DSL


def test_a_machine_with_one_line_has_the_limits_alone(world: World) -> None:
    del world.up[2]
    node, _ = world.node()
    look(node)
    assert (world.ours, world.things, world.limit) == (set(), (), NEEDED)
    assert not node.record()["active"]
    assert node.problem() is None


def test_a_kernel_without_it_is_told_of_once_and_used_once_it_has(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.lacks = "it is switched off: sysctl net.mptcp.enabled=1"
    node, settings = world.node()
    look(node)
    look(node)
    assert [each.message for each in caplog.records] == [f"one connection uses one line: MPTCP: {world.lacks}"]
    assert node.problem() == f"--mptcp: {world.lacks}"
    world.lacks = ""
    look(node)
    assert world.ours == FIBRE | DSL
    assert node.problem() is None
    settings.undo()


def test_one_that_is_switched_off_while_the_node_runs_is_put_back_all_the_same(world: World) -> None:
    node, settings = world.node()
    look(node)
    world.lacks = "it is switched off"
    look(node)
    settings.undo()
    assert (list(world.has.values()), world.limit) == ([OF_OTHERS], DEFAULT)


def test_a_subnet_without_room_is_told_of(world: World) -> None:
    node, _ = world.node(Prefix(5, 70))
    look(node)
    assert world.ours == set()
    assert "has no room for an address of each line" in (node.problem() or "")


def test_endpoints_of_others_may_leave_no_room(world: World) -> None:
    world.most = 3
    node, _ = world.node()
    look(node)
    assert len(world.ours) == 2
    assert "takes no more endpoints" in (node.problem() or "")


def test_what_the_kernel_refuses_is_told(world: World) -> None:
    world.refuses = True
    node, _ = world.node()
    for _ in range(2):
        look(node)
        assert "the kernel refuses it" in (node.problem() or "")
        assert not world.ours, "without the rules, the kernel would send from these addresses to anywhere"
    world.refuses = False
    look(node)
    assert node.problem() is None
    assert world.ours == FIBRE | DSL


def test_an_announced_address_is_not_one_to_open_from(world: World) -> None:
    look(world.node()[0])
    assert {each.flags for each in world.has.values() if each != OF_OTHERS} == {SIGNAL, SUBFLOW}
