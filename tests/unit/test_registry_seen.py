"""What the registry tells the network after it saw who is in it: babel's hellos are short where nobody is older."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from re6st import cert, registry_seen
from re6st.core.params import BABEL_HELLO, SHORT_HELLO_PROTOCOL, Parameters, decode, version_number
from re6st.core.prefix import Prefix
from tests.unit.registry_world import A, B, World

OLD, NEW = SHORT_HELLO_PROTOCOL - 1, SHORT_HELLO_PROTOCOL


@pytest.fixture
def world(
    tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity], monkeypatch: pytest.MonkeyPatch
) -> World:
    monkeypatch.setattr(registry_seen, "NEWS_INTERVAL", 0.0)
    return World(tmp_path, authority, nodes["1/16"])


async def parameters(world: World, prefix: Prefix, protocol: int) -> Parameters:
    """What a node of this protocol is told."""
    answer = await world.in_session(await world.hello(prefix, protocol), "getNetworkConfig", prefix)
    return decode(answer.body, partial(cert.decrypt, world.key))


async def told(world: World, hello: float | None) -> int:
    """Wait until the network is told this; the number of its version."""
    async with asyncio.timeout(10):
        while world.registry.upkeep.parameters.babel_hello != hello:
            await asyncio.sleep(0.01)
    return version_number(world.registry.upkeep.parameters.version)


def test_an_older_node_makes_the_hellos_long_until_it_is_gone_or_newer(world: World) -> None:
    async def test(world: World) -> None:
        seen = asyncio.create_task(world.registry.seen.run())
        await world.enrol()
        await world.enrol()
        first = await parameters(world, A, NEW)
        assert first.babel_hello == BABEL_HELLO

        await parameters(world, B, OLD)
        second = await told(world, None)
        assert second == version_number(first.version) + 1
        await parameters(world, B, OLD)
        assert (await parameters(world, A, NEW)).babel_hello is None
        await parameters(world, B, NEW)
        third = await told(world, BABEL_HELLO)
        assert third == second + 1

        await parameters(world, B, OLD)
        await told(world, None)
        seen.cancel()

    world.run(test)

    async def again(world: World) -> None:
        """The registry remembers, and a node that is out counts no more."""
        assert (await parameters(world, A, NEW)).babel_hello is None
        revoked = await world.call("revoke", cn_or_serial=B.cn)
        assert revoked.status in (200, 204)
        await told(world, BABEL_HELLO)

    world.run(again)
