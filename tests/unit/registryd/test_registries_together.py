"""Several registries on one state in PostgreSQL: what one does, the others know, and nothing is given twice."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from re6st import cert
from re6st.core.registry.sessions import ClientSessions, HelloClaims, PendingSession, Session
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.params import version_number
from re6st.core.wire.rpc import HEADER, CallKeys, Ratchet, SealedRatchet, target
from re6st.keys import sealing
from re6st.registryd.call_sessions import from_json, to_json
from re6st.registryd.events import EventKind
from re6st.registryd.repository import RepositoryError
from tests.postgresql_cluster import Cluster, in_postgresql
from tests.unit.registry_world import A, B, World

LIMIT = 10.0
"""Seconds that a busy machine gets for that."""


@pytest.fixture
def worlds(tmp_path: Path, cluster: Cluster, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> list[World]:
    url, made = cluster.database(), []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name, authority, nodes["1/16"])
        world.opener = in_postgresql(url)
        made.append(world)
    made[1].led_by_another = True
    return made


@asynccontextmanager
async def serving(worlds: list[World]) -> AsyncIterator[None]:
    first, second = worlds
    async with asyncio.timeout(120), first.serve(), second.serve():
        yield


def together(test: Callable[[World, World], Awaitable[None]], worlds: list[World]) -> None:
    async def main() -> None:
        async with serving(worlds):
            await test(*worlds)

    asyncio.run(main())


async def until(condition: Callable[[], Awaitable[bool]]) -> float:
    """How many seconds passed until it was so."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while not await condition():
        assert loop.time() < begin + LIMIT, "it did not happen"
        await asyncio.sleep(0.02)
    return loop.time() - begin


@pytest.mark.parametrize("older", [True, False], ids=["older node", "our node"])
def test_a_node_says_hello_at_one_and_calls_others(worlds: list[World], older: bool) -> None:
    async def test(first: World, second: World) -> None:
        await first.enrol()
        keys: CallKeys = await first.hello(A) if older else await first.offer(A)
        for world in (second, first, second, second, first):
            answer = await world.in_session(keys, "getNetworkConfig", A)
            assert answer.status == 200, answer
        refused = await second.in_session(keys, "getCountry", A, address="192.0.2.1")
        assert refused.status == 400, "no geolocation"
        assert (await first.in_session(keys, "getNetworkConfig", A)).status == 200, "as with one registry"

    together(test, worlds)


def test_a_call_that_was_overheard_cannot_be_repeated_anywhere(worlds: list[World]) -> None:
    async def test(first: World, second: World) -> None:
        await first.enrol()
        keys = await first.hello(A)
        path = target("getNetworkConfig", {"cn": A.bits})
        header = keys.sign(path.encode())
        assert (await second.get(path, **{HEADER: header})).status == 200
        for world in (first, second):
            assert (await world.get(path, **{HEADER: header})).status == 400

    together(test, worlds)


def test_a_hello_of_a_stranger_elsewhere_ends_no_session(worlds: list[World]) -> None:
    async def test(first: World, second: World) -> None:
        await first.enrol()
        keys = await first.hello(A)
        for _ in range(3):
            await second.hello(A, protocol=9)
        assert (await second.in_session(keys, "getNetworkConfig", A)).status == 200

    together(test, worlds)


def test_who_is_revoked_at_one_is_out_at_all(worlds: list[World]) -> None:
    async def test(first: World, second: World) -> None:
        for _ in range(2):
            await first.enrol()
        keys = await second.hello(B)
        assert (await first.in_session(keys, "getNetworkConfig", B)).status == 200
        before = version_number((await second.parameters(A)).version)
        assert (await first.call("revoke", cn_or_serial=B.cn)).status == 204
        assert (await second.in_session(keys, "getNetworkConfig", B)).status == 401

        async def known() -> bool:
            parameters = await second.parameters(A)
            return 2 in parameters.crl and version_number(parameters.version) > before

        assert await until(known) < LIMIT

    together(test, worlds)


