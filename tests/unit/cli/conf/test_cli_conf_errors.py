"""re6st-conf with wrong options, wrong files and wrong answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.cli.conf import main as conf
from re6st.core.prefix import Prefix
from re6st.keys import pki
from re6st.linux import disk
from tests.unit.enrolment_place import NETWORK, TOKEN, Registry, RunConf, names, save_key

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


def test_a_registry_that_says_nothing_is_given_up_and_the_user_sees_at_once_who_is_asked(
    run: RunConf, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conf.FIRST_ANSWER == 10
    monkeypatch.setattr(conf, "FIRST_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = run("--anonymous", url=url)
    assert result.code == 3
    assert result.out == f"Registry {url}: asking it for the CA of the network ...\n"
    assert "no answer within 0.2 s" in result.err
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
        "its CA did not sign it": forger.issue(subject, key.public_key(), 1, registry.now),
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
