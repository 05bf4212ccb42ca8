"""The metrics over HTTP: one page, and nothing else, for few at a time."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

import pytest

from re6st.service import metrics_http
from re6st.service.metrics_http import (
    CLIENTS_LIMIT,
    HEAD_LIMIT,
    SHARE,
    MetricsServer,
    listen,
)
from re6st.service.metrics_place import ListenAddress, MetricsError


def serving(
    test: Callable[[int], Awaitable[None]], render: Callable[[], Awaitable[bytes]] | None = None
) -> MetricsServer:
    """Runs the test with the port of a server."""

    async def page() -> bytes:
        return b"a_metric 1\n"

    own = socket.socket()
    own.bind(("127.0.0.1", 0))
    server = MetricsServer([own], render or page)

    async def run() -> None:
        task = asyncio.create_task(server.run())
        try:
            async with asyncio.timeout(20):
                await asyncio.sleep(0.01)
                await test(own.getsockname()[1])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.01)

    asyncio.run(run())
    return server


async def get(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


async def cut_off(answer: Awaitable[bytes]) -> bool:
    """Whether it ends without an answer."""
    try:
        return await answer == b""
    except ConnectionError:
        return True


def head(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_the_page_and_nothing_else() -> None:
    async def test(port: int) -> None:
        answer = await get(port, head("/metrics"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"text/plain; version=0.0.4" in answer
        assert answer.endswith(b"\r\n\r\na_metric 1\n")
        assert (await get(port, head("/metrics?x=1"))).startswith(b"HTTP/1.1 200 ")
        assert (await get(port, b"GET /metrics HTTP/1.0\r\n\r\n")).split()[1] == b"200"
        bare = await get(port, head("/metrics", "HEAD"))
        assert bare.split()[1] == b"200"
        assert bare.endswith(b"\r\n\r\n")
        assert (await get(port, head("/"))).split()[1] == b"404"
        assert (await get(port, head("/metrics", "POST"))).split()[1] == b"405"
        assert (await get(port, b"\0\xff\r\n\r\n")).split()[1] == b"400"
        assert (await get(port, b"GET /" + b"x" * 3 * HEAD_LIMIT)).split()[1] in (b"431", b"400")

    serving(test)


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("", 403), ("127.0.0.1:9", 200), ("[::1]", 200)])
def test_on_loopback_a_name_that_a_stranger_points_here_gets_nothing(host: str, status: int) -> None:
    async def test(port: int) -> None:
        answer = await get(port, f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert int(answer.split()[1]) == status
        assert (b"a_metric" in answer) == (status == 200)

    serving(test)


def test_who_says_nothing_is_cut_off_and_keeps_few_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "TIMEOUT", 2.0)

    async def test(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CLIENTS_LIMIT)]
        await asyncio.sleep(0.05)
        assert await cut_off(get(port, head("/metrics")))
        for reader, writer in silent:
            assert await cut_off(reader.read())
            writer.close()
        assert (await get(port, head("/metrics"))).split()[1] == b"200"

    serving(test)


def test_a_page_that_cannot_be_made_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> bytes:
        raise ValueError("why")

    async def test(port: int) -> None:
        for _ in range(3):
            assert (await get(port, head("/metrics"))).split()[1] == b"503"

    with caplog.at_level(logging.INFO):
        serving(test, fail)
    assert [record.getMessage() for record in caplog.records] == ["metrics: ValueError: why"]


def test_many_who_ask_cost_one_page() -> None:
    made = []

    async def page() -> bytes:
        made.append(1)
        return b""

    async def test(port: int) -> None:
        await asyncio.gather(*(get(port, head("/metrics")) for _ in range(SHARE)))

    serving(test, page)
    assert len(made) == 1


def test_without_an_address_it_is_the_loopback() -> None:
    sockets = listen(ListenAddress("", 0))
    assert {own.getsockname()[0] for own in sockets} <= {"127.0.0.1", "::1"}
    port = sockets[0].getsockname()[1]
    sockets[0].listen()
    with pytest.raises(MetricsError, match=rf"--metrics 127.0.0.1:{port}: Address already in use. Choose another"):
        listen(ListenAddress("127.0.0.1", port))
    for own in (*sockets, *listen(ListenAddress("2001:db8::1", 9326))):  # one that this machine may have later
        own.close()
