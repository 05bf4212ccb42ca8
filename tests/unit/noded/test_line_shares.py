"""A node with several lines has the kernel send connections over all of them, and goes on without those that fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from re6st.core.machine.share_rules import TABLE, counter, read_counter
from re6st.core.machine.uplinks import Uplink
from re6st.core.machine.wanted_state import Fault, KernelRule
from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import Neighbour, NextHop, Route, Table
from re6st.core.routing.detours import ANYWHERE
from re6st.core.routing.line_ways import LineWays
from re6st.core.routing.spreading import BUCKETS
from re6st.core.telemetry.report import Link
from re6st.linux.nftables import NftError
from re6st.noded.line_shares import AGAIN, BUSY, LEAD_EVERY, SUSPECT, LineShares, ShareMachine, TunnelLines

NETWORK, OWN, PEER, OTHER = IPv6Network("2001:db8:42::/48"), Prefix(1, 16), Prefix(2, 16), Prefix(3, 16)
A, B = NextHop(IPv6Address("fe80::a"), "re6stnet1"), NextHop(IPv6Address("fe80::b"), "re6stnet2")
MBIT = 1_000_000 / 8


class World:
    """Two lines of 10 Mbit/s with a tunnel over each, and a kernel that keeps what it is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.up = {1: Uplink("fibre", "eth0", up=10.0), 2: Uplink("dsl", "eth1", up=10.0)}
        self.tunnels = {A.interface: 1, B.interface: 2}
        self.table = Table()
        self.rules: tuple[KernelRule, ...] = ()
        self.ways: LineWays = {}
        self.counted: dict[str, int] = {}
        self.sent = {"eth0": 0, "eth1": 0}
        self.commands: list[str] = []
        self.refuses = ""
        self.refuses_rules = False
        self.now = 100.0
        for hop, of in ((A, PEER), (B, OTHER)):
            name = hop.interface
            self.table.neighbours[name] = Neighbour(name, hop.address, name, 0xFFFF, 96, 96, 96, None)
            for number, refmetric in ((of, 0), (PEER if of == OTHER else OTHER, 96)):
                ident = f"{name} {number}"
                where = subnet(NETWORK, number)
                self.table.routes[ident] = Route(ident, where, ANYWHERE, refmetric == 0, refmetric + 96, refmetric, hop)
        machine = ShareMachine(self, self, self, self, directory)
        self.room = LineShares(NETWORK, OWN, self, machine, lambda: False, lambda: self.now)

    # -- lines --

    def lines(self) -> Mapping[int, Uplink]:
        return self.up

    def interfaces(self) -> Mapping[str, int]:
        return self.tunnels

    # -- kernel --

    async def lead_shares(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        if self.refuses_rules:
            return [Fault(rule, "the kernel refuses it") for rule in rules]
        self.rules = rules
        return []

    async def follow(self, wanted: LineWays, source: IPv6Address, *, anew: bool = False) -> None:
        self.ways = wanted

    # -- nft --

    async def load(self, commands: str, *, only_check: bool = False) -> None:
        if self.refuses:
            raise NftError(self.refuses)
        self.commands.append(commands)
        if f"delete table inet {TABLE}" in commands:
            self.counted = dict.fromkeys(re.findall(r"^counter (\S+)", commands, re.MULTILINE), 0)

    def counters(self, table: str) -> Mapping[str, int]:
        return self.counted_bytes(table)

    def counted_bytes(self, table: str) -> Mapping[str, int]:
        return dict(self.counted)

    # -- time --

    @property
    def placed(self) -> dict[int, int]:
        """By bucket, as the kernel has it."""
        said = [each for each in self.commands if "chain place" in each or " place" in each][-1:]
        return {int(bucket): int(slot) for bucket, slot in re.findall(r"(\d+) : goto to_(\d+)", "".join(said))}

    def flow(self, rates: Mapping[int, float], seconds: float = BUSY) -> None:
        """Buckets send so many Mbit/s over their line; 1 is that of those which are placed nowhere."""
        for bucket, mbits in rates.items():
            slot, count = self.placed.get(bucket, 1), int(mbits * MBIT * seconds)
            if (name := counter(slot, bucket)) in self.counted:
                self.counted[name] += count
            self.sent[self.up[slot].device] += count
        for device, count in self.sent.items():
            path = self.directory / device / "statistics"
            path.mkdir(parents=True, exist_ok=True)
            (path / "tx_bytes").write_text(f"{count}\n")

    async def live(self, seconds: float, rates: Mapping[int, float] | None = None) -> None:
        """The room looks as often as it would."""
        for _ in range(round(seconds / BUSY)):
            self.flow(rates or {})
            await self.room.look()
            self.now += BUSY


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_line_has_its_rule_and_its_ways(world: World) -> None:
    asyncio.run(world.live(1))
    assert [rule.source for rule in world.rules] == [subnet(NETWORK, OWN)] * 2
    assert world.ways == {
        slot: {subnet(NETWORK, PEER): hop, subnet(NETWORK, OTHER): hop} for slot, hop in ((1, A), (2, B))
    }


def test_once_a_line_is_full_half_of_what_goes_over_it_moves_to_the_other_one(world: World) -> None:
    asyncio.run(world.live(2, dict.fromkeys(range(8), 0.3)))
    assert world.placed == {}
    asyncio.run(world.live(1, dict.fromkeys(range(8), 1.2)))
    assert sorted(world.placed.values()) == [1, 1, 1, 1, 2, 2, 2, 2]
    loads = len(world.commands)
    asyncio.run(world.live(5, dict.fromkeys(range(8), 1.2)))
    assert len(world.commands) == loads, "nothing changes any more"


@pytest.mark.parametrize("lacks", ["line", "tunnel", "all"])
def test_with_one_line_nothing_is_touched_or_all_is_taken_back(world: World, lacks: str) -> None:
    asyncio.run(world.live(1))
    if lacks == "line":
        del world.up[2]
    elif lacks == "tunnel":
        del world.tunnels[B.interface]
    else:
        world.tunnels.clear()
    asyncio.run(world.live(LEAD_EVERY + BUSY))
    assert (world.rules, world.ways, world.counted) == ((), {}, {})
    loads = len(world.commands)
    asyncio.run(world.live(5))
    assert len(world.commands) == loads


def test_nothing_goes_over_a_line_on_which_a_link_died_until_it_has_been_heard(world: World) -> None:
    async def steps() -> None:
        await world.live(3, dict.fromkeys(range(8), 1.2))
        assert 2 in world.placed.values()
        await world.room.avoid(frozenset({B}))
        assert 2 not in world.ways or not world.ways[2]
        await world.live(1, dict.fromkeys(range(8), 1.2))
        assert 2 not in world.placed.values()
        await world.room.avoid(frozenset())
        await world.live(SUSPECT + LEAD_EVERY, dict.fromkeys(range(8), 1.2))
        assert world.ways[2]
        assert 2 in world.placed.values()

    asyncio.run(steps())


def test_a_link_that_is_drained_leads_nowhere(world: World) -> None:
    async def steps() -> None:
        await world.live(1)
        name = B.interface
        world.table.neighbours[name] = Neighbour(name, B.address, name, 0x3FFF, 96, 96, 384, None)
        world.room.follow()
        await world.live(LEAD_EVERY + BUSY)
        assert world.ways[2] == {}

    asyncio.run(steps())


def test_the_table_is_set_up_again_where_others_removed_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(world.live(1))
    world.counted.clear()
    asyncio.run(world.live(7))
    assert len(world.counted) == 2 * BUCKETS
    assert sum("another program removed" in message for message in caplog.messages) == 1


def test_what_nft_refuses_is_said_once_and_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.refuses = "no jhash"
    asyncio.run(world.live(1 + AGAIN))
    assert world.room.record()["trouble"] == "no jhash"
    assert len(caplog.messages) == 1
    world.refuses = ""
    asyncio.run(world.live(1 + AGAIN))
    assert world.room.record()["active"]


def test_where_the_kernel_refuses_the_rules_nothing_is_marked(world: World) -> None:
    world.refuses_rules = True
    asyncio.run(world.live(1))
    assert not world.room.record()["active"]
    assert world.commands[-1].split() == ["add", "table", "inet", TABLE, "delete", "table", "inet", TABLE]
    world.refuses_rules = False
    asyncio.run(world.live(1 + AGAIN))
    assert world.room.record()["active"]


def test_what_a_killed_daemon_left_ends_nothing_where_nft_fails(world: World) -> None:
    async def steps() -> bool:
        running = asyncio.create_task(world.room.run())
        await asyncio.sleep(0.01)
        running.cancel()
        (end,) = await asyncio.gather(running, return_exceptions=True)
        return isinstance(end, asyncio.CancelledError)

    world.counted, world.refuses = {counter(1, 1): 5}, "it takes too long"
    assert asyncio.run(steps())


def test_the_operator_sees_what_goes_over_each_line(world: World) -> None:
    asyncio.run(world.live(3, dict.fromkeys(range(8), 1.2)))
    lines: Any = world.room.record()["lines"]
    assert lines["dsl"] == {"destinations": 2, "sent_mbits": pytest.approx(4.8, abs=0.2), "groups": 4}


def test_at_its_end_nothing_is_left(world: World) -> None:
    async def steps() -> None:
        running = asyncio.create_task(world.room.run())
        while not world.ways:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    world.counted = {counter(1, 1): 5}  # of a daemon that was killed
    asyncio.run(steps())
    assert (world.rules, world.ways, world.counted) == ((), {}, {})


def test_tunnels_are_known_by_line_once_they_are_up_and_those_of_peers_by_none() -> None:
    choice = UplinkChoice()
    fibre, lte = Uplink("fibre", "eth0", ways={4: object()}), Uplink("lte", "wwan0", ways={4: object()}, metered=True)  # type: ignore[dict-item]
    choice.follow({1: fibre, 3: lte}, 0.0)
    tunnels = [
        Link(PEER, True, None, "", None, "re6stnet1", 5.0, None, None, uplink="fibre"),
        Link(OTHER, True, None, "", None, "re6stnet2", None, None, None, uplink="lte"),
        Link(OTHER, False, None, "", None, "re6stnet-tcp", 5.0, None, None),
        Link(OTHER, True, None, "", None, "re6stnet4", 5.0, None, None, uplink="gone"),
    ]
    lines = TunnelLines(choice, lambda: tunnels)
    assert lines.interfaces() == {"re6stnet1": 1}
    assert lines.lines() == {1: fibre}, "what costs by the byte is used where nothing else is"
    choice.follow({3: lte}, 1.0)
    assert lines.lines() == {3: lte}
    assert read_counter(counter(3, 1)) == (3, 1)


def test_nothing_stays_where_the_end_comes_while_the_kernel_is_given_it(world: World, monkeypatch: Any) -> None:
    """nft may have done its work though nobody waits for it any more."""
    load = world.load

    async def stopped(commands: str, *, only_check: bool = False) -> None:
        await load(commands, only_check=only_check)
        monkeypatch.undo()
        await asyncio.sleep(3600)

    async def run() -> None:
        monkeypatch.setattr(world, "load", stopped)
        task = asyncio.create_task(world.room.run())
        while not world.commands:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert world.counted == {}
    assert "chain" not in world.commands[-1], "the table is removed at last"


def test_where_other_rules_are_refused_nothing_of_those_before_is_taken_for_being_there(world: World) -> None:
    async def run() -> None:
        await world.live(2)
        assert world.room.record()["active"]
        world.tunnels = {**world.tunnels, "re6stnet3": 2}
        world.refuses_rules = True
        await world.live(2)
        assert not world.room.record()["active"]
        assert (world.counted, world.ways) == ({}, {})
        world.refuses_rules = False
        await world.live(AGAIN + 2)
        assert world.room.record()["active"]

    asyncio.run(run())
