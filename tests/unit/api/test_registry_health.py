"""What a balancer asks: whether a registry is there, and whether it can answer calls."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from re6st import cert
from re6st.api import health
from tests.postgresql_cluster import Cluster, in_postgresql
from tests.unit.registry_world import World
from tests.unit.repositories import AwayRepository


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


def test_it_is_ready_while_its_database_can_be_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REMEMBERED", 0.0)
    repository: list[AwayRepository] = []

    def wrap(store: AwayRepository) -> AwayRepository:
        repository.append(AwayRepository(store))
        return repository[0]

    world.wrap = wrap  # type: ignore[assignment]

    async def test(world: World) -> None:
        for path in ("/healthz", "/readyz"):
            assert (await world.get(path)).status == 200
        repository[0].away = "it restarts"
        assert (await world.get("/healthz")).status == 200
        answer = await world.get("/readyz")
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        assert b"restarts" not in answer.body, "nobody else needs to know"
        repository[0].away = ""
        assert (await world.get("/readyz")).status == 200

    world.run(test)


def test_many_who_ask_cost_one_query(world: World) -> None:
    async def test(world: World) -> None:
        asked = []
        read = world.store.read

        async def counted(query: object) -> object:
            asked.append(query)
            return await read(query)

        world.store.read = counted
        for _ in range(20):
            assert (await world.get("/readyz")).status == 200
        assert len(asked) < 20
        world.store.read = read

    world.run(test)


@pytest.fixture
def own_cluster() -> Cluster:
    return Cluster()


def test_without_postgresql_calls_are_put_off_and_all_goes_on_afterwards(
    world: World, own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REMEMBERED", 0.0)
    world.opener = in_postgresql(own_cluster.database())

    async def ask() -> list[int]:
        request = await world.call("requestCertificate", token="", req=world.request(), location="", ip="")
        session = await world.call("hello", client_prefix="0" * 16, protocol="10")
        ready = await world.get("/readyz")
        answers = [request, session, ready]
        assert all(answer.headers.get("retry-after") == "2" for answer in answers if answer.status == 503)
        return [answer.status for answer in answers]

    async def test(world: World) -> None:
        await world.enrol()
        own_cluster.stop()
        assert await ask() == [503, 503, 503]
        for path in ("/healthz", "/getCa", "/"):
            assert (await world.get(path)).status == 200, path
        own_cluster.start()
        for _ in range(200):
            if (await world.get("/readyz")).status == 200:
                break
            await asyncio.sleep(0.05)
        assert (await world.enrol()).serial_number >= 2
        assert (await world.parameters()).version

    try:
        world.run(test)
    finally:
        own_cluster.remove()
