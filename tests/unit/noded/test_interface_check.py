"""Interfaces that are others than before, by the same name, while babel has neighbours on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from ipaddress import IPv6Address

import pytest

from re6st.core.routing.babel_lines import Neighbour, Table
from re6st.noded import interface_check
from re6st.noded.interface_check import AGAIN_FIRST, AGAIN_LAST, InterfaceCheck
from tests.unit.fake_program import until


class World:
    """This machine's interfaces, babel's table, and why babeld was started anew."""

    def __init__(self) -> None:
        self.table = Table()
        self.there = {"lo": 1, "re6stnet1": 5, "br0": 7}
        self.renewed: list[str] = []
        self.now = 0.0
        self.wait: float | None = None
        """Until it wants to look again."""
        self.check = InterfaceCheck(self, lambda: self.there, lambda: self.now)
        self.look()

    async def renew(self, reason: str) -> None:
        self.renewed.append(reason)

    def look(self) -> list[str]:
        self.wait = asyncio.run(self.check.look())
        return self.renewed

    def hears(self, interface: str) -> None:
        self.table.neighbours[interface] = Neighbour(
            interface, IPv6Address("fe80::1"), interface, 0xFFFF, 96, 96, 96, None
        )

    def forgets(self, interface: str) -> None:
        del self.table.neighbours[interface]


@pytest.mark.parametrize("seen_while_away", [False, True])
def test_babeld_is_started_anew_once(seen_while_away: bool) -> None:
    world = World()
    world.hears("re6stnet1")
    assert world.look() == []
    if seen_while_away:
        del world.there["re6stnet1"]
        assert world.look() == []
    world.there["re6stnet1"] = 9
    expected = ["another interface than before has the name re6stnet1"]
    assert world.look() == expected
    assert world.look() == expected


def test_once_for_all_that_changed_at_the_same_time() -> None:
    world = World()
    world.hears("re6stnet1")
    world.hears("br0")
    world.there.update({"re6stnet1": 9, "br0": 10})
    assert world.look() == ["other interfaces than before have the names br0, re6stnet1"]


def test_where_babel_has_no_neighbour_it_is_left_alone() -> None:
    world = World()
    world.there["re6stnet1"] = 9
    assert world.look() == []
    world.hears("re6stnet1")
    assert world.look() == [], "it was met on the one that is there now"


def test_a_neighbour_that_was_forgotten_meanwhile_is_no_reason() -> None:
    world = World()
    world.hears("re6stnet1")
    world.look()
    del world.there["re6stnet1"]
    world.look()
    world.forgets("re6stnet1")
    world.look()
    world.there["re6stnet1"] = 9
    world.hears("re6stnet1")
    assert world.look() == []


def test_interfaces_that_come_and_go_are_no_reason() -> None:
    world = World()
    world.hears("re6stnet1")
    world.there["veth0"] = 20
    world.look()
    world.there["veth0"] = 21
    del world.there["br0"]
    assert world.look() == []


def test_where_they_are_replaced_all_the_time_babeld_is_started_anew_ever_less_often() -> None:
    """A bridge that a broken script makes anew every second must not keep the whole node from routing."""
    world = World()
    starts: list[int] = []
    world.hears("br0")
    world.look()
    for second in range(1, 2000):
        world.now, world.there["br0"] = float(second), 100 + second
        if len(world.look()) > len(starts):
            starts.append(second)
    assert starts[1] - starts[0] >= AGAIN_FIRST
    assert starts[-1] - starts[-2] >= AGAIN_LAST
    assert len(starts) < 12


def test_what_was_put_off_is_done_without_news() -> None:
    world = World()
    world.hears("br0")
    world.hears("re6stnet1")
    world.look()
    world.there["br0"] = 100
    world.look()
    world.there["re6stnet1"] = 101
    assert len(world.look()) == 1
    assert world.wait is not None
    world.now += world.wait
    assert world.look()[1:] == ["another interface than before has the name re6stnet1"]
    assert world.wait is None


def test_nor_is_it_done_where_the_neighbour_is_forgotten_by_then() -> None:
    world = World()
    world.hears("br0")
    world.look()
    for index in (100, 101):
        world.there["br0"] = index
        world.look()
    world.forgets("br0")
    world.now = 100.0
    assert len(world.look()) == 1


def test_it_looks_again_by_itself_and_when_the_kernel_tells_of_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    world, news = World(), asyncio.Event()
    monkeypatch.setattr(interface_check, "AGAIN_FIRST", 0.01)
    world.hears("br0")

    async def changes() -> AsyncGenerator[None, None]:
        while True:
            yield
            await news.wait()
            news.clear()

    monkeypatch.setattr("re6st.linux.address_monitor.changes", changes)

    async def main() -> None:
        check = InterfaceCheck(world, lambda: world.there)
        task = asyncio.create_task(check.run())
        await until(lambda: check._known)
        for count in (1, 2):
            world.there = {**world.there, "br0": 100 + count}
            news.set()
            await until(lambda count=count: len(world.renewed) == count)  # type: ignore[misc]
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
