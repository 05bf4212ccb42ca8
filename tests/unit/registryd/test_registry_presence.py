"""Who is online, and since when, as the registry sees it: over restarts, and for what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from re6st import cert
from re6st.api.admin import Admin
from re6st.api.metrics import RegistryMetrics
from re6st.api.operations import AdminError
from re6st.core.prefix import Prefix
from re6st.registryd.listings import iso
from re6st.registryd.presence import ASK_INTERVAL, ask_interval
from tests.unit.registry_world import START, B, World

C = Prefix(2, 16)


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


async def look(world: World, at: float, routes: list[Prefix] | None) -> None:
    """The registry looks at this time, when its node has these routes; None: there is no node."""
    world.now = START + at

    async def told() -> list[Prefix] | None:
        return routes

    world.registry.node.routes = told  # type: ignore[method-assign]
    await world.registry.presence.look()


async def listed(world: World, **wanted: int) -> dict[str, tuple[bool | None, str | None]]:
    """By CN: whether a node is online, and since when it is online or offline."""
    found = (await Admin(world.registry).call("nodes", wanted))["nodes"]
    for node in found:
        assert not (node["online_since"] and node["offline_since"])
    return {node["cn"]: (node["online"], node["online_since"] or node["offline_since"]) for node in found}


def at(seconds: float) -> str | None:
    return iso(START + seconds)


def test_online_and_offline_are_kept_over_a_restart(world: World) -> None:
    async def before(world: World) -> None:
        for _ in range(3):
            await world.enrol()
        await look(world, 0, [B])
        await look(world, 60, [B, C])
        assert await listed(world) == {"0/16": (True, at(0)), "1/16": (True, at(0)), "2/16": (True, at(60))}
        await look(world, 120, [B])
        assert (await listed(world))["2/16"] == (False, at(60)), "at once"
        await look(world, 180, [B])
        await world.registry.presence.try_flush()

    async def after(world: World) -> None:
        await look(world, 4000, None)
        assert await listed(world) == dict.fromkeys(("0/16", "1/16", "2/16"), (None, None))
        await look(world, 4010, [B])
        assert await listed(world) == {"0/16": (True, at(0)), "1/16": (True, at(0)), "2/16": (False, at(60))}
        await look(world, 4020, [C])
        assert (await listed(world))["1/16"] == (False, at(4010))
        assert list(await listed(world, online=1)) == ["0/16", "2/16"]
        assert list(await listed(world, online=0)) == ["1/16"]

    world.run(before)
    world.run(after)


def test_nobody_is_listed_as_offline_where_nobody_knows(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        await look(world, 0, None)
        with pytest.raises(AdminError, match="nobody knows who is online: no babeld answers"):
            await Admin(world.registry).call("nodes", {"online": 0})

    world.run(test)


def test_a_node_that_was_never_there_has_no_time_but_that_of_its_call(world: World) -> None:
    async def test(world: World) -> None:
        for _ in range(2):
            await world.enrol()
        await look(world, 0, [])
        assert (await listed(world))["1/16"] == (False, None)
        await world.in_session(await world.offer(B), "getDh", B)
        assert (await listed(world))["1/16"] == (False, at(0))

    world.run(test)


def test_a_prefix_that_another_node_gets_has_no_past(world: World) -> None:
    async def test(world: World) -> None:
        for _ in range(2):
            await world.enrol()
        await look(world, 0, [B])
        await world.call("revoke", cn_or_serial="1/16")
        await world.enrol()
        await look(world, 10, [B])
        assert (await listed(world))["1/16"] == (True, at(10))

    world.run(test)


def test_nodes_that_are_gone_are_counted_for_a_day(world: World) -> None:
    async def gone(world: World, seconds: float, routes: list[Prefix]) -> float | None:
        await look(world, seconds, routes)
        text = (await RegistryMetrics(world.registry, per_node=True).render()).decode()
        values: dict[str, Any] = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert float(values["re6st_registry_nodes_online"]) == len(routes) + 1
        return float(values["re6st_registry_nodes_gone"])

    async def test(world: World) -> None:
        for _ in range(3):
            await world.enrol()
        assert await gone(world, 0, [B, C]) == 0
        assert await gone(world, 60, [B]) == 0
        assert await gone(world, 120, [B]) == 0, "ten minutes are not over"
        assert await gone(world, 700, [B]) == 1
        assert await gone(world, 80000, [B]) == 1
        assert await gone(world, 90000, [B]) == 0, "it is no news any more"

    world.run(test)


def test_nodes_of_other_regions_are_asked_rarely_in_large_networks() -> None:
    assert ask_interval(10) == ASK_INTERVAL
    assert ask_interval(100_000) == 5000
