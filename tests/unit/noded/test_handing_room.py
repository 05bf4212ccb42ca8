"""A node sends neighbours what is for them by the line that they wish, and says that it is ready once the kernel is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network

import pytest

from re6st.core.machine import share_numbers
from re6st.core.machine.handing_rules import HANDED, HOME, TABLE
from re6st.core.machine.wanted_state import Fault, KernelRule
from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import Neighbour, NextHop, Table
from re6st.core.routing.line_ways import LineWays
from re6st.core.routing.line_wishes import LASTS, Able, Message, Ready, Wish
from re6st.linux.nftables import NftError
from re6st.noded.handing import AGAIN, LOOK, WRITE, HandingMachine, HandingRoom
from re6st.noded.own_table import THERE_EVERY

NETWORK = IPv6Network("2001:db8:42::/48")
OWN, LINED, PEER = Prefix(1, 16), Prefix(2, 16), Prefix(3, 16)
DIRECT, BY = NextHop(IPv6Address("fe80::a"), "re6stnet1"), NextHop(IPv6Address("fe80::b"), "re6stnet2")
WISH = Wish({1: (OWN,), 2: (PEER,)}, {5: 2, 6: 1})
TO = subnet(NETWORK, LINED)


class World:
    """A neighbour with two lines, and another neighbour of it; and a kernel that keeps what it is told."""

    def __init__(self) -> None:
        self.table = Table()
        self.owners = {DIRECT: LINED, BY: PEER}
        for hop in self.owners:
            name = hop.interface
            self.table.neighbours[name] = Neighbour(name, hop.address, name, 0xFFFF, 96, 96, 96, None)
        self.rules: tuple[KernelRule, ...] = ()
        self.ways: LineWays = {}
        self.text = ""
        self.said: list[tuple[Prefix, Message]] = []
        self.loads = self.loaded_anew = 0
        self.takes = 0.0
        """Seconds that nft needs."""
        self.lacks: frozenset[tuple[int, IPv6Network]] = frozenset()
        self.refuses = ""
        self.refuses_rules = False
        self.now = 100.0
        machine = HandingMachine(self, self, self)
        self.room = HandingRoom(NETWORK, OWN, self, self, machine, self, lambda: False, lambda: self.now)

    def owner_at(self, hop: NextHop) -> Prefix | None:
        return self.owners.get(hop)

    async def lead_handed(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        if self.refuses_rules and rules:
            return [Fault(rules[0], "the kernel refuses it")]
        self.rules = rules
        return []

    async def follow(
        self, wanted: LineWays, source: IPv6Address, *, anew: bool = False
    ) -> frozenset[tuple[int, IPv6Network]]:
        self.ways = wanted
        return self.lacks if wanted else frozenset()

    async def load(self, commands: str, *, only_check: bool = False) -> None:
        if self.refuses or (commands.startswith("flush") and not self.text):
            raise NftError(self.refuses or "no such table")
        self.loads += 1
        self.loaded_anew += "counter " in commands
        self.now += self.takes
        self.text = commands if "chain" in commands else ""

    def counted_bytes(self, table: str) -> Mapping[str, int]:
        return self.counters(table)

    def counters(self, table: str) -> Mapping[str, int]:
        assert table == TABLE
        return {HANDED: 7, HOME: 8} if self.text else {}

    def tell(self, peer: Prefix, message: Message) -> None:
        assert self.text or message == Able(frozenset()), "it is ready before it says so"
        self.said.append((peer, message))

    def wish(self, wish: Wish = WISH, *, ready: bool = True) -> None:
        self.room.wished(LINED, wish)
        if ready:
            self.room.ready(PEER, Ready(LINED, True))

    def look(self, seconds: float = LOOK) -> None:
        asyncio.run(self.room.look())
        self.now += seconds


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_wished_is_in_the_kernel_before_anybody_is_told(world: World) -> None:
    world.look()
    assert (world.rules, world.ways, world.text) == ((), {}, "")
    world.wish()
    world.look()
    assert world.ways == {1: {TO: DIRECT}, 2: {TO: BY}, share_numbers.HOME: {TO: DIRECT}}
    assert "5 : goto to_2, 6 : goto to_1" in world.text
    assert 'iifname { "re6stnet2" }' in world.text
    assert {rule.table for rule in world.rules} == {None, *share_numbers.HANDED_TABLES[:3]}
    assert world.said == [(PEER, Ready(LINED, True)), (LINED, Able(frozenset({1, 2})))]
    assert world.room.record() == {"trouble": "", "for": [str(TO)], "handed_packets": 7, "home_packets": 8}


def test_who_has_no_link_with_us_has_us_do_nothing(world: World) -> None:
    del world.table.neighbours[DIRECT.interface]
    world.wish()
    world.look()
    assert (world.rules, world.ways, world.text, world.said) == ((), {}, "", [])


def test_nothing_is_in_the_kernel_where_nothing_can_be_done(world: World) -> None:
    world.wish(Wish({1: (OWN,)}), ready=False)
    world.look()
    assert world.text
    asyncio.run(world.room.avoid(frozenset({DIRECT})))
    world.look()
    world.look()
    assert (world.rules, world.ways, world.text) == ((), {}, "")
    assert world.said[-1] == (LINED, Able(frozenset()))


def test_when_nobody_wishes_anything_any_more_nothing_is_left(world: World) -> None:
    world.wish()
    world.look(LASTS)
    world.look(2 * LASTS)
    world.look()
    world.look()
    assert (world.rules, world.ways, world.text) == ((), {}, "")


def test_a_link_that_died_is_left_at_once(world: World) -> None:
    world.wish()
    world.look()
    asyncio.run(world.room.avoid(frozenset({BY})))
    world.look()
    assert 2 not in world.ways, "what has the mark of that line goes as babel says"
    assert world.ways[1] == {TO: DIRECT}
    asyncio.run(world.room.avoid(frozenset({DIRECT})))
    world.said.clear()
    world.look()
    assert world.ways[share_numbers.HOME] == {}
    assert (PEER, Ready(LINED, False)) in world.said


def test_of_two_links_with_a_neighbour_one_is_used_as_long_as_it_lives(world: World) -> None:
    second = NextHop(IPv6Address("fe80::c"), "re6stnet-wg1")
    world.wish()
    world.look()
    world.owners[second] = PEER
    world.table.neighbours["3"] = Neighbour("3", second.address, second.interface, 0xFFFF, 1, 1, 1, None)
    world.look()
    assert world.ways[2] == {TO: BY}
    world.look()
    assert 'iifname { "re6stnet-wg1", "re6stnet2" }' in world.text, "what is handed to us may come by both"
    asyncio.run(world.room.avoid(frozenset({BY})))
    world.look()
    assert world.ways[2] == {TO: second}


@pytest.mark.parametrize("who", ["nft", "kernel"])
def test_where_it_is_refused_nobody_is_told_and_it_is_tried_again(
    world: World, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.refuses, world.refuses_rules = ("no hash" if who == "nft" else ""), who == "kernel"
    world.wish()
    world.look()
    assert (world.said, world.ways, world.text) == ([], {}, "")
    assert caplog.text.count("packets do not go by the lines that neighbours wish") == 1
    world.refuses, world.refuses_rules = "", False
    world.wish()
    world.look(AGAIN)
    assert world.said == []
    world.wish()
    world.look()
    assert world.said


def test_a_table_that_another_program_removed_is_there_again(world: World) -> None:
    world.wish()
    world.look(THERE_EVERY - 1)
    world.text = ""
    world.wish()
    world.said.clear()
    world.room._words = type("Deaf", (), {"tell": lambda *_: None})()
    world.look(2)
    world.wish()
    world.look()
    assert world.text


def test_whoever_changes_its_wish_all_the_time_has_the_table_changed_no_more_often_and_never_made_anew(
    world: World,
) -> None:
    for number in range(100):
        world.wish(Wish(WISH.lines, {number % 64: 1 + number % 2}))
        world.look(0.1)
    assert world.loads <= 10 / WRITE + 1
    assert world.loaded_anew == 1, "counters go on"
    world.loads = 0
    for number in range(100):
        world.wish(Wish({1: (OWN,)}) if number % 2 else Wish())
        world.look(0.1)
    assert world.loads <= 10 / WRITE + 1


def test_nobody_is_told_that_we_are_ready_before_the_table_is_so(world: World) -> None:
    world.wish(Wish({1: (OWN,)}))
    world.look(0.1)
    world.wish()
    world.look(0.1)
    assert not [word for _, word in world.said if isinstance(word, Ready)]
    world.look(WRITE)
    world.look()
    assert (PEER, Ready(LINED, True)) in world.said
    assert "iifname" in world.text


def test_a_promise_counts_from_when_it_is_made_however_long_nft_takes(world: World) -> None:
    world.takes = LASTS - 1
    world.wish()
    world.look(0)
    world.takes = 0
    assert (PEER, Ready(LINED, True)) in world.said
    said, world.now = world.now, world.now + LASTS - 0.5
    world.look(0)
    world.look(0)
    assert world.now < said + LASTS
    assert "iifname" in world.text


@pytest.mark.parametrize("how", ["refused", "ends"])
def test_those_that_rely_on_us_are_told_when_we_cannot_go_on_or_end(world: World, how: str) -> None:
    if how == "refused":
        world.wish()
        world.look()
        world.refuses = "no memory"
        world.wish(Wish(WISH.lines, {1: 1}))
        world.look(WRITE)
        world.look()
    else:

        async def end() -> None:
            task = asyncio.create_task(world.room.run())
            await asyncio.sleep(0)
            world.wish()
            await world.room.look()
            assert world.said
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(end())
    assert world.said[-1] == (PEER, Ready(LINED, False))
    assert world.ways == {}


def test_what_the_kernel_lacks_is_not_promised_and_tried_again_at_each_look(world: World) -> None:
    world.lacks = frozenset({(share_numbers.HOME, TO), (2, TO)})
    world.wish()
    world.look()
    assert world.said == [(PEER, Ready(LINED, False)), (LINED, Able(frozenset({1})))]
    world.lacks = frozenset()
    world.look()
    world.wish()
    world.look()
    assert world.said[2:] == [(PEER, Ready(LINED, True)), (LINED, Able(frozenset({1, 2})))]
