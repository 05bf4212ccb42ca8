"""re6st-conf as a user meets it, with a registry of a few lines in a thread."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Network
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.cli.conf import main as conf
from re6st.cli.node import main as node
from re6st.core.prefix import Prefix
from re6st.keys import pki
from re6st.linux import disk

NETWORK = IPv6Network("2001:db8:42::/48")
TOKEN = "qwertzui"


@pytest.fixture(scope="session")
def ca_key() -> rsa.RSAPrivateKey:
    return cert.new_key()


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    return cert.new_key()


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


@pytest.fixture
def registry(ca_key: rsa.RSAPrivateKey) -> Iterator[Registry]:
    registry = Registry(ca_key)
    with serve(registry) as server:
        yield registry
        server.shutdown()


class Run:
    """What a run printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err
        assert all(line.startswith("re6st-conf: ") for line in err.splitlines() if line), err


RunConf = Callable[..., Run]


@pytest.fixture
def run(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> RunConf:
    """Runs re6st-conf at the registry, in the folder `here`."""
    here = tmp_path / "here"
    here.mkdir()

    def run(*arguments: str, url: str | None = None) -> Run:
        where = [] if url == "" else ["--registry", url or registry.url]
        try:
            code = conf.main([*where, "--dir", str(here), *arguments])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 99
        out, err = capsys.readouterr()
        return Run(code, out, err)

    return run


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Gives the program a terminal with these answers; returns the prompts it shows."""

    def prepare(*answers: str | type[BaseException]) -> list[str]:
        prompts: list[str] = []
        left = list(answers)

        def ask(prompt: str) -> str:
            prompts.append(prompt)
            answer = left.pop(0)
            if isinstance(answer, str):
                return answer
            raise answer

        monkeypatch.setattr("builtins.input", ask)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        return prompts

    return prepare


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save_key(here: Path, key: rsa.RSAPrivateKey) -> None:
    disk.write_private(here / "cert.key", cert.key_to_pem(key))


def fields_of(path: Path) -> list[tuple[x509.ObjectIdentifier, str | bytes]]:
    subject = cert.load_pem(path.read_bytes()).subject
    return [(a.oid, a.value) for a in subject if a.oid not in cert.RESERVED_FIELDS]


# --- enrolment ---


def test_anonymous(run: RunConf, registry: Registry, here: Path) -> None:
    result = run("--anonymous")
    assert result.code == 0
    assert names(here) == ["ca.crt", "cert.crt", "cert.key", "re6stnet.conf"]
    assert (here / "cert.key").stat().st_mode & 0o777 == 0o600
    identity = cert.Identity.load(here / "ca.crt", here / "cert.crt", here / "cert.key", datetime.now(UTC))
    assert identity.prefix.cn == "121/16"
    assert identity.key.key_size == 2048
    assert (here / "re6stnet.conf").read_text().splitlines()[:4] == [
        f"registry {registry.url}",
        "ca ca.crt",
        "cert cert.crt",
        "key cert.key",
    ]
    assert "country" not in (here / "re6stnet.conf").read_text()
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == ["CA", "Key", "Request", "Cert", "Config", "Next", "Subnet"]
    assert '"Example mesh", network 2001:db8:42::/48' in lines[0]
    assert "back it up" in lines[1]
    assert "2001:db8:42:79::/64 (CN=121/16)" in lines[-1]
    end = pki.end_of(identity.cert)
    assert f"valid until {end:%Y-%m-%dT%H:%MZ}" in lines[3]
    assert f"{end - timedelta(days=30):%Y-%m-%d}" in lines[3]
    assert f"sha256:{registry.fingerprint}" in result.err
    assert "warning" in result.err
    assert registry.methods == ["getCa", "requestCertificate"]
    assert registry.calls[1][1].keys() == {"token", "req", "location", "ip"}


def test_token_fields_and_location(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    result = run(
        *("--token", TOKEN, "--fingerprint", f"sha256:{registry.fingerprint}", "--location", "FR,EU"),
        *("-r", "O", "Example Corp.", "--req", "emailAddress", "a@example.org"),
    )
    assert (result.code, result.err) == (0, "")
    assert fields_of(here / "cert.crt") == [
        (NameOID.ORGANIZATION_NAME, "Example Corp."),
        (NameOID.EMAIL_ADDRESS, "a@example.org"),
    ]
    assert registry.calls[1][1]["token"] == TOKEN
    assert registry.calls[1][1]["location"] == "FR,EU"
    assert "country FR" in (here / "re6stnet.conf").read_text().splitlines()


def test_the_sample_is_as_re6stnet_takes_it(
    run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey
) -> None:
    save_key(here, key)
    run("--anonymous", "--location", "FR,EU")
    sample = here / "re6stnet.conf"
    values = node.parser().parse([f"@{sample}"])
    assert (values.registry, values.country) == (registry.url, "FR")
    # The options it only suggests are good ones, too; a comment of words has a blank after its #.
    sample.write_text(re.sub(r"^#(?=\S)", "", sample.read_text(), flags=re.MULTILINE))
    values = node.parser().parse([f"@{sample}"])
    assert (values.verbose, values.ovpnlog, values.interface) == (3, True, ["eth0"])


def test_join_takes_all_from_one_paste(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    result = run("--join", f"{registry.url}#sha256:{registry.fingerprint},token={TOKEN}", url="")
    assert (result.code, result.err) == (0, "")
    assert registry.calls[1][1]["token"] == TOKEN
    assert "#" not in (here / "re6stnet.conf").read_text().splitlines()[0]
    assert run("--join", f"{registry.url}#sha256:{'0' * 64},token={TOKEN}", url="").code == 1
    assert run("--join", registry.url).code == 2


def test_join_as_a_mail_program_gives_it(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    digits = registry.fingerprint.upper()
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    for text in (
        f"<{registry.url}#sha256:{digits[:20]}\n   {digits[20:]},\n   token={TOKEN}>.\n",
        f"{registry.url}#sha256 Fingerprint={colons},\u00a0token={TOKEN}",
        f"“{registry.url}#{digits}, token={TOKEN}”",
    ):
        result = run("--force", "--join", text, url="")
        assert (result.code, result.err) == (0, "")
        assert registry.calls[-1][1]["token"] == TOKEN
    assert (here / "re6stnet.conf").read_text().splitlines()[0] == f"registry {registry.url}"


def test_nothing_is_written_where_the_subject_cannot_be(
    run: RunConf, registry: Registry, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no such letter")

    monkeypatch.setattr(cert, "new_request", refuse)
    result = run("--anonymous", "-r", "O", "Example")
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last == "re6st-conf: the subject of the certificate: no such letter. Nothing was written."
    assert names(here) == []


def test_a_second_run_keeps_key_fields_and_configuration(run: RunConf, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    assert run("--anonymous", "-r", "O", "Corp", "-r", "OU", "Unit", "-r", "L", "Lille").code == 0
    (here / "re6stnet.conf").write_text("mine")
    before = (here / "cert.key").read_bytes()
    result = run("--force", "--anonymous", "-r", "OU", "", "-r", "L", "Paris")
    assert result.code == 0
    assert (here / "cert.key").read_bytes() == before
    assert "existing one used again" in result.out
    assert (here / "re6stnet.conf").read_text() == "mine"
    assert fields_of(here / "cert.crt") == [(NameOID.ORGANIZATION_NAME, "Corp"), (NameOID.LOCALITY_NAME, "Paris")]
    assert "CN=122/16" in result.out


@pytest.mark.parametrize("status", [404, 500])
def test_a_registry_that_proves_nothing_is_not_asked_for_another_subnet_without_force(
    run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey, status: int
) -> None:
    save_key(here, key)
    assert run("--anonymous").code == 0
    before = (here / "cert.crt").read_bytes()
    registry.answers["hello"] = status, b""
    result = run("--token", TOKEN)
    assert result.code == 1
    assert "does not seem to know this machine as 121/16 any more" in result.err
    assert "Give --force" in result.err
    assert (here / "cert.crt").read_bytes() == before
    assert registry.methods.count("requestCertificate") == 1


# --- the CA ---


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "SHA512", "md5", "sha3_256"])
def test_fingerprint_of_any_hash(run: RunConf, registry: Registry, here: Path, algorithm: str) -> None:
    digest = cert.fingerprint(registry.authority.trust.ca, algorithm.lower()).hex(":").upper()
    result = run("--ca-only", "--fingerprint", f"{algorithm}:{digest}")
    assert (result.code, result.err) == (0, "")
    assert names(here) == ["ca.crt"]


def test_wrong_fingerprint_writes_nothing(run: RunConf, registry: Registry, here: Path) -> None:
    for arguments in (["--anonymous"], ["--ca-only"], ["--is-needed"], ["--token", TOKEN]):
        result = run(*arguments, "--fingerprint", "sha256:" + "3f" * 32)
        assert result.code == 1
        assert f"CA fingerprint is sha256:{registry.fingerprint}, expected sha256:3f3f" in result.err
        assert "Nothing was written" in result.err
        assert names(here) == []
    assert set(registry.methods) == {"getCa"}


@pytest.mark.parametrize("form", ["sha256 Fingerprint={}", "SHA256 Fingerprint={}\n", "{}", "sha256:{}"])
def test_a_fingerprint_as_openssl_prints_it(run: RunConf, registry: Registry, form: str) -> None:
    digest = cert.fingerprint(registry.authority.trust.ca, "sha256").hex(":").upper()
    assert run("--ca-only", "--fingerprint", form.format(digest)).code == 0
    assert run("--ca-only", "--fingerprint", form.format("00" + digest[2:])).code == 1


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", "sha256:xyz", "sha256:1234", "nosuch:1234", ":12", "shake_128:", "sha256:é"]
)
def test_malformed_fingerprint_is_a_usage_error(run: RunConf, registry: Registry, text: str) -> None:
    result = run("--anonymous", "--fingerprint", text)
    assert result.code == 2
    assert "fingerprint" in result.err
    assert registry.methods == []


def test_an_unchecked_ca_must_be_the_one_we_know(
    run: RunConf, here: Path, key: rsa.RSAPrivateKey, registry: Registry
) -> None:
    (here / "ca.crt").write_bytes(cert.to_pem(cert.new_ca(key, NETWORK, "old", "o@example.org", registry.now)))
    before = (here / "ca.crt").read_bytes()
    result = run("--anonymous")
    assert result.code == 1
    assert "another one than" in result.err
    assert (here / "ca.crt").read_bytes() == before
    assert run("--ca-only", "--fingerprint", f"sha256:{registry.fingerprint}").code == 0
    assert (here / "ca.crt").read_bytes() != before


def test_is_needed(run: RunConf, here: Path) -> None:
    # No route to the documentation prefix leads from an address in it.
    result = run("--is-needed")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert names(here) == []


def test_is_not_needed_inside(run: RunConf, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of which routes it is told: tests/network/test_is_needed.py
    monkeypatch.setattr(conf, "is_inside", lambda network: network == NETWORK)
    result = run("--is-needed")
    assert (result.code, result.out, result.err) == (1, "", "")
    assert names(here) == []


def test_a_name_that_plays_with_the_terminal(run: RunConf, registry: Registry, ca_key: rsa.RSAPrivateKey) -> None:
    registry.authority = Registry(ca_key, name="\x1b[2Jmesh\n").authority
    result = run("--ca-only")
    assert '"?[2Jmesh?"' in result.out


def test_something_that_is_no_ca(run: RunConf, registry: Registry, here: Path) -> None:
    registry.answers["getCa"] = 200, b"<html>hello</html>"
    result = run("--anonymous")
    assert result.code == 1
    assert "bad answer to getCa" in result.err
    assert names(here) == []


def test_a_ca_without_a_network(run: RunConf, registry: Registry, here: Path, ca_key: rsa.RSAPrivateKey) -> None:
    ca = registry.authority.issue(registry.authority.trust.ca.subject, ca_key.public_key(), 1, registry.now)
    registry.answers["getCa"] = 200, cert.to_pem(ca)
    result = run("--anonymous")
    assert result.code == 1
    assert "holds no IPv6 prefix" in result.err
    assert names(here) == []


# --- tokens ---


def test_unknown_token(run: RunConf, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    result = run("--token", "wrong")
    assert result.code == 1
    assert 'token "wrong" unknown, used or expired' in result.err
    assert "Ask the operator of the network for another invitation" in result.err
    assert names(here) == ["ca.crt", "cert.key"]


def test_a_failure_leaves_the_old_certificate(
    run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey
) -> None:
    save_key(here, key)
    run("--anonymous")
    before = (here / "cert.crt").read_bytes()
    assert run("--force", "--token", "wrong").code == 1
    registry.answers["requestCertificate"] = 500, b""
    result = run("--force", "--token", TOKEN)
    assert result.code == 5
    assert "requestCertificate refused: 500" in result.err
    assert (here / "cert.crt").read_bytes() == before
    assert len(names(here)) == 4


def test_token_by_mail(run: RunConf, registry: Registry, terminal: Callable[..., list[str]], here: Path) -> None:
    prompts = terminal("alice@example.org", f" {TOKEN}\n")
    assert run().code == 0
    assert registry.calls[1] == ("requestToken", {"email": "alice@example.org"})
    assert registry.calls[2][1]["token"] == TOKEN
    assert len(prompts) == 2


def test_a_mailed_token_is_not_lost_by_a_failure(
    run: RunConf, registry: Registry, terminal: Callable[..., list[str]], here: Path, key: rsa.RSAPrivateKey
) -> None:
    save_key(here, key)
    terminal(TOKEN)
    registry.answers["requestCertificate"] = 500, b""
    result = run("--email", "alice@example.org")
    assert result.code == 5
    assert f"--token {TOKEN}" in result.err


def test_without_terminal_nothing_is_asked(
    run: RunConf, registry: Registry, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.setattr("builtins.input", lambda _prompt: pytest.fail("asked"))
    result = run()
    assert result.code == 2
    assert "give --token or --anonymous" in result.err
    assert registry.methods == ["getCa"]
    result = run("--email", "alice@example.org")
    assert result.code == 1
    assert "run again with --token" in result.err
    assert registry.methods == ["getCa", "getCa", "requestToken"]
    assert names(here) == []


def test_nothing_is_asked_of_who_does_not_want_to_be(
    run: RunConf, registry: Registry, terminal: Callable[..., list[str]], here: Path
) -> None:
    prompts = terminal("alice@example.org", TOKEN)
    assert run("--non-interactive").code == 2
    result = run("--non-interactive", "--email", "alice@example.org")
    assert result.code == 1
    assert "(--non-interactive): run again with --token" in result.err
    assert prompts == []
    assert names(here) == []


def test_a_token_in_a_file(
    run: RunConf,
    registry: Registry,
    here: Path,
    tmp_path: Path,
    key: rsa.RSAPrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_key(here, key)
    file = tmp_path / "token"
    file.write_text(f"\ufeff\n\u00a0“{TOKEN}”\r\n")
    assert run("--non-interactive", "--token-file", str(file)).code == 0
    assert registry.calls[-1][1]["token"] == TOKEN
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{TOKEN}\r\n".encode())))
    joining = ("--join", f"{registry.url}#sha256:{registry.fingerprint}")
    assert run("--force", *joining, "--token-file", "-", url="").code == 0
    assert registry.calls[-1][1]["token"] == TOKEN


@pytest.mark.parametrize("content", [b"", b"one two", b"\xff\xfe", None])
def test_a_token_file_that_is_none(run: RunConf, registry: Registry, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    result = run("--token-file", str(file))
    assert result.code == 2
    assert f"--token-file {file}: " in result.err
    assert registry.methods == []


@pytest.mark.parametrize(("answer", "code"), [("", 1), (EOFError, 1), (KeyboardInterrupt, 130)])
def test_no_answer_at_the_prompt(
    run: RunConf, terminal: Callable[..., list[str]], here: Path, answer: str | type[BaseException], code: int
) -> None:
    terminal(answer)
    assert run("--email", "alice@example.org").code == code
    assert names(here) == []


def test_enrolment_by_mail_is_closed(run: RunConf, registry: Registry, here: Path) -> None:
    registry.answers["requestToken"] = 403, b""
    result = run("--email", "alice@example.org")
    assert result.code == 5
    assert "takes no enrolment by mail" in result.err
    assert "--anonymous" not in result.err, "it is likely to be closed as well"
    assert names(here) == []


def test_a_registry_that_cannot_send_mails_is_said_to_be_one(run: RunConf, registry: Registry, here: Path) -> None:
    registry.answers["requestToken"] = 500, b""
    result = run("--email", "alice@example.org")
    assert result.code == 1
    assert "cannot send mails now; its log says why. Ask its operator for an invitation." in result.err
    assert names(here) == []


def test_anonymous_enrolment_is_closed(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    registry.answers["requestCertificate"] = 403, b""
    result = run("--anonymous")
    assert result.code == 5
    assert "takes no anonymous enrolment. Ask its operator for a token." in result.err
    assert names(here) == ["ca.crt", "cert.key"]


# --- wrong options, wrong files, wrong answers ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["--anonymous", "--token", "x"],
        ["--anonymous", "--email", "a@example.org"],
        ["--token", " "],
        ["--anonymous", "--token-file", "x"],
        ["--token", "x", "--token-file", "x"],
        ["--anonymous", "-r", "CN", "1/16"],
        ["--anonymous", "-r", "commonName", ""],
        ["--anonymous", "-r", "serialNumber", "5"],
        ["--anonymous", "-r", "nosuch", "x"],
        ["--anonymous", "-r", "C", "FRANCE"],
        ["--anonymous", "--location", "France"],
        ["--anonymous", "--location", "FR"],
        ["--nosuch"],
        ["surplus"],
        ["--anonymous", "-r", "O", "M\udcf6bius"],
        ["--anonymous", "--registry", "http://m\udcf6bius/"],
    ],
)
def test_usage_errors(run: RunConf, registry: Registry, here: Path, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert registry.methods == []
    assert names(here) == []


def test_the_registry_is_required(run: RunConf) -> None:
    result = run("--anonymous", url="")
    assert result.code == 2
    assert "--registry" in result.err


def test_nobody_there(run: RunConf, here: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    result = run("--anonymous", url=f"http://127.0.0.1:{port}")
    assert result.code == 3
    assert f"registry http://127.0.0.1:{port}: cannot connect: Connection refused" in result.err
    assert run("--anonymous", url="nonsense").code == 2
    result = run("--join", f"127.0.0.1:{port}#sha256:{'0' * 64},token={TOKEN}", url="")
    assert result.code == 2
    assert "--join 127.0.0.1" in result.err
    assert "http://HOST" in result.err
    assert names(here) == []


def test_a_folder_that_is_not_there(run: RunConf, registry: Registry, here: Path) -> None:
    result = run("--anonymous", "--dir", str(here / "nosuch"))
    assert result.code == 1
    assert "no such directory" in result.err
    assert registry.methods == ["getCa"]


@pytest.mark.parametrize("name", ["ca.crt", "cert.key", "cert.crt"])
@pytest.mark.parametrize("content", [b"nonsense", None])
def test_a_file_that_is_none_is_named_before_the_token_is_spent(
    run: RunConf, registry: Registry, here: Path, name: str, content: bytes | None
) -> None:
    path = here / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    result = run("--token", TOKEN)
    assert result.code == 1
    assert name in result.err
    assert registry.methods == ["getCa"]


def test_a_key_of_another_size(run: RunConf, registry: Registry, here: Path) -> None:
    save_key(here, rsa.generate_private_key(65537, 1024))
    result = run("--token", TOKEN)
    assert result.code == 1
    assert "has 1024 bits, this network uses 2048" in result.err
    assert registry.methods == ["getCa"]


def test_a_certificate_that_is_not_ours(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    other = cert.new_key()
    forger = cert.Authority(cert.new_ca(other, NETWORK, "Example mesh", "ca@example.org", registry.now), other)
    subject = cert.subject_for(x509.Name([]), 0, Prefix(1, 16))
    bad = {
        "not for our key": registry.issue(x509.Name([]), other.public_key()),
        "not by its CA": forger.issue(subject, key.public_key(), 1, registry.now),
        "too long for": registry.authority.issue(
            cert.subject_for(x509.Name([]), 0, Prefix(1, 100)), key.public_key(), 1, registry.now
        ),
        "exactly one common name": registry.authority.issue(x509.Name([]), key.public_key(), 1, registry.now),
    }
    for words, certificate in bad.items():
        registry.answers["requestCertificate"] = 200, cert.to_pem(certificate)
        result = run("--token", TOKEN)
        assert result.code == 1
        assert words in result.err
        assert names(here) == ["ca.crt", "cert.key"]


def test_a_clock_that_is_late_is_told(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    registry.now += timedelta(days=2)
    result = run("--anonymous")
    assert result.code == 0
    assert "set the clock" in result.err
    assert (here / "cert.crt").exists()


@pytest.mark.parametrize("name", ["cert.key", "re6stnet.conf"])
def test_files_that_somebody_else_put_there_before_are_not_used(
    run: RunConf, here: Path, key: rsa.RSAPrivateKey, name: str
) -> None:
    """He would have our key, or the options of a service with rights over the network."""
    save_key(here, key)
    (here / "re6stnet.conf").write_text("up touch /tmp/evil\n")
    for mode, owner, why in ((0o666, os.geteuid(), "others may write"), (0o600, 64002, "belongs to the user 64002")):
        os.chown(here / name, owner, owner)
        (here / name).chmod(mode)
        result = run("--token", TOKEN)
        assert result.code == 1
        assert why in result.err
        assert f"{name}" in result.err
        assert not (here / "ca.crt").exists()


def test_a_certificate_that_cannot_be_written_is_shown(
    run: RunConf, here: Path, key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_key(here, key)
    replace = disk.replace_file

    def full(path: Path, data: bytes) -> None:
        if path.name == "cert.crt":
            raise OSError(28, "No space left on device", str(path))
        replace(path, data)

    monkeypatch.setattr(disk, "replace_file", full)
    result = run("--token", TOKEN)
    assert result.code == 1
    assert "No space left on device" in result.err
    shown = result.out[result.out.index("-----BEGIN") :]
    assert pki.same_key(cert.load_pem(shown.encode()).public_key(), key.public_key())


def test_runs_as_a_module() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "re6st.cli.conf.main", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "--fingerprint ALG:HEX" in shown.stdout
    assert "example" in shown.stdout.lower()
