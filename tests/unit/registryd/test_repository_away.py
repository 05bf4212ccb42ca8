"""A registry whose repository cannot be used for a while: it refuses, says why, and forgets nothing meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from re6st import cert
from re6st.api.admin import Admin
from re6st.api.operations import AdminError
from re6st.core.prefix import Prefix
from re6st.core.registry.sessions import HelloClaims
from re6st.core.wire.rpc import METHODS
from re6st.registry import Registry
from re6st.registryd.call import Call, RpcError
from re6st.registryd.events import EventKind
from re6st.registryd.local_node import LocalNode
from re6st.registryd.repository import RepositoryError
from re6st.service.json_lines import Status
from tests.postgresql_cluster import Opener
from tests.unit.registry_world import World
from tests.unit.repositories import AwayRepository

A = Prefix(0, 16)
WHY = "the database is on a machine that restarts"

FROM_MEMORY = {"getCa", "getDh", "versions", "topology"}
"""What is answered all the same."""
REFUSED_BEFORE = {"requestToken", "getCountry", "presentCertificate"}
"""What this registry does not offer, and what proves nothing."""


@pytest.fixture
def world(tmp_path: Path, opener: Opener | None, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    made = World(tmp_path, authority, nodes["1/16"])
    made.opener = opener
    return made


@asynccontextmanager
async def registry_of(world: World, repository: AwayRepository) -> AsyncIterator[Registry]:
    """Another registry on the repository of the first one, which has a node."""
    await world.enrol()
    node = LocalNode(world.authority.trust.network, world.control, world.node)
    registry = await Registry.open(world.resources(repository), node)
    await registry.parameter_service.start()
    try:
        yield registry
    finally:
        node.close()


def arguments(world: World, method: str) -> Mapping[str, str]:
    """Good ones, as far as the method has them."""
    known = {"client_prefix": A.bits, "cn": A.bits, "req": world.request(), "token": "x", "email": "a@example.org"}
    return {name: known.get(name, "1") for name, required in METHODS[method].parameters.items() if required}


def test_every_call_is_refused_for_now_or_answered_from_memory(world: World) -> None:
    async def test(world: World) -> None:
        repository = AwayRepository(world.store)
        async with registry_of(world, repository) as registry:
            repository.away = WHY
            found: dict[str, set[str]] = {"answered": set(), "refused": set(), "away": set()}
            for method in METHODS:
                try:
                    await registry.call(Call(method, arguments(world, method), None, A))
                    found["answered"].add(method)
                except RpcError:
                    found["refused"].add(method)
                except RepositoryError:
                    found["away"].add(method)
            assert (found["answered"], found["refused"]) == (FROM_MEMORY, REFUSED_BEFORE)
            repository.away = ""
            assert await registry.call(Call("getNetworkConfig", {"cn": A.bits}, None, A))

    world.run(test)


def test_the_operator_is_told_why_in_one_line(world: World) -> None:
    async def test(world: World) -> None:
        repository = AwayRepository(world.store)
        async with registry_of(world, repository) as registry:
            admin = Admin(registry)
            repository.away = WHY
            for operation, given in (
                *(("nodes", {}), ("node", {"target": "0/16"}), ("tokens", {}), ("revoked", {}), ("params", {})),
                *(("invite", {}), ("delete-token", {"token": "x"}), ("revoke", {"target": "0/16"}), ("rotate", {})),
                *(("own-node", {}), ("hellos", {})),
            ):
                with pytest.raises(AdminError) as raised:
                    await admin.call(operation, given)
                assert (raised.value.status, str(raised.value)) == (Status.FAILED, WHY), operation

    world.run(test)


def test_calls_of_nodes_and_events_wait_until_they_can_be_written(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(world: World) -> None:
        repository = AwayRepository(world.store)
        async with registry_of(world, repository) as registry:
            repository.away = WHY
            registry.seen.note(A, HelloClaims(10), "re6stnet/1.0, Linux")
            registry.events.note(EventKind.MAIL, "sent")
            await registry.seen.try_flush()
            await registry.event_log.try_flush()
            assert [record.message for record in caplog.records if WHY in record.message] == [
                f"cannot write when nodes called last: {WHY}",
                f"cannot write events: {WHY}",
            ]
            repository.away = ""
            await registry.seen.try_flush()
            await registry.event_log.try_flush()
            node = await repository.browse(lambda lists: lists.node(A))
            assert node is not None
            assert (node.seen, node.software) == (int(world.now), "1.0, Linux")
            assert "sent" in {event.text for event in await repository.read(lambda queries: queries.events(9))}

    world.run(test)
