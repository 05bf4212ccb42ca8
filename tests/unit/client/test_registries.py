"""A client that knows several registries: it goes on to one that works, at once, and keeps to it."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing

import pytest

from re6st import cert
from re6st.client import first_connection, registries
from re6st.client.registry_client import (
    RegistryAnswerError,
    RegistryClient,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from tests.unit.fake_registry import FakeRegistry, serving

Several = Callable[[list[FakeRegistry], list[str]], Awaitable[None]]
SILENT = 20.0


def dead() -> str:
    """A URL whose port refuses connections."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}/"


@pytest.fixture
def play(authority: cert.Authority, node: cert.Identity) -> Callable[[Several], None]:
    """Runs a scenario with two registries of one network."""

    def run(scenario: Several) -> None:
        async def main() -> None:
            both = [FakeRegistry(authority, node), FakeRegistry(authority, node)]
            async with AsyncExitStack() as stack:
                urls = [await stack.enter_async_context(serving(each)) for each in both]
                for number, each in enumerate(both):
                    each.secret = bytes([number]) * 20
                    each.answers["getNetworkConfig"] = 200, b"config"
                    each.answers["getDh"] = 200, b"-----BEGIN "
                    each.answers["getCa"] = 200, cert.to_pem(authority.trust.ca)
                await scenario(both, urls)

        asyncio.run(main())

    return run


def test_it_keeps_to_the_first(play: Callable[[Several], None], node: cert.Identity) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        client = RegistryClient(urls, node)
        for _ in range(3):
            assert await client.get_network_config() == b"config"
        assert both[0].methods == ["hello", *["getNetworkConfig"] * 3]
        assert both[1].methods == []
        assert client.url == urls[0]

    play(scenario)


def test_one_that_refuses_connections_costs_no_time(
    play: Callable[[Several], None], node: cert.Identity, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        client, began = RegistryClient([dead(), urls[1]], node), time.monotonic()
        assert await client.get_network_config() == b"config"
        assert time.monotonic() - began < first_connection.NEXT_SERVER
        assert client.url == urls[1]
        for _ in range(3):
            await client.get_network_config()
        assert both[1].methods == ["hello", *["getNetworkConfig"] * 4]
        gone, used = client.registries.record()
        assert (gone["works"], used["works"], gone["used"], used["used"]) == (False, True, False, True)
        assert "Connection refused" in gone["error"]
        assert abs(gone["failed"] - time.time()) < SILENT
        assert used["failed"] is None

    play(scenario)
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2, "that one failed, and which one is asked from now on"
    assert "Connection refused" in said[0]
    assert "from now on" in said[1]


def test_one_that_is_silent_costs_a_second(play: Callable[[Several], None], node: cert.Identity) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        with closing(socket.socket()) as full, closing(socket.socket()) as waiting:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting.connect(full.getsockname())  # the kernel takes no other one
            client = RegistryClient([f"http://127.0.0.1:{full.getsockname()[1]}/", urls[1]], node)
            began = time.monotonic()
            assert await client.get_network_config() == b"config"
            assert first_connection.NEXT_SERVER <= time.monotonic() - began < SILENT
            assert "no connection" in client.registries.record()[0]["error"]

    play(scenario)


def test_one_that_takes_a_connection_and_does_not_answer_is_left(
    play: Callable[[Several], None], node: cert.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "SILENCE", 0.2)

    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        both[0].hold = asyncio.Event()
        assert await RegistryClient(urls, node).get_network_config() == b"config"
        both[0].hold.set()

    play(scenario)


def test_one_that_ends_during_a_call_is_left(play: Callable[[Several], None], node: cert.Identity) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        client = RegistryClient(urls, node)
        await client.get_network_config()
        both[0].raw = b""  # it closes the connection
        assert await client.get_network_config() == b"config"
        assert both[1].methods == ["hello", "getNetworkConfig"]

    play(scenario)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_one_that_cannot_work_now_is_left(play: Callable[[Several], None], node: cert.Identity, status: int) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        client = RegistryClient(urls, node)
        both[0].answers["getNetworkConfig"] = status, b""
        assert await client.get_network_config() == b"config"
        assert client.url == urls[1]
        both[1].answers["getNetworkConfig"] = status, b""
        with pytest.raises(RegistryRefused) as raised:
            await client.get_network_config()
        assert raised.value.status == status

    play(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\n<html>an empty site</html>",
        b"HTTP/1.0 404 Not Found\r\n\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: http://elsewhere.example.com/\r\n\r\n",
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        b"HTTP/1.0 409 Conflict\r\n\r\n",
        b"SSH-2.0-something\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + bytes((1 << 20) + 1),
    ],
)
def test_something_else_in_the_place_of_one_costs_only_that_one(
    play: Callable[[Several], None], node: cert.Identity, answer: bytes
) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        both[0].raw = answer
        client = RegistryClient(urls, node)
        assert await client.get_network_config() == b"config"
        assert await client.get_ca() == node.trust.ca
        asked = len(both[0].seen)
        await client.get_dh()
        assert len(both[0].seen) == asked, "and it is not asked again for a while"
        assert not client.refused
        assert await RegistryClient(urls).get_ca() == node.trust.ca

    play(scenario)


