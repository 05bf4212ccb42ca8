"""Sessions, bad requests and who may call what, over real HTTP (wire.md 3.1 to 3.3)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from re6st import cert
from re6st.api import http
from re6st.api.http import HttpBounds
from re6st.core.prefix import Prefix
from re6st.core.wire.rpc import HEADER, METHODS, Ratchet, target
from re6st.registryd.call import Call
from tests.unit.registry_world import START, A, B, World, parse


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


# --- sessions ---


def test_a_session_carries_many_calls(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        ratchet = await world.hello(A)
        for _ in range(3):
            assert (await world.in_session(ratchet, "getDh", A)).body == world.settings.dh
            assert (await world.in_session(ratchet, "getBootstrapPeer", A)).status == 204

    world.run(test)


def test_wrong_and_missing_sessions_have_their_status(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        path = f"/getDh?cn={A.bits}"
        sign = Ratchet(b"x" * 20).sign(path.encode())
        assert (await world.get(path)).status == 400, "no header"
        assert (await world.get(path, Re6stHMAC=sign)).status == 401, "no session yet"
        ratchet = await world.hello(A)
        assert (await world.get(path, Re6stHMAC=sign)).status == 400, "wrong HMAC"
        assert (await world.get(path, Re6stHMAC="§§§")).status == 400, "no base64"
        assert (await world.in_session(ratchet, "getDh", A)).status == 200, "the session lives on"
        assert (await world.get("/getDh?cn=", Re6stHMAC=sign)).status == 400, "an empty caller is nobody"
        assert (await world.get("/getDh?cn=012", Re6stHMAC=sign)).status == 400
        assert (await world.call("hello", client_prefix="", protocol="10")).status == 400
        assert (await world.call("hello", client_prefix=B.bits, protocol="10")).status == 404
        assert (await world.call("hello", client_prefix=A.bits, protocol="ten")).status == 400

    world.run(test)


def test_the_hmac_covers_the_target_as_it_was_sent(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        ratchet = await world.hello(A)
        path = f"/getCountry?address=%31%30.0.0.1&cn={A.bits}"
        assert (await world.get(path, Re6stHMAC=ratchet.sign(path.encode()))).status == 400
        # The ratchet moved on when the request was right, though the method failed (3.3 point 3).
        path = f"/getDh?cn={quote(A.bits, safe='')}&cn={A.bits}"
        ratchet = await world.hello(A)
        assert (await world.get(path, Re6stHMAC=ratchet.sign(path.encode()))).status == 200

    world.run(test)


def test_a_stranger_cannot_break_a_session(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        confirmed = await world.hello(A)
        assert (await world.in_session(confirmed, "getDh", A)).status == 200
        pending = await world.hello(A)
        for _ in range(3):
            await world.hello(A)  # the stranger
        assert (await world.in_session(confirmed, "getDh", A)).status == 200
        pending = await world.hello(A)
        for _ in range(3):
            await world.hello(A)
        assert (await world.in_session(pending, "getDh", A)).status == 200, "nor between hello and the first call"

    world.run(test)


def test_a_new_hello_ends_the_old_session_once_used(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        old = await world.hello(A)
        await world.in_session(old, "getDh", A)
        new = await world.hello(A)
        await world.in_session(new, "getDh", A)
        path = f"/getDh?cn={A.bits}"
        assert (await world.get(path, Re6stHMAC=old.sign(path.encode()))).status == 400

    world.run(test)


def test_hellos_of_strangers_are_limited(world: World) -> None:
    world.origins = ()

    async def test(world: World) -> None:
        for _ in range(3):
            await world.enrol()

        async def hello(n: int, source: str) -> int:
            world.now += 11  # no pending answer to give again
            path = target("hello", {"client_prefix": Prefix(n % 3, 16).bits})
            return (await world.get(path, X_Forwarded_For=source)).status

        world.now = START
        first = [await hello(n, "192.0.2.1") for n in range(30)]
        assert set(first) == {200}
        # A burst within a moment, from networks of one /64.
        sources = [f"2001:db8:ffff::{n:x}" for n in range(150)]
        answers = []
        for n, source in enumerate(sources):
            await world.registry.sessions.drop(Prefix(n % 3, 16))
            path = target("hello", {"client_prefix": Prefix(n % 3, 16).bits})
            answers.append((await world.get(path, X_Forwarded_For=source)).status)
        assert 429 in answers
        assert (await world.get(path, X_Forwarded_For="192.0.2.1")).status == 200

    world.run(test)


# --- bad input ---

BAD_REQUESTS: list[tuple[bytes, int]] = [
    (b"GET /noSuchMethod HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /index HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /getCa/x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET //getCa HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET getCa HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET http://x/getCa HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /getCa?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /getCa?novalue HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /isToken HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /isToken? HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /isToken?token=%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /isToken?" + b"token=a&" * 500 + b"token=a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /__class__ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /getCa\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /hello?client_prefix=2 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /hello?client_prefix=" + b"0" * 129 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /getCountry?cn=0&address=x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"HEAD /getCa HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    (b"POST /getCa HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 501),
    (b"BREW /getCa HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    (b"nonsense\r\n\r\n", 400),
    (b"GET /getCa\r\n\r\n", 400),
    (b"GET /getCa HTTP/9.9\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"GET /getCa HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400),
    (b"GET /getCa HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40000 + b"\r\n\r\n", 400),
    (b"GET /getCa?x=" + b"y" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /getCa HTTP/1.1\r\n\r\n", 400),  # no Host
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET /getCa HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", 400),
    (b"GET /getCa HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nOrigin: http://y\r\n\r\n", 400),
    (b"GET /getCa HTTP/1.1\r\nHost: x\r\nUser-Agent: x\r\nUser-Agent: y\r\n\r\n", 400),
    (b"x" * 20000, 400),
]


@pytest.mark.parametrize(("request_", "status"), BAD_REQUESTS, ids=[repr(r[:40]) for r, _ in BAD_REQUESTS])
def test_bad_requests_get_an_error_and_one_line_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture, request_: bytes, status: int
) -> None:
    caplog.set_level(logging.WARNING)

    async def test(world: World) -> None:
        async with asyncio.timeout(10):
            answer = parse(await world.raw(request_))
        assert answer.status == status
        assert "text/" in answer.headers["content-type"]
        assert HEADER.lower() not in answer.headers
        assert (await world.call("getCa")).status == 200, "the next one is served"

    world.run(test)
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1, [record.getMessage() for record in lines]
    assert len(lines[0].getMessage()) < 300
    assert not lines[0].exc_info


def test_ten_megabytes_of_query_are_answered(world: World) -> None:
    async def test(world: World) -> None:
        async with asyncio.timeout(10):
            answer = parse(
                await world.raw(b"GET /isToken?token=" + b"a" * 10_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            )
        assert answer.status == 400
        assert (await world.call("getCa")).status == 200

    world.run(test)


def test_a_slow_request_is_cut(world: World) -> None:
    world.bounds = HttpBounds(head=0.05)

    async def test(world: World) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(b"GET /getCa HTT")
        async with asyncio.timeout(10):
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
        writer.close()
        assert (await world.call("getCa")).status == 200

    world.run(test)


def test_too_many_connections_cost_the_one_that_is_the_longest_without_a_request(world: World) -> None:
    world.bounds = HttpBounds(connections=3)

    async def test(world: World) -> None:
        (first, first_writer), *others = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(3)]
        assert (await world.call("getCa")).status == 200
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await first.read() == b""
        first_writer.close()
        for reader, writer in others:
            writer.write(b"GET /getCa HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in await reader.readline()
            writer.close()

    world.run(test)


def test_one_address_holds_but_its_share_of_the_connections(world: World) -> None:
    world.bounds = HttpBounds(connections=64)

    async def test(world: World) -> None:
        honest = await connect(world, "127.0.0.3")
        idle = [await connect(world, "127.0.0.2") for _ in range(60)]
        assert await asked(honest) == 200
        assert await asked(await connect(world, "127.0.0.3")) == 200
        answers = [await asked(each) for each in idle]
        assert answers.count(200) == 64 // http.SHARE_OF_SENDER, "the others went for its own later ones"

    world.run(test)


def test_members_and_this_machine_get_in_while_strangers_hold_all_they_may(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.bounds = HttpBounds(connections=64)

    async def test(world: World) -> None:
        await world.enrol()
        world.registry.limits.note_member("127.0.0.9")
        call, go = world.registry.call, asyncio.Event()

        async def slow(call_: Call) -> bytes | None:
            if call_.method == "getCa":
                await go.wait()
            return await call(call_)

        monkeypatch.setattr(world.registry, "call", slow)
        held = []
        for n in range(20, 60):
            held += [await connect(world, f"127.0.0.{n}") for _ in range(4)]
        for each in held:
            with suppress(ConnectionError):
                each[1].write(b"GET /getCa HTTP/1.1\r\nHost: localhost\r\n\r\n")
        hello = target("hello", {"client_prefix": A.bits})
        assert await asked(await connect(world, "127.0.0.9"), hello) == 200, "a member's network"
        assert await asked(await connect(world, "127.0.0.1"), hello) == 200
        go.set()
        for each in held:
            each[1].close()

    world.run(test)


def test_who_does_not_read_the_answer_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bounds = HttpBounds(sweep=0.2)

    async def test(world: World) -> None:
        async def much(call: Call) -> bytes:
            return bytes(64 << 20)

        monkeypatch.setattr(world.registry, "call", much)
        sweeping = asyncio.create_task(world.server.run())
        reader, writer = await connect(world, "127.0.0.2", limit=1024)
        writer.write(b"GET /getCa HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        await until(lambda: not len(world.server._crowd))
        writer.close()
        sweeping.cancel()

    world.run(test)


async def connect(world: World, source: str, limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from an address of this machine that is not known as its own."""
    return await asyncio.open_connection("127.0.0.1", world.port, local_addr=(source, 0), limit=limit)


