from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from re6st import cert
from re6st.core.wire.rpc import METHODS, SECRET_LENGTH, Access, Ratchet, target


def test_session_vector(vector: Callable[[str], Any], nodes: dict[str, cert.Identity]) -> None:
    session = vector("registry_session")
    node = next(n for n in nodes.values() if n.prefix.bits == session["client_prefix"])
    assert target("hello", {"client_prefix": session["client_prefix"], "protocol": "10"}) == session["hello_request"]
    answer = bytes.fromhex(session["hello_response"])
    half = len(answer) // 2
    assert cert.verify(node.trust.ca, answer[half:], answer[:half])
    secret = bytes.fromhex(session["secret"])
    assert cert.decrypt(node.key, answer[:half]) == secret
    assert len(secret) == SECRET_LENGTH

    client, registry = Ratchet(secret), Ratchet(secret)
    assert len(session["calls"]) == 2
    for call in session["calls"]:
        path, body = call["path_and_query"], bytes.fromhex(call["response_body"])
        method, _, query = path[1:].partition("?")
        assert target(method, dict(parse_qsl(query))) == path
        assert client.sign(path.encode()) == call["request_header_Re6stHMAC"]
        assert registry.check(path.encode(), call["request_header_Re6stHMAC"])
        assert registry.sign(body) == call["response_header_Re6stHMAC"]
        assert client.check(body, call["response_header_Re6stHMAC"])


@given(st.binary(min_size=20, max_size=20), st.lists(st.binary(max_size=50), max_size=10))
def test_both_ends_move_together(secret: bytes, messages: list[bytes]) -> None:
    ends = [Ratchet(secret), Ratchet(secret)]
    for number, message in enumerate(messages):
        sender, receiver = ends[number % 2], ends[1 - number % 2]
        assert receiver.check(message, sender.sign(message))


def test_a_wrong_header_does_not_move_the_key() -> None:
    client, registry = Ratchet(b"s" * 20), Ratchet(b"s" * 20)
    header = client.sign(b"call")
    assert not registry.check(b"another call", header)
    assert not registry.check(b"call", "")
    assert registry.check(b"call", header)
    assert not registry.check(b"call", header), "a repeated call must not pass"


def test_random_headers_are_refused() -> None:
    chance = random.Random(4)
    ratchet = Ratchet(b"s" * 20)
    for _ in range(2000):
        noise = chance.randbytes(chance.randrange(500))
        assert not ratchet.check(noise, noise.decode("latin-1"))
        assert not ratchet.check(noise, noise.decode("utf-8", "replace"))
    assert ratchet.check(b"m", Ratchet(b"s" * 20).sign(b"m"))


@given(st.dictionaries(st.sampled_from(["token", "req", "location", "ip"]), st.text()))
def test_target_keeps_every_text(arguments: dict[str, str]) -> None:
    written = target("requestCertificate", arguments)
    written.encode("ascii")
    assert not set(written) & set(" \r\n#")
    parts = urlsplit(written)
    assert parts.path == "/requestCertificate"
    assert dict(parse_qsl(parts.query, keep_blank_values=True)) == arguments


def test_methods_are_those_of_the_protocol() -> None:
    by_access = {access: {m.name for m in METHODS.values() if m.access is access} for access in Access}
    assert by_access[Access.PUBLIC] - {"presentCertificate"} == {
        *("hello", "getCa", "requestToken", "requestCertificate")
    }
    reference = {"renewCertificate", "getDh", "getNetworkConfig", "getCountry", "getBootstrapPeer"}
    assert by_access[Access.NODE] == reference | {"rekeyCertificate", "revokeSuperseded"}
    assert len(by_access[Access.RESTRICTED]) == 10
    for method in METHODS.values():
        assert (method.access is Access.NODE) == ("cn" in method.parameters)
    assert list(METHODS["requestCertificate"].parameters) == ["token", "req", "location", "ip"]
