"""The client against a registry of a few lines, which answers in HTTP/1.0 as the older software does."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from re6st import PROTOCOL, cert
from re6st.client import registry_client as client
from re6st.client.registry_client import (
    ANSWER_LIMIT,
    RegistryAnswerError,
    RegistryClient,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from re6st.core.prefix import Prefix
from re6st.core.wire.rpc import HEADER, UNKNOWN_HEADER, Ratchet, target
from re6st.keys import pki

Answer = tuple[int, bytes]


class FakeRegistry:
    """Answers hello and signs the answers of a session; everything else is up to the test."""

    def __init__(self, authority: cert.Authority, node: cert.Identity) -> None:
        self.authority = authority
        self.node = node
        self.answers: dict[str, Answer | list[Answer]] = {}
        """By method; the last one of a list is repeated."""
        self.raw: bytes | None = None
        """Sent as it is, in the place of everything."""
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.session: Ratchet | None = None
        self.secret = b"s" * 20
        self.base = ""
        self.spoil: list[bool] = []
        """Whether the HMAC of the next answers is wrong."""
        self.hello_signer = authority.key
        self.hello_receiver = node.cert
        self.arrived = asyncio.Event()
        self.hold: asyncio.Event | None = None

    @property
    def methods(self) -> list[str]:
        return [path.partition("?")[0].strip("/") for path in self.seen]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            verb, path, _ = head[0].split(" ")
            assert verb == "GET"
            self.headers.append(dict(line.split(": ", 1) for line in head[1:] if line))
            assert path.startswith(self.base + "/")
            self.seen.append(path[len(self.base) :])
            self.arrived.set()
            if self.hold:
                await self.hold.wait()
            writer.write(self.raw if self.raw is not None else self.answer(self.seen[-1], self.headers[-1]))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def answer(self, path: str, headers: dict[str, str]) -> bytes:
        method, _, query = path[1:].partition("?")
        if method == "hello":
            assert dict(parse_qsl(query)) == {"client_prefix": self.node.prefix.bits, "protocol": str(PROTOCOL)}
            encrypted = cert.encrypt(self.hello_receiver, self.secret)
            self.session = Ratchet(self.secret)
            return http(200, encrypted + cert.sign(self.hello_signer, encrypted))
        if HEADER in headers:
            if self.session is None:
                return http(401, b"<html>no session</html>")
            if not self.session.check(path.encode(), headers[HEADER]):
                return http(400, b"<html>wrong HMAC</html>")
        answers = self.answers[method]
        status, body = answers if isinstance(answers, tuple) else answers.pop(0) if len(answers) > 1 else answers[0]
        if HEADER not in headers or status >= 300:
            return http(status, body)
        assert self.session is not None
        header = self.session.sign(body)
        if self.spoil and self.spoil.pop(0):
            header = Ratchet(b"x" * 20).sign(body)
        return http(status, body, f"{HEADER}: {header}")


def http(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.0 {status} Word", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(registry: FakeRegistry) -> AsyncIterator[str]:
    server = await asyncio.start_server(registry.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{registry.base}"


Scenario = Callable[[FakeRegistry, RegistryClient], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def node(nodes: dict[str, cert.Identity]) -> cert.Identity:
    return nodes["1/16"]


@pytest.fixture
def play(authority: cert.Authority, node: cert.Identity) -> Play:
    """Runs a scenario with a registry and a client of it."""

    def run(
        scenario: Scenario, *, base: str = "", slash: str = "/", timeout: float = 30, anonymous: bool = False
    ) -> None:
        async def main() -> None:
            registry = FakeRegistry(authority, node)
            registry.base = base
            async with serving(registry) as url:
                await scenario(registry, RegistryClient(url + slash, None if anonymous else node, timeout=timeout))

        asyncio.run(main())

    return run


# --- public calls ---


@pytest.mark.parametrize("base", ["", "/re6st", "/a/b%20c"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_get_ca(play: Play, authority: cert.Authority, base: str, slash: str) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getCa"] = 200, cert.to_pem(authority.trust.ca)
        assert await client.get_ca() == authority.trust.ca
        assert registry.seen == ["/getCa"]
        assert registry.headers[0]["User-Agent"].startswith("re6stnet/")
        assert ", " in registry.headers[0]["User-Agent"]
        assert HEADER not in registry.headers[0]

    play(scenario, base=base, slash=slash, anonymous=True)


def test_request_certificate_sends_every_parameter_as_it_is(
    play: Play, authority: cert.Authority, node: cert.Identity
) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["requestCertificate"] = [(200, cert.to_pem(node.cert)), (204, b"")]
        request = cert.new_request(node.key, [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a+b & c=d % é")])
        token = "a b+c&d=%41;é/?#"
        assert await client.request_certificate(token, request) == node.cert
        assert await client.request_certificate("", request, "FR,EU") is None
        sent = [dict(parse_qsl(path.partition("?")[2], keep_blank_values=True)) for path in registry.seen]
        assert [values.keys() for values in sent] == [{"token": 1, "req": 1, "location": 1, "ip": 1}.keys()] * 2
        assert (sent[0]["token"], sent[0]["location"], sent[0]["ip"]) == (token, "", "")
        assert (sent[1]["token"], sent[1]["location"]) == ("", "FR,EU")
        assert x509.load_pem_x509_csr(sent[0]["req"].encode()) == request

    play(scenario, anonymous=True)


def test_mail_enrolment_that_is_closed_has_its_status(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["requestToken"] = [(403, b"<html>"), (204, b"")]
        with pytest.raises(RegistryRefused, match="requestToken refused: 403 Forbidden") as error:
            await client.request_token("a@example.org")
        assert error.value.status == 403
        await client.request_token("a@example.org")
        assert registry.seen[1] == "/requestToken?email=a%40example.org"

    play(scenario, anonymous=True)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_ca_that_is_none(play: Play, answer: bytes) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getCa"] = 200, answer
        with pytest.raises(RegistryAnswerError, match="bad answer to getCa"):
            await client.get_ca()

    play(scenario, anonymous=True)


# --- sessions ---


def test_the_key_is_kept_between_calls(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getNetworkConfig"] = 200, b"config"
        registry.answers["getCountry"] = 204, b""
        for _ in range(3):
            assert await client.get_network_config() == b"config"
            assert await client.get_country("2001:db8::1") is None
        assert registry.methods == ["hello", *["getNetworkConfig", "getCountry"] * 3]
        assert registry.seen[2] == "/getCountry?cn=0000000000000001&address=2001%3Adb8%3A%3A1"

    play(scenario, base="/base")


def test_the_session_of_the_vector(play: Play, vector: Callable[[str], Any]) -> None:
    session = vector("registry_session")

    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.secret = bytes.fromhex(session["secret"])
        registry.raw = http(200, bytes.fromhex(session["hello_response"]))
        bodies: list[bytes | None] = []
        ratchet = await client._hello()
        for call in session["calls"]:
            body = bytes.fromhex(call["response_body"])
            registry.raw = http(200 if body else 204, body, f"{HEADER}: {call['response_header_Re6stHMAC']}")
            method, _, query = call["path_and_query"][1:].partition("?")
            client._keys = ratchet
            bodies.append(await client._call_in_session(method, target(method, dict(parse_qsl(query)))))
        assert bodies == [b"first body", None]
        assert registry.seen == [session["hello_request"], *(call["path_and_query"] for call in session["calls"])]
        sent = [headers.get(HEADER) for headers in registry.headers]
        assert sent == [None, *(call["request_header_Re6stHMAC"] for call in session["calls"])]

    play(scenario)


def test_a_restarted_registry_costs_one_hello(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getNetworkConfig"] = 200, b"config"
        await client.get_network_config()
        registry.session = None
        assert await client.get_network_config() == b"config"
        assert registry.methods == ["hello", "getNetworkConfig", "getNetworkConfig", "hello", "getNetworkConfig"]

    play(scenario)


def test_a_wrong_answer_is_never_given_to_the_caller(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getNetworkConfig"] = 200, b"config"
        registry.spoil = [True]
        with pytest.raises(RegistryAnswerError, match=HEADER):
            await client.get_network_config()
        assert registry.methods == ["hello", "getNetworkConfig"], "a fresh key is not tried twice"
        assert await client.get_network_config() == b"config"
        registry.spoil = [True]
        assert await client.get_network_config() == b"config", "with a kept key the call is repeated"
        registry.spoil = [True, True]
        with pytest.raises(RegistryAnswerError):
            await client.get_network_config()

    play(scenario)


def test_an_error_is_repeated_once_with_a_new_session_but_not_403(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getNetworkConfig"] = [(200, b"config"), (500, b""), (200, b"again"), (500, b""), (500, b"")]
        assert await client.get_network_config() == b"config"
        assert await client.get_network_config() == b"again"
        with pytest.raises(RegistryRefused, match="500 Internal Server Error"):
            await client.get_network_config()
        registry.answers["getNetworkConfig"] = 200, b"config"
        await client.get_network_config()
        registry.seen.clear()
        registry.answers["getNetworkConfig"] = 403, b""
        with pytest.raises(RegistryRefused):
            await client.get_network_config()
        assert registry.methods == ["getNetworkConfig"]

    play(scenario)


def test_tasks_may_share_a_client(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getNetworkConfig"] = 200, b"config"
        registry.answers["getDh"] = 200, b"-----BEGIN DH PARAMETERS-----"
        await asyncio.gather(*(client.get_network_config() for _ in range(5)), *(client.get_dh() for _ in range(5)))
        assert registry.methods.count("hello") == 1
        assert len(registry.seen) == 11

    play(scenario)


def test_a_cancelled_call_leaves_no_broken_session(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getNetworkConfig"] = 200, b"config"
        await client.get_network_config()
        registry.arrived.clear()
        registry.hold = asyncio.Event()
        call = asyncio.create_task(client.get_network_config())
        await registry.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        registry.hold.set()
        assert await client.get_network_config() == b"config"

    play(scenario)


def test_hello_of_another_network_is_not_believed(play: Play, nodes: dict[str, cert.Identity]) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getNetworkConfig"] = 200, b"config"
        registry.answers["presentCertificate"] = 400, b""
        registry.hello_signer = nodes["0/16"].key
        with pytest.raises(RegistryAnswerError, match="not signed by our CA"):
            await client.get_network_config()
        registry.hello_signer = registry.authority.key
        registry.hello_receiver = nodes["0/16"].cert
        with pytest.raises(RegistryAnswerError, match="not encrypted for our key"):
            await client.get_network_config()
        registry.hello_receiver, registry.secret = nodes["1/16"].cert, b"short"
        with pytest.raises(RegistryAnswerError, match="not encrypted for our key"):
            await client.get_network_config()
        for junk in (b"", b"x", bytes(512), bytes(511)):
            registry.raw = http(200, junk)
            with pytest.raises(RegistryAnswerError, match="hello"):
                await client.get_network_config()
        assert set(registry.methods) == {"hello", "presentCertificate"}

    play(scenario)


def test_bootstrap_peer(play: Play, vector: Callable[[str], Any], node: cert.Identity) -> None:
    entry = vector("bootstrap_peer")

    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getBootstrapPeer"] = [
            (200, bytes.fromhex(entry["encrypted"])),
            (204, b""),
            *((200, cert.encrypt(node.cert, text)) for text in (b"", b"0102 x", b"\xff \xff", b"0101")),
        ]
        assert await client.get_bootstrap_peer() == (Prefix(0, 16), "10.9.0.1,1194,tcp;10.9.0.1,1194,udp")
        assert await client.get_bootstrap_peer() is None
        for _ in range(4):
            with pytest.raises(RegistryAnswerError, match="not a peer"):
                await client.get_bootstrap_peer()
        registry.answers["getBootstrapPeer"] = 200, b"not encrypted"
        with pytest.raises(RegistryAnswerError, match="not a peer"):
            await client.get_bootstrap_peer()

    play(scenario)


def test_renewal_takes_only_what_is_ours(
    play: Play, authority: cert.Authority, nodes: dict[str, cert.Identity], when: datetime
) -> None:
    node = nodes["1/16"]

    def renewed(subject: x509.Name, key: Any) -> Answer:
        return 200, cert.to_pem(authority.issue(subject, key.public_key(), 9, when))

    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["renewCertificate"] = [
            renewed(node.cert.subject, node.key),
            renewed(nodes["0/16"].cert.subject, node.key),
            renewed(node.cert.subject, nodes["0/16"].key),
            (200, cert.to_pem(forge(node, nodes["0/16"].key, when))),
            (200, b"nonsense"),
            (204, b""),
        ]
        new = await client.renew_certificate()
        assert new.serial_number == 9
        assert pki.end_of(new) == when + timedelta(days=365)
        for _ in range(5):
            with pytest.raises(RegistryAnswerError, match="renewCertificate"):
                await client.renew_certificate()

    play(scenario)


def forge(node: cert.Identity, key: Any, when: datetime) -> x509.Certificate:
    """The node's certificate, but signed by somebody who calls himself the CA."""
    name = node.trust.ca.subject
    ca = cert.new_ca(key, node.trust.network, "x", "x@example.org", when)
    forger = cert.Authority(ca, key)
    forger._issuer = name.public_bytes()
    return forger.issue(node.cert.subject, node.key.public_key(), 9, when)


