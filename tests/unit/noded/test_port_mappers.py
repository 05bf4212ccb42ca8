"""UPnP at the router of each line, with routers that are played."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest

from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded import upnp
from re6st.noded.port_mappers import PortMappers
from tests.unit.fake_program import until
from tests.unit.noded.test_portmap import Router

PORTS = [(1194, TunnelProtocol.TCP)]
A, B, C = (IPv4Address(f"192.168.{number}.5") for number in (1, 2, 3))


class Machine:
    """On the network of each address is a router; where none is named, that of the default route."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.routers: dict[str, Router] = {}
        for number, at in enumerate(("", str(A), str(B), str(C)), 1):
            router = self.routers[at] = Router()
            router.external, router.lanaddr = f"198.51.100.{number}", at or "192.168.0.5"
        self.told: dict[str, tuple[Endpoint, ...]] = {}
        monkeypatch.setattr("miniupnpc.UPnP", lambda multicastif="": self.routers[multicastif])
        monkeypatch.setattr(upnp, "TRY_TIME", 0.1)

    def hosts(self) -> dict[str, list[str]]:
        return {line: [each.host for each in found] for line, found in self.told.items()}

    def mapped(self, at: object) -> int:
        return len(self.routers[str(at)].mappings)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[PortMappers]:
        mappers = PortMappers(PORTS, self.told.__setitem__)
        task = asyncio.create_task(mappers.run())
        try:
            yield mappers
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_with_one_line_the_router_that_answers_is_asked(machine: Machine) -> None:
    async def run() -> None:
        async with machine.running():
            await until(lambda: machine.hosts() == {"": ["198.51.100.1"]})
        assert machine.mapped("") == 0, "it is closed at the end"

    asyncio.run(run())


def test_each_line_has_its_own_and_they_come_and_go(machine: Machine) -> None:
    async def run() -> None:
        async with machine.running() as mappers:
            await until(lambda: machine.told)
            mappers.follow({"fibre": A, "dsl": B})
            await until(lambda: machine.hosts() == {"": [], "fibre": ["198.51.100.2"], "dsl": ["198.51.100.3"]})
            await until(lambda: machine.mapped("") == 0)
            mappers.follow({"dsl": B})
            await until(lambda: machine.hosts()["fibre"] == [])
            await until(lambda: machine.mapped(A) == 0)
            assert machine.hosts()["dsl"] == ["198.51.100.3"]
            mappers.follow({})
            await until(lambda: machine.hosts() == {"": ["198.51.100.1"], "fibre": [], "dsl": []})
        assert not any(machine.mapped(at) for at in machine.routers)

    asyncio.run(run())


def test_a_line_with_another_address_asks_there_and_keeps_its_ports(machine: Machine) -> None:
    async def run() -> None:
        async with machine.running() as mappers:
            mappers.follow({"fibre": A, "dsl": B})
            await until(lambda: len(machine.hosts().get("dsl", ())) == 1)
            (before,) = machine.told["dsl"]
            mappers.follow({"fibre": A, "dsl": C})
            await until(lambda: machine.hosts()["dsl"] == ["198.51.100.4"])
            assert machine.told["dsl"][0].port == before.port

    asyncio.run(run())


def test_ports_of_links_are_opened_at_all_of_them_also_at_those_that_come(machine: Machine) -> None:
    async def run() -> None:
        async with machine.running() as mappers:
            mappers.follow({"fibre": A})
            await until(lambda: machine.hosts().get("fibre"))
            mappers.open_for_links(frozenset({21194}))
            await until(lambda: (21194, "UDP") in machine.routers[str(A)].mappings)
            mappers.follow({"fibre": A, "dsl": B})
            await until(lambda: (21194, "UDP") in machine.routers[str(B)].mappings)

    asyncio.run(run())
