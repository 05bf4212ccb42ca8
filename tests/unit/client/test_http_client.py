"""One GET: what goes out and what may come back, against servers of a few lines. See also test_client.py."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from re6st.client.http import HttpError, Response, TooLong, get, parse_url

T = TypeVar("T")


def serve(
    answer: bytes,
    use: Callable[[int], Awaitable[T]],
    *,
    context: ssl.SSLContext | None = None,
    stays: bool = False,
    requests: list[bytes] | None = None,
) -> T:
    """Run `use` with the port of a server that answers everything with some bytes, and `stays` connected or not."""

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if requests is not None:
            requests.append(request)
        writer.write(answer)
        await writer.drain()
        if stays:
            await reader.read()
        writer.close()

    async def main() -> T:
        async with await asyncio.start_server(answering, "127.0.0.1", 0, ssl=context) as server:
            return await use(server.sockets[0].getsockname()[1])

    return asyncio.run(main())


def fetch(answer: bytes, *, stays: bool = False, limit: int = 1000, timeout: float = 30) -> Response:
    async def use(port: int) -> Response:
        return await get(parse_url(f"http://127.0.0.1:{port}"), "/x", {}, timeout=timeout, limit=limit)

    return serve(answer, use, stays=stays)


def test_what_is_sent() -> None:
    requests: list[bytes] = []

    async def use(port: int) -> Response:
        url = parse_url(f"http://us%40er:pass%3Aword@127.0.0.1:{port}/a b/é%20/")
        return await get(url, "/method?a=%20b", {"User-Agent": "test"}, timeout=30, limit=10)

    assert serve(b"HTTP/1.1 204 No Content\r\n\r\n", use, requests=requests).status == 204
    line, *headers = requests[0].decode("ascii").rstrip().split("\r\n")
    assert line == "GET /a%20b/%C3%A9%20/method?a=%20b HTTP/1.1"
    fields = {name.lower(): value for name, value in (header.split(": ", 1) for header in headers)}
    assert fields["host"].startswith("127.0.0.1:")
    assert fields["user-agent"] == "test"
    assert fields["connection"] == "close"
    assert fields["authorization"] == "Basic dXNAZXI6cGFzczp3b3Jk"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Name: v\r\n\r\nbody",
        b"HTTP/1.0 200 OK\r\nX-Name: v\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-name: v\r\n\r\n2\r\nbo\r\n2;e=1\r\ndy\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200\r\nContent-Length: 4\r\nX-NAME: v\r\n\r\nbody and more",
    ],
    ids=["length", "until the end", "chunked", "informational"],
)
def test_every_form_of_an_answer(answer: bytes) -> None:
    response = fetch(answer)
    assert (response.status, response.body, response.headers["x-name"]) == (200, b"body", "v")


def test_a_complete_answer_does_not_wait_for_the_end_of_the_connection() -> None:
    assert fetch(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", stays=True).body == b"body"
    assert fetch(b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", stays=True).body == b""
    assert fetch(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nnever", stays=True).status == 500


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    ],
    ids=range(9),
)
def test_what_is_no_http_is_told_at_once(answer: bytes) -> None:
    with pytest.raises(HttpError, match="not an HTTP server"):
        fetch(answer, stays=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HT",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
    ],
    ids=range(5),
)
def test_an_answer_cut_short(answer: bytes) -> None:
    with pytest.raises(HttpError, match="broke off"):
        fetch(answer)
    with pytest.raises(HttpError, match=r"no answer within 0\.05 s"):
        fetch(answer, stays=True, timeout=0.05)


def test_a_body_is_bounded_however_it_comes() -> None:
    for head in (b"Content-Length: 2000\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n"):
        with pytest.raises(TooLong):
            fetch(b"HTTP/1.1 200 OK\r\n" + head + bytes(2000), stays=True)


# --- TLS ---


def certify(path: Path) -> Path:
    """A key and a certificate for 127.0.0.1, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    when = datetime.now(UTC) - timedelta(days=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, when, when + timedelta(days=36500))
    for extension, critical in (
        (x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False),
        (x509.BasicConstraints(ca=True, path_length=None), True),
    ):
        builder = builder.add_extension(extension, critical)
    cert = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem, form, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, form, plain) + cert)
    return path


def test_a_server_must_be_who_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certify(tmp_path / "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def use(port: int) -> bytes:
        return (await get(parse_url(f"https://127.0.0.1:{port}"), "/x", {}, timeout=30, limit=10)).body

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
    with pytest.raises(HttpError, match=r"its TLS certificate is not accepted \(.*self.signed"):
        serve(answer, use, context=context)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert serve(answer, use, context=context) == b"body"
    assert serve(answer, use, context=context, stays=True) == b"body"


# --- URLs ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" HTTP://Example.ORG/ ", "http://example.org"),
        ("https://example.org:443/a//", "https://example.org/a"),
        ("http://[2001:db8::1]:8080/a%20b", "http://[2001:db8::1]:8080/a%20b"),
        ("http://bücher.example/", "http://xn--bcher-kva.example"),
        ("http://user:secret@example.org:81", "http://example.org:81"),
    ],
)
def test_a_url_as_it_is_shown(text: str, shown: str) -> None:
    url = parse_url(text)
    assert str(url) == shown
    assert "secret" not in repr(url)


@pytest.mark.parametrize("text", ["http://a b/", "http://a\x00b/", "http://h/?q", "http://" + "ü" * 100 + "/", "h:80"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(text)
