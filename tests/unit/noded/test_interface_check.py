"""Interfaces that are others than before, by the same name, while babel has neighbours on them."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address

import pytest

from re6st.core.routing.babel_lines import Neighbour, Table
from re6st.noded.interface_check import InterfaceCheck


class World:
    """This machine's interfaces, babel's table, and why babeld was started anew."""

    def __init__(self) -> None:
        self.table = Table()
        self.there = {"lo": 1, "re6stnet1": 5, "br0": 7}
        self.renewed: list[str] = []
        self.check = InterfaceCheck(self, lambda: self.there)
        self.look()

    async def renew(self, reason: str) -> None:
        self.renewed.append(reason)

    def look(self) -> list[str]:
        asyncio.run(self.check.look())
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
