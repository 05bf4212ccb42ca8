"""A node with several lines tells neighbours by which of them to send, while one is full and somebody understands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from re6st.core.machine.incoming_rules import OTHERS, TABLE
from re6st.core.machine.share_rules import counter
from re6st.core.machine.uplinks import Uplink
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.incoming import LINGERS
from re6st.core.routing.line_wishes import Able, Message, Wish
from re6st.linux.nftables import NftError
from re6st.noded.incoming_shares import AGAIN, LOOK, SUSPECT, IncomingMachine, IncomingShares
from re6st.noded.line_shares import LineTunnel

NETWORK, OWN, PEER, OTHER = IPv6Network("2001:db8:42::/48"), Prefix(1, 16), Prefix(2, 16), Prefix(3, 16)
MBIT = 1_000_000 / 8
BOTH = frozenset({1, 2})


class World:
    """Two lines of 10 Mbit/s with a tunnel over each, whose peers do what they are told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.up = {1: Uplink("fibre", "eth0", down=10.0), 2: Uplink("dsl", "eth1", down=10.0)}
        self.there = [LineTunnel(1, "re6stnet1", PEER), LineTunnel(2, "re6stnet2", OTHER)]
        self.understand = {PEER, OTHER}
        self.asked = 0
        self.wishes: dict[Prefix, Wish] = {}
        self.told = 0
        self.counted: dict[str, int] = {}
        self.received = {"eth0": 0, "eth1": 0, "eth2": 0, "re6stnet1": 0, "re6stnet2": 0, "re6stnet3": 0}
        self.can = {PEER: BOTH, OTHER: BOTH}
        self.refuses = ""
        self.now = 100.0
        machine = IncomingMachine(self, self, directory)
        self.room = IncomingShares(NETWORK, OWN, machine, self, lambda: False, lambda: self.now)

    def lines(self) -> Mapping[int, Uplink]:
        return self.up

    def tunnels(self) -> Collection[LineTunnel]:
        return self.there

    def understands(self, peer: Prefix) -> bool:
        self.asked += 1
        return peer in self.understand

    def tell(self, peer: Prefix, message: Message) -> None:
        assert isinstance(message, Wish)
        assert peer in self.understand
        self.wishes[peer] = message
        self.told += 1

    async def load(self, commands: str, *, only_check: bool = False) -> None:
        if self.refuses:
            raise NftError(self.refuses)
        self.counted = dict.fromkeys(re.findall(r"^counter (\S+)", commands, re.MULTILINE), 0)

    def counters(self, table: str) -> Mapping[str, int]:
        return self.counted_bytes(table)

    def counted_bytes(self, table: str) -> Mapping[str, int]:
        assert table == TABLE
        return dict(self.counted)

    @property
    def placed(self) -> dict[int, int]:
        return dict(self.wishes[PEER].buckets) if PEER in self.wishes else {}

    async def live(self, seconds: float, rates: Mapping[int, float] | None = None, outside: float = 0.0) -> None:
        """The room looks as often as it would. Buckets come by line 1, or as is wished; and there, by no tunnel, what
        comes from outside the network.
        """
        for _ in range(round(seconds / LOOK)):
            for bucket, mbits in (rates or {}).items():
                slot, count = self.placed.get(bucket, 1), int(mbits * MBIT * LOOK)
                for name in (counter(slot, bucket), OTHERS + counter(slot, bucket)):
                    if name in self.counted:
                        self.counted[name] += count
                for device in (f"eth{slot - 1}", f"re6stnet{slot}"):
                    self.received[device] += count
            self.received["eth0"] += int(outside * MBIT * LOOK)
            for device, count in self.received.items():
                path = self.directory / device / "statistics"
                path.mkdir(parents=True, exist_ok=True)
                (path / "rx_bytes").write_text(f"{count}\n")
            await self.room.look()
            for peer in self.understand:
                if self.wishes.get(peer, Wish()).lines:
                    self.room.able(peer, Able(self.can[peer]))
            self.now += LOOK


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