def test_a_registry_of_another_network_costs_only_itself(
    play: Callable[[Several], None], node: cert.Identity, nodes: dict[str, cert.Identity]
) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        both[0].hello_signer = nodes["5/16"].key if "5/16" in nodes else cert.new_key(2048)
        assert await RegistryClient(urls, node).get_network_config() == b"config"

    play(scenario)


def test_one_that_spoils_answers_in_a_session_costs_only_itself(
    play: Callable[[Several], None], node: cert.Identity
) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        both[0].spoil = [True] * 10
        assert await RegistryClient(urls, node).get_network_config() == b"config"

    play(scenario)


def test_a_session_that_another_machine_behind_the_name_does_not_have_costs_a_hello(
    play: Callable[[Several], None], node: cert.Identity
) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        answers: list[tuple[int, bytes]] = [(401, b"no session"), (401, b"no session"), (200, b"config")]
        both[0].answers["getNetworkConfig"] = answers
        assert await RegistryClient(urls[0], node).get_network_config() == b"config"
        assert both[0].methods == ["hello", "getNetworkConfig"] * 3
        both[0].answers["getNetworkConfig"] = 401, b"no session"
        with pytest.raises(RegistryRefused, match="401"):
            await RegistryClient(urls[0], node).get_network_config()

    play(scenario)


def test_a_token_is_sent_once(play: Callable[[Several], None], authority: cert.Authority) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        for each in both:
            each.answers["requestToken"] = 204, b""
        await RegistryClient([dead(), urls[1]]).request_token("a@example.org")
        assert both[1].methods == ["requestToken"], "one that refuses the connection has not received it"
        both[0].raw = b""
        with pytest.raises(RegistryUnreachable, match=urls[0]):
            await RegistryClient(urls).request_token("a@example.org")
        assert len(both[1].seen) == 1, "the first may have sent the mail"
        both[0].raw = b"HTTP/1.0 503 Service Unavailable\r\n\r\n"
        with pytest.raises(RegistryError):
            await RegistryClient(urls).request_token("a@example.org")
        assert len(both[1].seen) == 1, "nor does this say that it has not"

    play(scenario)


def test_where_none_answers_the_error_says_why_of_each(node: cert.Identity) -> None:
    urls = [dead(), dead()]
    with pytest.raises(RegistryUnreachable) as raised:
        asyncio.run(RegistryClient(urls, node).get_network_config())
    assert all(f"registry {url.rstrip('/')}: cannot connect" in str(raised.value) for url in urls)
    assert str(raised.value).count("\n") == 0


def test_a_wrong_url_is_an_error_here_and_costs_only_itself_in_the_parameters(
    node: cert.Identity, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(RegistryError):
        RegistryClient(["http://a.example.com/", "ftp://b.example.com/"], node)
    client = RegistryClient("http://a.example.com/", node)
    for _ in range(2):
        client.registries.learn(["", "ftp://b", "http://c.example.com/?x\n", "http://d.example.com/"])
    assert [each["url"] for each in client.registries.record()] == ["http://a.example.com", "http://d.example.com"]
    assert len(caplog.records) == 4, "each of the three once, and that there is another one"
    assert all("\n" not in record.message for record in caplog.records)
    client.registries.learn([])
    assert [each["url"] for each in client.registries.record()] == ["http://a.example.com"]


def test_the_first_errors_are_those_of_the_one_that_was_asked_first(
    play: Callable[[Several], None], node: cert.Identity
) -> None:
    async def scenario(both: list[FakeRegistry], urls: list[str]) -> None:
        both[0].raw = b"HTTP/1.0 200 OK\r\n\r\nnonsense"
        both[1].raw = b"HTTP/1.0 404 Not Found\r\n\r\n"
        with pytest.raises(RegistryAnswerError, match=urls[0]):
            await RegistryClient(urls, node).get_network_config()

    play(scenario)
