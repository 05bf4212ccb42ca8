"""What the registry tells the network after it saw who is in it: babel's hellos are short where nobody is older."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.sessions import HelloClaims
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.params import BABEL_HELLO, Parameters, decode, version_number
from re6st.core.wire.rpc import target
from re6st.registryd.last_seen import Served
from re6st.registryd.repository import Conflict
from tests.unit.registry_world import DAY, A, B, World

OLD, NEW = frozenset({"babel-switch-time"}), KNOWN
"""What nodes announce."""
STRANGER, OTHER = "198.51.100.66", "203.0.113.7"


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


async def parameters(world: World, prefix: Prefix, names: frozenset[str]) -> Parameters:
    """What a node that announces these names is told."""
    answer = await world.in_session(await world.offer(prefix, names), "getNetworkConfig", prefix)
    return decode(answer.body, partial(cert.decrypt, world.key))


async def told(world: World, hello: float | None) -> int:
    """Wait until the network is told this; the number of its version."""
    async with asyncio.timeout(10):
        while (await world.registry.parameter_service.parameters()).babel_hello != hello:
            await asyncio.sleep(0.01)
    return version_number((await world.registry.parameter_service.parameters()).version)


async def passes(world: World, seconds: float) -> None:
    """Time in which the registry runs, and the review that it makes each minute."""
    world.now += seconds
    await world.registry.seen.flush()
    await world.registry.parameter_service.review()


def test_an_older_node_makes_the_hellos_long_until_none_was_there_for_a_day(world: World) -> None:
    async def test(world: World) -> None:
        seen = asyncio.create_task(world.registry.seen.run(rest=0.0))
        await world.enrol()
        await world.enrol()
        first = await parameters(world, A, NEW)
        assert first.babel_hello == BABEL_HELLO

        await parameters(world, B, OLD)
        second = await told(world, None)
        seen.cancel()
        assert second == version_number(first.version) + 1
        await parameters(world, B, OLD)
        assert (await parameters(world, A, NEW)).babel_hello is None
        await parameters(world, B, NEW)
        await passes(world, DAY - 60)
        assert await told(world, None) == second

    world.run(test)

    async def again(world: World) -> None:
        """The registry remembers."""
        assert (await parameters(world, A, NEW)).babel_hello is None
        await passes(world, 30)
        version = await told(world, None)
        await passes(world, 40)
        assert await told(world, BABEL_HELLO) == version + 1

    world.run(again)


def test_a_member_that_changes_its_mind_changes_the_network_once(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        version = version_number((await parameters(world, A, NEW)).version)
        for _ in range(5):
            for names in (OLD, NEW):
                await parameters(world, A, names)
                await passes(world, 3600)
        assert await told(world, None) == version + 1

    world.run(test)


def test_a_stranger_changes_nothing_by_saying_hello_for_a_node(world: World) -> None:
    """In the moment between the node's hello and its first call, too, however often."""

    async def test(world: World) -> None:
        await world.enrol()
        before = await parameters(world, A, NEW)
        for stranger in (STRANGER, OTHER):
            for wait in (0.0, 11.0):
                world.now += wait
                await world.get(target("hello", {"client_prefix": A.bits, "protocol": "9"}), X_Forwarded_For=OTHER)
                keys = await world.offer(A)
                for protocol in (9, 1, 11):
                    path = target("hello", {"client_prefix": A.bits, "protocol": str(protocol)})
                    assert (await world.get(path, X_Forwarded_For=stranger)).status == 200
                assert (await world.in_session(keys, "getDh", A)).status == 200
                await passes(world, 60)
        after = await parameters(world, A, NEW)
        assert (after.babel_hello, after.version) == (BABEL_HELLO, before.version)

    world.run(test)


def test_the_operator_may_say_that_no_older_node_is_left(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        await world.enrol()
        await parameters(world, B, OLD)
        await passes(world, 60)
        await told(world, None)
        with pytest.raises(Conflict, match=f"older software.*: {B.cn}$"):
            await world.registry.parameter_service.shorten_hellos()
        await world.call("revoke", cn_or_serial=B.cn)
        assert (await parameters(world, A, NEW)).babel_hello is None, "that one is out is no reason for haste"
        assert await world.registry.parameter_service.shorten_hellos()
        assert (await parameters(world, A, NEW)).babel_hello == BABEL_HELLO
        assert not await world.registry.parameter_service.shorten_hellos()

    world.run(test)


def test_nodes_are_told_the_longest_prefix_that_was_given_and_when_a_longer_one_is(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        first = await parameters(world, A, NEW)
        assert first.longest_prefix == 16
        await world.enrol()
        assert version_number((await parameters(world, A, NEW)).version) == version_number(first.version)
        await world.enrol(await world.registry.tokens.new("short@example.org", 12))
        assert (await parameters(world, A, NEW)).version == first.version
        await world.enrol(await world.registry.tokens.new("long@example.org", 24))
        second = await parameters(world, A, NEW)
        assert second.longest_prefix == 24
        assert version_number(second.version) == version_number(first.version) + 1

    world.run(test)


@pytest.mark.parametrize("protocol", [10, 11, 12])
def test_of_a_node_that_announces_nothing_nothing_is_assumed_whatever_its_protocol(world: World, protocol: int) -> None:
    """A later protocol of the deployed software is not ours."""

    async def test(world: World) -> None:
        await world.enrol()
        await world.in_session(await world.hello(A, protocol), "getNetworkConfig", A)
        await passes(world, 60)
        assert (await world.registry.parameter_service.parameters()).babel_hello is None
        assert await world.registry.parameter_service.older_nodes() == [A]

    world.run(test)


def test_what_a_node_announced_counts_until_it_calls_again(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        await parameters(world, A, NEW)
        await passes(world, 60)
        assert await world.store.read(lambda queries: queries.lacking("babel-hello")) == []
        assert await world.store.read(lambda queries: queries.lacking("babel")) == [A], "a part of a name is no name"
        # A registry of before notes the next call, of an older node, without knowing our table of names.
        calls = [(A.bits, int(world.now), 10, "0.6")]
        await world.store.change(
            lambda ledger: ledger._db.executemany("INSERT OR REPLACE INTO re6st_seen VALUES (?, ?, ?, ?)", calls)
        )
        assert await world.store.read(lambda queries: queries.lacking("babel-hello")) == [A]

    world.run(test)


def test_which_parameters_nodes_have_is_remembered_for_so_many_of_them() -> None:
    served = Served(limit=3)
    for number in range(5):
        served.note(Prefix(number, 16), 7)
    served.note(Prefix(3, 16), 8)
    assert len(served) == 3
    assert served.having(7) == {Prefix(2, 16), Prefix(4, 16)}
    served.note(Prefix(5, 16), 8)
    assert served.version(Prefix(2, 16)) is None, "the longest ago"
    assert served.version(Prefix(3, 16)) == 8


def test_calls_of_two_machines_with_one_certificate_are_told_with_their_addresses(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        for address in ("192.0.2.1", "192.0.2.2") * 3:
            world.registry.seen.note(A, HelloClaims(8), "re6stnet/1", address)
            world.now += 10
        text = f"two machines have the certificate of {A}: they connect from 192.0.2.1 and 192.0.2.2 in turn"
        assert caplog.text.count(text) == 1

    world.run(test)
