"""Sessions of node and registry that offers began: both ends over real HTTP, and somebody on the way between them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from re6st import cert
from re6st.cli.registry.config import ConfigError
from re6st.cli.registry.main import check_required
from re6st.client.registry_client import RegistryAnswerError, RegistryClient, RegistryKeyError, RegistryRefused
from re6st.core.wire import offers
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.offers import Offer, OfferError
from re6st.core.wire.params import decode
from re6st.core.wire.rpc import OFFER_HEADER, OFFER_MARK, TAG_LENGTH, UNKNOWN_HEADER, SealedRatchet, target
from re6st.keys import pki, sealing
from re6st.registryd import hello
from re6st.registryd.hello import Greeter, OtherKeyError
from tests.unit.registry_world import A, World


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


async def member(world: World) -> cert.Identity:
    return cert.Identity(world.authority.trust, await world.enrol(), world.key)


Change = Callable[[bytes], bytes]


class Between:
    """Somebody on the way, who sees all, may change it, and may answer himself."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.requests: list[bytes] = []
        self.answers: list[bytes] = []
        self.change_request: Change = lambda data: data
        self.change_answer: Change = lambda data: data
        self.replayed: list[bytes] = []
        """Answered in the registry's place, in turn."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            if self.replayed:
                answer = self.replayed.pop(0)
            else:
                answer = await self._ask(self.change_request(request))
                self.answers.append(answer)
                answer = self.change_answer(answer)
            writer.write(answer)
            await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


Scenario = Callable[[World, Between, RegistryClient], Awaitable[None]]


def play(world: World, scenario: Scenario) -> None:
    async def test(world: World) -> None:
        identity = await member(world)
        between = Between(world.port)
        async with between.serving() as url:
            await scenario(world, between, RegistryClient(url, identity))

    world.run(test)


def without_offer(request: bytes) -> bytes:
    lines = [line for line in request.split(b"\r\n") if not line.startswith(OFFER_HEADER.encode())]
    return b"\r\n".join(lines)


def test_answers_are_encrypted_and_both_know_what_the_other_can_do(world: World) -> None:
    async def scenario(world: World, between: Between, client: RegistryClient) -> None:
        blob = await client.get_network_config()
        assert decode(blob, partial(cert.decrypt, world.key)).registry_prefix == A
        assert await client.get_dh() == world.settings.dh
        assert len(between.requests) == 3, "one hello"
        assert not any(blob in answer or world.settings.dh in answer for answer in between.answers)
        await world.registry.seen.flush()
        assert await world.store.read(lambda queries: queries.lacking(min(KNOWN))) == []

    play(world, scenario)


def test_a_recorded_session_is_nothing_to_another_hello(world: World) -> None:
    """Not even for a node without memory: the answer fits one offer only."""

    async def scenario(world: World, between: Between, client: RegistryClient) -> None:
        await client.get_network_config()
        newcomer = RegistryClient(client.url, client.identity)
        between.replayed = list(between.answers)
        with pytest.raises(
            RegistryAnswerError,
            match=r"it is the answer to somebody else\. Does a proxy in between answer from a cache\?",
        ):
            await newcomer.get_network_config()

    play(world, scenario)


def test_a_recorded_hello_gives_no_session_and_costs_the_node_nothing(world: World) -> None:
    async def scenario(world: World, between: Between, client: RegistryClient) -> None:
        await client.get_network_config()
        for _ in range(20):
            await world.raw(between.requests[0])
            assert (await world.raw(between.requests[1])).startswith(b"HTTP/1.1 400")
        assert (await world.raw(between.requests[1])).startswith(b"HTTP/1.1 400")
        await client.get_network_config()
        assert len(between.requests) == 3, "no other hello"

    play(world, scenario)


@pytest.mark.parametrize("place", [5, 60, -30])
def test_a_changed_offer_is_refused_whichever_byte_it_is(world: World, place: int) -> None:
    """Place by place: the key, the names, the signature."""

    def spoiled(data: bytes) -> bytes:
        number = place if place >= 0 else len(data) + place
        return data[:number] + bytes([data[number] ^ 1]) + data[number + 1 :]

    def change(request: bytes) -> bytes:
        head, _, rest = request.partition(f"{OFFER_HEADER}: ".encode())
        value, _, tail = rest.partition(b"\r\n")
        changed = base64.b64encode(spoiled(base64.b64decode(value)))
        return head + f"{OFFER_HEADER}: ".encode() + changed + b"\r\n" + tail

    def change_answer(answer: bytes) -> bytes:
        head, mark, body = answer.partition(OFFER_MARK)
        return head + mark + spoiled(body)

    async def scenario(world: World, between: Between, client: RegistryClient) -> None:
        between.change_request = change
        with pytest.raises(RegistryKeyError):
            await client.get_network_config()
        between.change_request = lambda request: request
        between.change_answer = change_answer
        with pytest.raises(RegistryAnswerError, match=r"not signed by our CA|an offer that is|to somebody else"):
            await client.get_network_config()

    play(world, scenario)


def test_who_takes_the_offer_away_is_noticed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """As a registry of older software would behave: it works, and is said once, or refused where that is required."""

    async def scenario(world: World, between: Between, client: RegistryClient) -> None:
        client.expected = KNOWN
        between.change_request = without_offer
        await client.get_network_config()
        await world.registry.sessions.drop(A)
        await client.get_network_config()
        assert caplog.text.count("no longer has") == 1
        assert "sealed-calls" in caplog.text
        client.required = frozenset({"sealed-calls"})
        await world.registry.sessions.drop(A)
        with pytest.raises(RegistryAnswerError, match="lacks what this network requires: sealed-calls"):
            await client.get_network_config()

    play(world, scenario)


def test_a_node_with_another_key_is_told_so(world: World) -> None:
    async def scenario(world: World, between: Between, client: RegistryClient) -> None:
        assert client.identity is not None
        other = cert.new_key()
        certificate = world.authority.issue(
            client.identity.cert.subject, other.public_key(), 99, pki.begin_of(client.identity.cert)
        )
        stranger = RegistryClient(client.url, cert.Identity(world.authority.trust, certificate, other))
        stranger.present_certificate = _refused  # type: ignore[method-assign]
        with pytest.raises(RegistryKeyError, match=f"another key for {A}"):
            await stranger.get_network_config()

    play(world, scenario)


async def _refused(version: bytes = b"") -> bool:
    return False


def test_only_the_registry_itself_can_tell_a_node_that_it_does_not_know_it(world: World) -> None:
    async def scenario(world: World) -> None:
        await member(world)  # the registry's own node
        identity = await member(world)
        between = Between(world.port)
        async with between.serving() as url:
            client = RegistryClient(url, identity)
            await world.call("revoke", cn_or_serial=identity.prefix.cn)
            with pytest.raises(RegistryRefused, match=r"does not know 1/16: revoked") as error:
                await client.get_dh()
            assert error.value.proven
            recorded = between.answers[0]
            assert recorded.startswith(b"HTTP/1.1 404 ")
            assert f"{UNKNOWN_HEADER}: ".encode() in recorded
            for forged in (recorded, recorded.replace(UNKNOWN_HEADER.encode(), b"Re6stNothing")):
                between.replayed = [forged] * 2
                with pytest.raises(RegistryRefused, match="and nothing proves") as error:
                    await RegistryClient(url, identity).get_dh()
                assert not error.value.proven, "it was said to another hello"

    world.run(scenario)


def test_a_404_of_other_software_is_not_taken_for_proof(world: World) -> None:
    async def scenario(world: World) -> None:
        answer = await world.call("hello", client_prefix=A.bits, protocol="10")
        assert answer.status == 404
        assert UNKNOWN_HEADER.lower() not in answer.headers, "who made no offer can check nothing"

    world.run(scenario)


def test_who_lacks_what_the_network_requires_gets_nothing(world: World) -> None:
    parameters = replace(world.settings.parameters, require=frozenset({"sealed-calls"}))
    world.settings = replace(world.settings, parameters=parameters)

    async def scenario(world: World, between: Between, client: RegistryClient) -> None:
        blob = await client.get_network_config()
        assert decode(blob, partial(cert.decrypt, world.key)).require == {"sealed-calls"}
        path = target("hello", {"client_prefix": A.bits, "protocol": "10"})
        assert (await world.get(path)).status == 426

    play(world, scenario)


def test_nothing_is_required_that_a_node_did_not_announce(world: World) -> None:
    required = replace(world.settings.parameters, require=frozenset({"sealed-calls"}))

    async def test(world: World) -> None:
        await member(world)
        for _ in range(2):  # a node that never called, then one that called with other names
            with pytest.raises(ConfigError, match=r"--require sealed-calls: 1 node\(s\) .* would have to stop: 0/16\."):
                await check_required(required, world.store, world.now)
            await world.in_session(await world.offer(A, ["rekey"]), "getDh", A)
            await world.registry.seen.flush()
        world.now += 1
        await world.in_session(await world.offer(A), "getDh", A)
        await world.registry.seen.flush()
        await check_required(required, world.store, world.now)
        await member(world)
        with pytest.raises(ConfigError, match="1/16"):
            await check_required(required, world.store, world.now)
        await world.store.change(lambda ledger: ledger.set_config("last_config", required.text()))
        await check_required(required, world.store, world.now)  # it is in force: newcomers do not keep a registry down

    world.run(test)


def test_junk_in_the_place_of_an_offer_is_refused(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        path = target("hello", {"client_prefix": A.bits, "protocol": "10"})
        for junk in ("x", "AAAA", base64.b64encode(bytes(4000)).decode(), base64.b64encode(bytes(100)).decode()):
            assert (await world.get(path, **{OFFER_HEADER: junk})).status in (400, 409)
        names = Offer(bytes(32), "UPPER", b"s")
        header = base64.b64encode(offers.encode(names)).decode()
        assert (await world.get(path, **{OFFER_HEADER: header})).status == 400

    world.run(test)


def test_the_registry_forgets_what_the_sessions_of_a_minute_were_made_of(
    authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> None:
    now = 0.0
    greeter = Greeter(authority, lambda: now)
    first = greeter._offer(b"ca")
    now = hello.OFFER_LIFE - 1
    greeter.forget()
    assert greeter._offer(b"ca") is first
    now += 1
    greeter.forget()
    assert greeter._ours is None
    assert greeter._offer(b"ca")[1].public != first[1].public


def test_a_node_proves_its_key_before_the_registry_computes_anything(
    authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> None:
    greeter = Greeter(authority, lambda: 0.0)
    with pytest.raises(OtherKeyError):
        greeter.sealed(A, nodes["1/16"].cert, Offer(bytes(32), "", bytes(256)))
    assert greeter._ours is None
    with pytest.raises(OfferError):
        sealing.SessionKey().shared(bytes(32))


def test_each_message_has_a_key_of_its_own() -> None:
    one, other = (SealedRatchet(bytes(32), sealing.CIPHER) for _ in range(2))
    sealed = set()
    for _ in range(3):
        header = one.sign(b"/getDh?cn=1")
        assert not other.check(b"/getDh?cn=0", header)
        assert not other.check(b"/getDh?cn=1", "junk")
        assert other.check(b"/getDh?cn=1", header)
        assert not other.check(b"/getDh?cn=1", header)
        body, proof = other.seal(b"the answer")
        assert len(body) == len(b"the answer")
        assert one.open(body, base64.b64encode(bytes(TAG_LENGTH)).decode()) is None
        assert one.open(body[:-1] + b"x", proof) is None
        assert one.open(body, proof) == b"the answer"
        sealed |= {header, body, proof}
    assert len(sealed) == 9