MANY = dict.fromkeys(range(8), 1.2)


def test_once_a_line_is_full_half_of_what_comes_by_it_is_wished_by_the_other_one(world: World) -> None:
    asyncio.run(world.live(3, dict.fromkeys(range(8), 0.3)))
    assert world.told == world.asked == 0, "nobody is asked for anything before"
    asyncio.run(world.live(3, MANY))
    assert sorted(world.placed.values()) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert world.wishes[PEER].lines == {1: (PEER,), 2: (OTHER,)}
    fibre, dsl = ({"received_mbits": mbits, "groups": 4} for mbits in (4.8, 4.8))
    assert world.room.record() == {"active": True, "trouble": "", "lines": {"fibre": fibre, "dsl": dsl}}


def test_of_three_lines_what_comes_by_who_cannot_send_by_all_is_counted_too(world: World) -> None:
    third, all_lines = Prefix(4, 16), frozenset({1, 2, 3})
    world.up[3] = Uplink("lte", "eth2", down=10.0)
    world.there.append(LineTunnel(3, "re6stnet3", third))
    world.understand.add(third)
    world.can = {PEER: all_lines, OTHER: frozenset({2}), third: frozenset({3})}
    asyncio.run(world.live(3, MANY))
    before = world.placed
    assert set(before.values()) == all_lines
    asyncio.run(world.live(30, MANY))
    assert world.placed == before, "nothing is taken for lost"


def test_a_line_that_others_fill_is_nobodys_business(world: World) -> None:
    asyncio.run(world.live(5, {0: 0.9}, outside=9.0))
    assert world.told == world.asked == 0
    asyncio.run(world.live(5, {0: 1.1}, outside=9.0))
    assert world.told


def test_when_it_is_over_nothing_is_wished_or_counted(world: World) -> None:
    asyncio.run(world.live(3, MANY))
    asyncio.run(world.live(40 + LINGERS))
    assert world.wishes[PEER] == Wish()
    assert world.counted == {}
    told = world.told
    asyncio.run(world.live(10))
    assert world.told == told


@pytest.mark.parametrize("lacks", ["understanding", "line", "tunnel"])
def test_without_two_lines_whose_peers_understand_nothing_is_wished(world: World, lacks: str) -> None:
    if lacks == "understanding":
        world.understand = {PEER}
    elif lacks == "line":
        del world.up[2]
    else:
        world.there.pop()
    asyncio.run(world.live(3, MANY))
    assert world.wishes == {}
    assert world.counted == {}


def test_a_line_whose_link_died_is_left_at_once_and_wished_for_again_later(world: World) -> None:
    asyncio.run(world.live(3, MANY))
    dead = frozenset({NextHop(IPv6Address("fe80::1"), "re6stnet2")})
    asyncio.run(world.room.avoid(dead))
    asyncio.run(world.live(LOOK, MANY))
    assert world.wishes[PEER] == Wish()
    asyncio.run(world.room.avoid(frozenset()))
    asyncio.run(world.live(SUSPECT + 3, MANY))
    assert 2 in world.placed.values()


def test_where_nft_refuses_nothing_is_wished_until_it_does_not(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.refuses = "no such file"
    asyncio.run(world.live(AGAIN / 2, MANY))
    assert world.placed == {}
    assert caplog.text.count("what comes in is not spread over the lines: no such file") == 1
    world.refuses = ""
    asyncio.run(world.live(AGAIN, MANY))
    assert 2 in world.placed.values()


def test_a_table_that_another_program_removed_is_there_again(world: World) -> None:
    asyncio.run(world.live(3, MANY))
    world.counted = {}
    asyncio.run(world.live(2 * LOOK, MANY))
    assert world.counted


def test_when_the_node_ends_it_counts_nothing(world: World) -> None:
    asyncio.run(world.live(3, MANY))

    async def end() -> None:
        task = asyncio.create_task(world.room.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(end())
    assert world.counted == {}