def test_a_revocation_is_served_at_once_though_sessions_cannot_be_written(
    worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(first: World, second: World) -> None:
        for _ in range(2):
            await first.enrol()
        keys = await second.hello(B)
        assert (await first.in_session(keys, "getNetworkConfig", B)).status == 200

        async def away(*args: object) -> None:
            raise RepositoryError("the database restarts")

        with monkeypatch.context() as patch:
            patch.setattr(first.store, "change_sessions", away)
            assert (await first.call("revoke", cn_or_serial=B.cn)).status == 204
        assert 2 in (await first.parameters(A)).crl
        assert (await second.in_session(keys, "getNetworkConfig", B)).status == 401

    together(test, worlds)


def test_all_give_the_same_parameters_after_a_change_of_key(worlds: list[World]) -> None:
    async def test(first: World, second: World) -> None:
        await first.enrol()
        for world in (second, first, second):
            await world.call("updateHMAC")
            expected = (await world.parameters(A)).version

            async def same(expected: bytes = expected) -> bool:
                found = [await each.parameters(A) for each in (first, second)]
                return {each.version for each in found} == {expected} and found[0] == found[1]

            await until(same)

    together(test, worlds)


def test_events_of_all_are_seen_at_all(worlds: list[World]) -> None:
    async def test(first: World, second: World) -> None:
        async def write() -> None:
            for world in (first, second):
                await world.registry.event_log.try_flush()

        for number in range(3):
            for name, world in (("first", first), ("second", second)):
                world.registry.events.note(EventKind.MAIL, f"{name} {number}")
        second.registry.events.note(EventKind.MAIL, "second 2")
        await write()

        async def seen() -> bool:
            found = [
                {(event.text, event.count) for event in world.registry.events.newest(99, EventKind.MAIL)}
                for world in (first, second)
            ]
            texts = {f"{name} {number}" for name in ("first", "second") for number in range(3)}
            return all({text for text, _ in each} == texts for each in found) and ("second 2", 2) in found[0]

        await until(seen)
        numbers = [[event.number for event in world.registry.events.newest(99)] for world in (first, second)]
        assert numbers[0] == numbers[1]
        assert len(set(numbers[0])) == len(numbers[0])

    together(test, worlds)


def test_a_token_is_spent_once_and_no_prefix_given_twice_whoever_is_asked(worlds: list[World]) -> None:
    async def test(first: World, second: World) -> None:
        await first.enrol()
        for number in range(4):
            await (first, second)[number % 2].call("addToken", email="a@b.c", token=f"sesame{number}")
        answers = await asyncio.gather(
            *(
                world.call("requestCertificate", token=f"sesame{number}", req=world.request(), location="", ip="")
                for number in range(4)
                for world in (first, second, first)
            )
        )
        spent = [cert.load_pem(answer.body) for answer in answers if answer.status == 200]
        assert len(spent) == 4
        anonymous = await asyncio.gather(*(world.enrol() for world in (first, second) * 5))
        everybody = [*spent, *anonymous]
        assert len({each.serial_number for each in everybody}) == len(everybody)
        assert len({cert.prefix_of_cert(each) for each in everybody}) == len(everybody)

    together(test, worlds)


def test_the_latest_call_of_a_node_counts_wherever_it_was(worlds: list[World]) -> None:
    async def test(first: World, second: World) -> None:
        await first.enrol()
        first.registry.seen.note(A, HelloClaims(10), "re6stnet/1.0, Linux")
        second.now += 30
        second.registry.seen.note(A, HelloClaims(10, KNOWN), "re6stnet/2.0, Linux")
        for world in (second, first):
            await world.registry.seen.flush()
        node = await first.store.browse(lambda lists: lists.node(A))
        assert (node.seen, node.software) == (int(second.now), "2.0, Linux")
        assert set(node.extensions) == KNOWN

    together(test, worlds)


def test_one_leads_and_another_one_takes_over(worlds: list[World]) -> None:
    async def main() -> None:
        first, second = worlds
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            leading = await stack.enter_async_context(AsyncExitStack())
            await leading.enter_async_context(first.serve())
            await stack.enter_async_context(second.serve())
            assert (first.store.leads, second.store.leads) == (True, False)
            await leading.aclose()

            async def leads() -> bool:
                return bool(second.store.leads)

            await until(leads)

    asyncio.run(main())


def test_sessions_are_not_to_be_read_in_the_database(worlds: list[World], cluster: Cluster) -> None:
    async def test(first: World, second: World) -> None:
        await first.enrol()
        keys = await first.hello(A)
        secret = keys.secret
        ((stored,),) = await first.store.browse(lambda lists: lists._db.execute("SELECT state FROM session").fetchall())
        assert secret not in stored
        assert base64.b64encode(secret) not in stored
        assert A.bits.encode() not in stored
        await first.store.change(lambda changes: changes._execute("UPDATE session SET state = %s", stored[::-1]))
        assert (await second.in_session(keys, "getNetworkConfig", A)).status == 401, "no registry made that"
        assert (await second.in_session(await second.hello(A), "getNetworkConfig", A)).status == 200

    together(test, worlds)


def test_sessions_come_back_as_they_were_stored() -> None:
    claims = HelloClaims(7, frozenset({"a", "b"}), b"\0offer")
    for keys in (Ratchet(b"s" * 20), SealedRatchet(b"s" * 32, sealing.CIPHER)):
        pending = PendingSession(Session(keys, claims), "192.0.2.0/24", b"\xffanswer", 12.5)
        found = from_json(to_json(ClientSessions(Session(keys, claims), (pending,))))
        assert found.confirmed is not None
        assert type(found.confirmed.keys) is type(keys)
        assert found.confirmed.keys.secret == keys.secret
        assert found.confirmed.claims == claims
        (only,) = found.pending
        assert (only.source, only.answer, only.since) == ("192.0.2.0/24", b"\xffanswer", 12.5)
    assert from_json(to_json(ClientSessions())) == ClientSessions()
