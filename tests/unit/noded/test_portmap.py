"""UPnP with a router that is played: only the library is replaced, the keeping of mappings is real."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded import upnp


class Router:
    """As miniupnpc.UPnP is used; `taken` ports are refused."""

    lanaddr = "192.168.0.5"
    discoverdelay = 0

    def __init__(self) -> None:
        self.present = True
        self.external = "198.51.100.7"
        self.taken: Callable[[int], bool] = lambda port: False
        self.permanent = False
        self.asked: list[str] = []
        self.deleted: list[int] = []
        self.slow = 0.0
        self.mappings: dict[tuple[int, str], tuple[str, int, str]] = {}

    def discover(self) -> int:
        return int(self.present)

    def selectigd(self) -> None:
        if not self.present:
            raise Exception("No UPnP device discovered")

    def externalipaddress(self) -> str:
        return self.external

    def addportmapping(self, *values: Any) -> bool:
        outside, kind, address, port, name, _, lease = values
        self.asked.append("add")
        time.sleep(self.slow)
        if self.permanent and lease:
            raise Exception("OnlyPermanentLeasesSupported")
        if self.taken(outside):
            raise Exception("ConflictInMappingEntry")
        self.mappings[outside, kind] = address, port, name
        return True

    def getspecificportmapping(self, outside: int, kind: str) -> tuple[str, int, str, bool, int] | None:
        found = self.mappings.get((outside, kind))
        return (*found, True, 900) if found else None

    def deleteportmapping(self, outside: int, kind: str) -> bool:
        self.deleted.append(outside)
        if not self.present:
            raise Exception("Miniupnpc HTTP error")
        if (outside, kind) not in self.mappings:
            raise Exception("NoSuchEntryInArray")
        del self.mappings[outside, kind]
        return True


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Router:
    played = Router()
    monkeypatch.setattr("miniupnpc.UPnP", lambda: played)
    return played


SOON = upnp.Intervals(renew=0.02, check=0.02, retry=0.02)


def play(
    steps: Callable[[list[tuple[Endpoint, ...]]], Any],
    intervals: upnp.Intervals = SOON,
    links: Callable[[upnp.PortMapper], object] = lambda mapper: None,
) -> list[tuple[Endpoint, ...]]:
    """Run a mapper while `steps` (a generator of conditions to wait for) goes on; returns what it told. `links` gets
    the mapper first.
    """
    told: list[tuple[Endpoint, ...]] = []

    async def run() -> None:
        mapper = upnp.PortMapper(
            [(1194, TunnelProtocol.TCP), (1195, TunnelProtocol.UDP)], told.append, intervals=intervals
        )
        links(mapper)
        task = asyncio.create_task(mapper.run())
        deadline = time.monotonic() + 10
        for condition in steps(told):
            while not condition():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    return told


def test_made_and_removed(router: Router) -> None:
    seen: dict[tuple[int, str], tuple[str, int, str]] = {}

    def steps(told: list[tuple[Endpoint, ...]]) -> Any:
        yield lambda: bool(told)
        seen.update(router.mappings)

    told = play(steps)
    assert [(e.host, e.protocol) for e in told[0]] == [("198.51.100.7", "tcp"), ("198.51.100.7", "udp")]
    assert {(e.port, e.protocol.upper()) for e in told[0]} == set(seen)
    assert sorted(seen.values()) == [
        ("192.168.0.5", 1194, "re6stnet openvpn server (1194/tcp)"),
        ("192.168.0.5", 1195, "re6stnet openvpn server (1195/udp)"),
    ]
    assert all(32768 <= e.port <= 49151 for e in told[0])
    assert not router.mappings


def test_all_are_removed_though_the_router_forgot_one(router: Router) -> None:
    mappers: list[upnp.PortMapper] = []

    def steps(told: list[tuple[Endpoint, ...]]) -> Any:
        yield lambda: bool(told)
        mappers[0].open_for_links(frozenset({21194, 21195}))
        yield lambda: len(router.mappings) == 4
        for gone in [each for each in router.mappings if each[1] == "TCP"] + [(21194, "UDP")]:
            del router.mappings[gone]

    play(steps, upnp.Intervals(renew=1000, check=1000, retry=1000), mappers.append)
    assert not router.mappings


def test_a_router_that_is_gone_is_asked_to_remove_no_more_than_one(router: Router) -> None:
    """Each further question would cost seconds."""

    def steps(told: list[tuple[Endpoint, ...]]) -> Any:
        yield lambda: bool(told)
        router.present = False

    play(steps, upnp.Intervals(renew=1000, check=1000, retry=1000))
    assert len(router.deleted) == 1


def test_made_again_when_the_router_forgot_or_moved(router: Router) -> None:
    def steps(told: list[tuple[Endpoint, ...]]) -> Any:
        yield lambda: bool(told)
        router.mappings.clear()
        yield lambda: len(router.mappings) == 2
        router.external = "203.0.113.9"
        yield lambda: len(told) == 2

    told = play(steps)
    assert [e.port for e in told[0]] == [e.port for e in told[1]]
    assert {e.host for e in told[1]} == {"203.0.113.9"}


def test_another_port_when_one_is_taken(router: Router) -> None:
    tries: list[int] = []
    router.taken = lambda port: tries.append(port) or len(tries) < 5  # type: ignore[func-returns-value]
    told = play(lambda told: iter([lambda: bool(told)]))
    assert len(told[0]) == 2


def test_no_router_or_one_that_refuses_is_no_trouble(router: Router) -> None:
    router.present = False

    def steps(told: list[tuple[Endpoint, ...]]) -> Any:
        router.taken = lambda port: True
        router.present = True
        yield lambda: not told
        router.taken = lambda port: False
        yield lambda: len(told) == 1
        router.external = "not an address"
        yield lambda: len(told) == 2
        router.present, router.taken = False, lambda port: True
        yield lambda: len(told) == 3

    told = play(steps)
    assert told[0]
    assert [e.host for e in told[1]] == ["", ""], "the ports are open; peers will tell the address"
    assert told[2] == ()


def test_mappings_that_are_there_are_only_looked_at(router: Router) -> None:
    def steps(told: list[tuple[Endpoint, ...]]) -> Any:
        yield lambda: bool(told)
        router.mappings.popitem()
        yield lambda: len(router.mappings) == 2

    told = play(steps, upnp.Intervals(renew=1000, check=0.02, retry=0.02))
    assert len(told) == 1
    assert len(router.asked) == 3, "two at first, and the one that was lost"


def test_a_router_that_knows_no_leases(router: Router) -> None:
    router.permanent = True
    assert len(play(lambda told: iter([lambda: bool(told)]))[0]) == 2


def test_what_was_just_being_mapped_at_the_end_is_removed_too(router: Router) -> None:
    router.slow = 0.2
    assert play(lambda told: iter([lambda: "add" in router.asked])) == []
    assert not router.mappings


@pytest.mark.parametrize("external", ["", "0.0.0.0"])
def test_a_router_without_a_public_address_that_maps_nothing_may_be_behind_another(
    router: Router, external: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    router.taken, router.external = (lambda port: True), external
    play(lambda told: iter([lambda: "a second NAT" in caplog.text]))
    assert "the router maps no port to 1194/tcp: ConflictInMappingEntry; it tells no public address" in caplog.text
    caplog.clear()
    router.external = "192.168.1.2"
    play(lambda told: iter([lambda: "a second NAT" in caplog.text]))
    assert "its own address, 192.168.1.2, is not public: it is behind another router" in caplog.text
    caplog.clear()
    router.external = "44.128.0.9"
    play(lambda told: iter([lambda: "maps no port" in caplog.text]))
    assert "NAT" not in caplog.text


def test_no_router_is_told_once(router: Router, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    router.present = False
    asked: list[int] = []
    router.discover = lambda: asked.append(0) or 0  # type: ignore[method-assign,func-returns-value]
    play(lambda told: iter([lambda: len(asked) > 5]))
    assert caplog.text.count("no router found") == 1


def test_the_port_of_a_link_is_open_under_its_own_number_for_as_long_as_there_is_the_link(router: Router) -> None:
    mappers: list[upnp.PortMapper] = []

    def of_links() -> dict[int, tuple[str, int, str]]:
        return {port: value for (port, kind), value in router.mappings.items() if "WireGuard" in value[2]}

    def steps(told: list[tuple[Endpoint, ...]]) -> Any:
        yield lambda: bool(told)
        mappers[0].open_for_links(frozenset({21194, 21195}))
        yield (
            lambda: (
                of_links()
                == {port: ("192.168.0.5", port, f"re6stnet WireGuard link ({port}/udp)") for port in (21194, 21195)}
            )
        )
        del router.mappings[21194, "UDP"]
        mappers[0].open_for_links(frozenset({21194, 21196}))
        yield lambda: set(of_links()) == {21194, 21196}

    told = play(steps, upnp.Intervals(renew=1000, check=1000, retry=1000), mappers.append)
    assert len(told) == 1, "where peers find our servers is the same"
    assert not router.mappings


def test_a_port_of_a_link_that_somebody_else_has_at_the_router_is_said_once_and_costs_our_servers_nothing(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tries: list[int] = []
    router.taken = lambda port: port == 21194 and not tries.append(port)  # type: ignore[func-returns-value]

    def steps(told: list[tuple[Endpoint, ...]]) -> Any:
        yield lambda: len(tries) > 3
        router.taken = lambda port: False
        yield lambda: (21194, "UDP") in router.mappings

    told = play(steps, links=lambda mapper: mapper.open_for_links(frozenset({21194})))
    assert len(told) == 1
    assert caplog.text.count("does not map UDP port 21194") == 1
