"""The client against a registry of a few lines, which answers in HTTP/1.0 as the older software does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.client.registry_client import (
    RegistryAnswerError,
    RegistryClient,
    RegistryRefused,
)
from re6st.core.prefix import Prefix
from re6st.core.wire.rpc import HEADER, target
from re6st.keys import pki
from tests.unit.fake_registry import Answer, FakeRegistry, Play, http

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