async def asked(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str = "/getCa") -> int:
    """The status of an answer; 0: it was cut off."""
    reader, writer = connection
    try:
        async with asyncio.timeout(10):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            line = await reader.readline()
            return int(line.split()[1]) if line else 0
    except ConnectionError:
        return 0
    finally:
        writer.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def test_tokens_stay_out_of_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def test(world: World) -> None:
        await world.call("addToken", email="a@b.c", token="topsecret")
        await world.call("addToken", email="a@b.c", token="topsecret")
        await world.call("requestCertificate", token="topsecret", req="bad")
        await world.call("requestCertificate", token="topsecret2", req=world.request())
        await world.get("/isToken?token=topsecret&x=1")

    world.run(test)
    assert "topsecret" not in caplog.text
    assert caplog.text.count("token unknown") == 1


def test_restricted_methods_are_for_authorized_origins(world: World) -> None:
    world.origins = ("192.0.2.9",)

    async def test(world: World) -> None:
        for name, method in METHODS.items():
            if method.access.value != "restricted":
                continue
            path = target(name, dict.fromkeys(method.parameters, "x"))
            for forwarded in ("198.51.100.1", "127.0.0.1, 198.51.100.1", "192.0.2.9, 127.0.0.1", ""):
                assert (await world.get(path, X_Forwarded_For=forwarded)).status == 403, (name, forwarded)
        assert (await world.get("/isToken?token=x", X_Forwarded_For="192.0.2.9")).status == 204
        twice = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 8.8.8.8"
        answer = await world.raw(f"GET /isToken?token=x HTTP/1.1\r\nHost: x\r\n{twice}\r\n\r\n".encode())
        assert parse(answer).status == 403

    world.run(test)


