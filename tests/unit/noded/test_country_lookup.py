"""Our own country: said, asked for, remembered (wire.md 10.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from re6st.client.registry_client import RegistryError
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded import country
from re6st.noded.country import CountryLookup, locator
from re6st.noded.own_addresses import OwnAddresses
from tests.unit.service.test_geoip import FRANCE, make


class World:
    """A registry that knows countries, and a node with addresses."""

    def __init__(self, given: str = "", remembered: str = "") -> None:
        self.own = OwnAddresses([(1194, TunnelProtocol.TCP)], [ip_address("192.0.2.1")])
        self.answers: dict[str, str | None] = {"192.0.2.1": "FR", "192.0.2.2": "DE"}
        self.asked: list[str] = []
        self.down = False
        self.changes: list[str] = []
        told = (Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP, remembered),)
        self.moved = asyncio.Event()
        self.country = CountryLookup(self.own, given, self.ask, told, self.moved, self.changed)

    def changed(self) -> None:
        self.changes.append(self.own.country)

    async def ask(self, address: str) -> str | None:
        self.asked.append(address)
        if self.down:
            raise RegistryError("it is down")
        return self.answers.get(address)

    def move(self, address: str) -> None:
        self.own.given = [ip_address(address)]
        self.moved.set()


def live(world: World, *steps: Callable[[], None]) -> None:
    """Run it; after each step it has time to act."""

    async def run() -> None:
        task = asyncio.create_task(world.country.run())
        for step in steps:
            step()
            for _ in range(20):
                await asyncio.sleep(0)
        task.cancel()

    asyncio.run(run())


def test_nothing_is_asked_where_the_network_does_not_care() -> None:
    world = World()
    live(world, lambda: world.country.require(False))
    assert (world.asked, world.own.country, world.changes) == ([], "", [])
    said = World("FR")
    live(said, lambda: said.country.require(False))
    assert said.own.endpoints()[0].country == ""


def test_what_the_user_says_is_told() -> None:
    world = World("FR")
    live(world, lambda: world.country.require(True), lambda: world.country.require(False))
    assert (world.asked, world.changes) == ([], ["FR", ""])


def test_the_registry_is_asked_for_our_first_address_and_again_when_it_changes() -> None:
    world = World()
    live(world, lambda: world.country.require(True), world.moved.set, lambda: world.move("192.0.2.2"))
    assert world.asked == ["192.0.2.1", "192.0.2.2"]
    assert world.changes == ["FR", "DE"]
    assert world.own.endpoints()[0].country == "DE"


def test_a_network_that_cares_again_is_told_again() -> None:
    world = World()
    live(
        world,
        lambda: world.country.require(True),
        lambda: world.country.require(False),
        lambda: world.country.require(True),
    )
    assert world.changes == ["FR", "", "FR"]


def test_what_was_known_holds_until_the_registry_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(country, "AGAIN_FIRST", 0.0)
    world = World(remembered="JP")
    world.down = True

    def up() -> None:
        assert world.own.country == "JP"
        assert "the country of this node is not known: it is down" in caplog.text
        world.down = False
        world.moved.set()

    live(world, lambda: world.country.require(True), up)
    assert world.changes == ["JP", "FR"]


def test_the_start_waits_for_the_answer_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(country, "PATIENCE", 0.01)
    world = World()
    world.country.require(True)
    asyncio.run(world.country.start())
    assert world.own.country == "FR"

    async def silent(address: str) -> str | None:
        await asyncio.Event().wait()
        return address

    quiet = CountryLookup(world.own, "", silent, (), asyncio.Event(), world.changed)
    quiet.require(True)
    asyncio.run(quiet.start())


def test_hosts_are_found_in_a_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    locate = locator(make(tmp_path / "country.mmdb"))
    assert [locate(host) for host in (FRANCE, "a.example.org", "203.0.113.9")] == ["FR", "", ""]
    assert locator(None)(FRANCE) == ""
    assert locator(tmp_path / "missing.mmdb")(FRANCE) == ""
    assert "missing.mmdb: No such file" in caplog.text
