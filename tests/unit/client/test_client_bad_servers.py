"""What a bad network or server does to a client, and what the user is told."""

from __future__ import annotations

import asyncio
import gzip
import time
from email.utils import formatdate

import pytest

from re6st import cert
from re6st.client import registry_client as client
from re6st.client.registry_client import (
    ANSWER_LIMIT,
    RegistryAnswerError,
    RegistryClient,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from re6st.core.wire.rpc import UNKNOWN_HEADER, target
from tests.unit.fake_registry import FakeRegistry, Play, http

# --- what a bad network or server does ---


def failing(play: Play, raw: bytes, kind: type[RegistryError], words: str) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.raw = raw
        with pytest.raises(kind, match=words) as error:
            await client.get_ca()
        assert type(error.value) is kind
        assert str(error.value).startswith(f"registry {client.url}: ")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
        assert len(registry.seen) == 1

    play(scenario, anonymous=True)


def test_answers_are_bounded(play: Play) -> None:
    failing(play, http(200, bytes(ANSWER_LIMIT + 1)), RegistryAnswerError, "longer than 1048576 bytes")


def test_nothing_is_unpacked(play: Play) -> None:
    bomb = gzip.compress(bytes(20 * ANSWER_LIMIT))
    failing(play, http(200, bomb, "Content-Encoding: gzip"), RegistryAnswerError, "not an RSA certificate")


def test_an_answer_cut_short(play: Play) -> None:
    failing(play, b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf", RegistryUnreachable, "broke off")
    failing(play, b"", RegistryUnreachable, "broke off")


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH\r\n", b"\xff" * 100, b"HTTP/1.0 abc\r\n\r\n"], ids=range(3))
def test_a_server_of_something_else(play: Play, raw: bytes) -> None:
    failing(play, raw, RegistryUnreachable, "not an HTTP server")


def test_redirections_are_shown_not_followed(play: Play) -> None:
    raw = http(301, b"", "Location: https://example.org/\x1b[31m")
    failing(play, raw.replace(b"\x1b", b""), RegistryRefused, r"redirects to 'https://example.org/\[31m'")


def test_where_a_redirection_leads_is_told_without_what_was_asked(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        place = f"https://example.org/re6st{target('requestToken', {'email': 'a@example.org'})}"
        registry.raw = http(301, b"", f"Location: {place}")
        with pytest.raises(RegistryRefused) as error:
            await client.request_token("a@example.org")
        assert str(error.value) == (
            f"registry {client.url}: it redirects to 'https://example.org/re6st'. Give that address as --registry."
        )

    play(scenario, anonymous=True)


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_without_its_registry_is_named(play: Play, status: int) -> None:
    failing(play, http(status, b""), RegistryRefused, "A proxy says so, which cannot reach the registry")


def test_a_404_that_is_not_proven_to_be_the_registrys_makes_nobody_enrol(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.raw = http(404, b"<html>404 page not found</html>", f"{UNKNOWN_HEADER}: {'x' * 344}")
        with pytest.raises(RegistryRefused) as error:
            await client.get_dh()
        assert not error.value.proven
        assert "nrol" not in str(error.value)
        assert "404 Not Found, and nothing proves that the registry said so" in str(error.value)

    play(scenario)


@pytest.mark.parametrize("is_ours", [True, False])
def test_who_is_revoked_by_an_older_registry_is_told_so_as_far_as_that_can_be_known(
    play: Play, nodes: dict[str, cert.Identity], is_ours: bool
) -> None:
    """It knows the node beside it, and says so with what its CA signed; a stranger in its place cannot."""
    witness = nodes["0/16"]

    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        revoked, signer = True, registry.authority.key if is_ours else witness.key
        answer = registry.answer

        def older(path: str, headers: dict[str, str]) -> bytes:
            if path.startswith("/presentCertificate"):
                return http(400, b"<html>no such method</html>")
            if path.startswith(f"/hello?client_prefix={witness.prefix.bits}&"):
                encrypted = cert.encrypt(witness.cert, b"s" * 20)
                return http(200, encrypted + cert.sign(signer, encrypted))
            return http(404, b"<html>no certificate</html>") if revoked else answer(path, headers)

        registry.answer = older  # type: ignore[method-assign]
        registry.answers["getDh"] = (200, b"-----BEGIN DH PARAMETERS-----\n")
        with pytest.raises(RegistryRefused, match="and nothing proves"):
            await client.get_dh()
        assert not client.likely_refused, "nobody is known that it knows"
        client.witness = witness.prefix
        with pytest.raises(RegistryRefused) as error:
            await client.get_dh()
        assert (client.refused, client.likely_refused) == (False, is_ours)
        assert ("likely that was revoked" in str(error.value)) is is_ours
        assert "nrol" not in str(error.value)
        if is_ours:
            assert "it answers 0/16, but does not know 1/16" in str(error.value)
            assert "ask its operator before you change anything here" in str(error.value)
        revoked = False
        await client.get_dh()
        assert not client.likely_refused

    play(scenario)


def test_the_clock_of_the_registry_is_read_from_its_own_answers(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        answer = registry.answer

        def with_date(path: str, headers: dict[str, str]) -> bytes:
            date = formatdate(time.time() + 7200, usegmt=True)
            return answer(path, headers).replace(b"\r\n", f"\r\nDate: {date}\r\n".encode(), 1)

        registry.answers["getDh"] = [(200, b"-----BEGIN DH PARAMETERS-----\n"), (502, b"")]
        registry.answer = with_date  # type: ignore[method-assign]
        await client.get_dh()
        assert client.clock_ahead == pytest.approx(7200, abs=30)

    play(scenario)


def test_an_unknown_status(play: Play) -> None:
    failing(play, http(599, b""), RegistryRefused, "getCa refused: 599")


def test_a_silent_registry(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.hold = asyncio.Event()
        with pytest.raises(RegistryUnreachable, match=r"no answer within 0\.2 s"):
            await client.get_ca()
        registry.hold.set()

    play(scenario, timeout=0.2, anonymous=True)


def test_nobody_there() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(RegistryUnreachable, match=r"cannot connect: Connection refused\. Check"):
            await RegistryClient(f"http://127.0.0.1:{port}").get_ca()
        with pytest.raises(RegistryUnreachable, match="cannot connect: Connection refused"):
            await RegistryClient(f"https://127.0.0.1:{port}").get_ca()
        with pytest.raises(RegistryUnreachable, match="host name unknown"):
            await RegistryClient("http://a..b/").get_ca()

    asyncio.run(main())


def test_https_at_an_http_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.0 400 Bad\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(RegistryUnreachable, match="TLS"):
                await RegistryClient(f"https://127.0.0.1:{port}").get_ca()

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        *("", "re6st.example.org", "example.org:80", "ftp://example.org", "http://", "http:///x", "file:///etc", "//h"),
        *("http://[::1", "http://example.org:x/", "http://example.org:99999/", "http://h/?a=b", "http://h/#x"),
    ],
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(RegistryError, match="not of the form http://") as error:
        RegistryClient(url)
    assert "\n" not in str(error.value)


def test_passwords_stay_out_of_messages() -> None:
    assert RegistryClient("http://user:secret@example.org/base/").url == "http://example.org/base"
    base = client.parse_url("http://user:secret@h/")
    assert "secret" not in f"{base}{base!r}"


def test_a_registry_of_a_later_protocol_that_is_not_ours_is_spoken_to_as_ever(play: Play) -> None:
    """It passes over our offer, as the deployed one does, and answers in the old way."""

    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getNetworkConfig"] = 200, b"config of protocol 11"
        assert await client.get_network_config() == b"config of protocol 11"
        assert "Re6stOffer" in registry.headers[0]
        assert "Re6stOffer" not in registry.headers[1]

    play(scenario)