def test_an_unexpected_error_is_a_status_500(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        def broken(prefix: Prefix) -> None:
            raise ZeroDivisionError("what")

        monkeypatch.setattr(world.store.rows, "pem", broken)
        assert (await world.call("hello", client_prefix=A.bits)).status == 500
        assert (await world.call("getCa")).status == 200

    world.run(test)


def test_repeated_parameters_and_blank_values(world: World) -> None:
    async def test(world: World) -> None:
        query = urlencode([("token", "x"), ("token", ""), ("req", world.request()), ("location", ""), ("ip", "")])
        assert (await world.get(f"/requestCertificate?{query}")).status == 200, "the last one wins: anonymous"

    world.run(test)


@pytest.mark.parametrize(
    "path",
    ["/getCa", "/openapi.json", "/hello?client_prefix=0", "/noSuchMethod", "/deleteToken?token=x", "//", "/getDh?cn=0"],
)
def test_no_cache_may_keep_an_answer(world: World, path: str) -> None:
    async def test(world: World) -> None:
        assert (await world.get(path)).headers["cache-control"] == "no-store"

    world.run(test)


def test_no_cache_may_keep_an_answer_to_what_is_no_request(world: World) -> None:
    async def test(world: World) -> None:
        answer = await world.raw(b"BREW /pot HTTP/1.1\r\n\r\n")
        assert b"\r\nCache-Control: no-store\r\n" in answer

    world.run(test)


def test_an_http_1_0_client_is_served(world: World) -> None:
    async def test(world: World) -> None:
        answer = parse(await world.raw(b"GET /getCa HTTP/1.0\r\n\r\n"))
        assert answer.body == cert.to_pem(world.authority.trust.ca)

    world.run(test)