def test_dh_and_country_are_looked_at(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.answers["getDh"] = [(200, b"-----BEGIN DH PARAMETERS-----\n"), (200, b"<html>"), (204, b"")]
        assert (await client.get_dh()).startswith(b"-----BEGIN")
        for _ in range(2):
            with pytest.raises(RegistryAnswerError, match="getDh"):
                await client.get_dh()
        registry.answers["getCountry"] = [(200, b"FR"), (200, b"FRANCE"), (200, b"\xff\xff"), (400, b"")]
        assert await client.get_country("192.0.2.1") == "FR"
        for _ in range(2):
            with pytest.raises(RegistryAnswerError, match="getCountry"):
                await client.get_country("192.0.2.1")
        with pytest.raises(RegistryRefused) as error:
            await client.get_country("192.0.2.1")
        assert error.value.status == 400

    play(scenario)


def test_session_calls_need_an_identity(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        with pytest.raises(TypeError):
            await client.get_network_config()
        with pytest.raises(TypeError):
            await client.call("getCa", surplus="x")
        assert registry.seen == []

    play(scenario, anonymous=True)


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
    failing(play, http(200, bomb, "Content-Encoding: gzip"), RegistryAnswerError, "no RSA certificate")


def test_an_answer_cut_short(play: Play) -> None:
    failing(play, b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf", RegistryUnreachable, "broke off")
    failing(play, b"", RegistryUnreachable, "broke off")


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH\r\n", b"\xff" * 100, b"HTTP/1.0 abc\r\n\r\n"], ids=range(3))
def test_a_server_of_something_else(play: Play, raw: bytes) -> None:
    failing(play, raw, RegistryUnreachable, "no HTTP server")


def test_redirections_are_shown_not_followed(play: Play) -> None:
    raw = http(301, b"", "Location: https://example.org/\x1b[31m")
    failing(play, raw.replace(b"\x1b", b""), RegistryRefused, r"sends us on to 'https://example.org/\[31m'")


def test_where_a_redirection_leads_is_told_without_what_was_asked(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        place = f"https://example.org/re6st{target('requestToken', {'email': 'a@example.org'})}"
        registry.raw = http(301, b"", f"Location: {place}")
        with pytest.raises(RegistryRefused) as error:
            await client.request_token("a@example.org")
        assert str(error.value) == (
            f"registry {client.url}: it sends us on to 'https://example.org/re6st'. Give that address as --registry."
        )

    play(scenario, anonymous=True)


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_without_its_registry_is_named(play: Play, status: int) -> None:
    failing(play, http(status, b""), RegistryRefused, "A proxy says that, which does not reach the registry")


def test_a_404_that_is_not_proven_to_be_the_registrys_makes_nobody_enrol(play: Play) -> None:
    async def scenario(registry: FakeRegistry, client: RegistryClient) -> None:
        registry.raw = http(404, b"<html>404 page not found</html>", f"{UNKNOWN_HEADER}: {'x' * 344}")
        with pytest.raises(RegistryRefused) as error:
            await client.get_dh()
        assert not error.value.proven
        assert "nrol" not in str(error.value)
        assert "404 Not Found, which nothing proves to be its answer" in str(error.value)

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
        with pytest.raises(RegistryRefused, match="which nothing proves"):
            await client.get_dh()
        assert not client.likely_refused, "nobody is known that it knows"
        client.witness = witness.prefix
        with pytest.raises(RegistryRefused) as error:
            await client.get_dh()
        assert (client.refused, client.likely_refused) == (False, is_ours)
        assert ("likely that was revoked" in str(error.value)) is is_ours
        assert "nrol" not in str(error.value)
        if is_ours:
            assert "it greets 0/16, but does not know 1/16" in str(error.value)
            assert "ask its operator before anything is changed here" in str(error.value)
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
