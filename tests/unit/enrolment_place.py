"""A registry and a terminal for tests of re6st-conf."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Network
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.linux import disk

NETWORK = IPv6Network("2001:db8:42::/48")
TOKEN = "qwertzui"


class Registry:
    """getCa, requestToken, requestCertificate; the test may replace an answer."""

    def __init__(self, ca_key: rsa.RSAPrivateKey, network: IPv6Network = NETWORK, name: str = "Example mesh") -> None:
        self.now = datetime.now(UTC) - timedelta(minutes=5)
        self.authority = cert.Authority(cert.new_ca(ca_key, network, name, "ca@example.org", self.now), ca_key)
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.issued = 0
        self.url = ""

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]

    @property
    def fingerprint(self) -> str:
        return cert.fingerprint(self.authority.trust.ca, "sha256").hex()

    def answer(self, method: str, arguments: dict[str, str]) -> tuple[int, bytes]:
        self.calls.append((method, arguments))
        if method in self.answers:
            return self.answers[method]
        if method == "getCa":
            return 200, cert.to_pem(self.authority.trust.ca)
        if method == "requestToken":
            return 204, b""
        if method == "hello":  # it knows nobody
            return 404, b""
        if method == "presentCertificate":
            return 400, b""
        if arguments["token"] not in ("", TOKEN):
            return 204, b""
        request = cert.load_request(arguments["req"].encode())
        return 200, cert.to_pem(self.issue(request.subject, self.authority.check_request(request)))

    def issue(self, fields: x509.Name, key: rsa.RSAPublicKey) -> x509.Certificate:
        self.issued += 1
        subject = cert.subject_for(fields, self.issued, Prefix(120 + self.issued, 16))
        return self.authority.issue(subject, key, self.issued, self.now)


def serve(registry: Registry) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            arguments = dict(parse_qsl(parts.query, keep_blank_values=True))
            status, body = registry.answer(parts.path.strip("/"), arguments)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


class Run:
    """What a run printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err
        assert all(line.startswith("re6st-conf: ") for line in err.splitlines() if line), err


RunConf = Callable[..., Run]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save_key(here: Path, key: rsa.RSAPrivateKey) -> None:
    disk.write_private(here / "cert.key", cert.key_to_pem(key))


def fields_of(path: Path) -> list[tuple[x509.ObjectIdentifier, str | bytes]]:
    subject = cert.load_pem(path.read_bytes()).subject
    return [(a.oid, a.value) for a in subject if a.oid not in cert.RESERVED_FIELDS]
