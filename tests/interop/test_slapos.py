"""What SlapOS does with a registry: its Python interface, against both kinds, and its configuration, as it is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from re6st import cert
from re6st import registry as module
from re6st.client.registry_client import RegistryRefused
from tests.interop.conftest import ours
from tests.interop.test_enrolment import node

EMAIL, TOKEN = "softinst-58770@slapos", "58770abcdefghijklmnopqrst"
OTHER_EMAIL, OTHER_TOKEN = "softinst-58771@slapos", "58771abcdefghijklmnopqrst"
DEADLINE = 60.0


@pytest.fixture(params=["ours", "theirs"])
def registry(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("our_registry" if request.param == "ours" else "their_registry")


def manage(url: str, our_conf: Any, folder: Path) -> None:
    """What the recipe does in the life of an instance, call by call, each result as it compares it."""
    client = module.RegistryClient(url)
    assert client.addToken(EMAIL, TOKEN) == b"", "not yet taken for a success"
    assert client.addToken(EMAIL, TOKEN) is None, "five minutes later: TOKEN_ADDED"
    assert client.isToken(str(TOKEN)) == b"1"
    assert client.getIPv6Address(EMAIL) == b""
    assert our_conf(url, folder / "a", "--token", TOKEN).returncode == 0
    assert not client.isToken(str(TOKEN)), "TOKEN_USED"
    network = cert.Trust(cert.load_pem((folder / "a/ca.crt").read_bytes())).network
    ipv6 = client.getIPv6Address(str(EMAIL))
    assert ipv6 is not None
    assert ipv6.decode().startswith(str(network.network_address).rstrip(":"))
    ipv4 = client.getIPv4Information(str(EMAIL))
    assert (ipv4 or b"").decode() == "", "no node runs here"

    assert client.addToken(OTHER_EMAIL, OTHER_TOKEN) == b""
    assert our_conf(url, folder / "b", "--token", OTHER_TOKEN).returncode == 0
    prefix = client.getNodePrefix(OTHER_EMAIL)
    assert prefix == node(folder / "b").prefix.cn.encode()
    assert client.deleteToken(OTHER_TOKEN) == b""
    assert client.revoke(prefix) == b"", "its CN in bytes, as getNodePrefix gave it"
    assert client.getNodePrefix(OTHER_EMAIL) == b""
    assert client.deleteToken("never there") == b""


def test_the_recipe_of_slapos_manages_tokens(registry: Any, our_conf: Any, tmp_path: Path) -> None:
    with registry.running():
        manage(registry.url, our_conf, tmp_path)


def test_calls_of_nodes_work_in_a_session(registry: Any, our_conf: Any, tmp_path: Path) -> None:
    with registry.running():
        assert our_conf(registry.url, tmp_path / "a", "--anonymous").returncode == 0
        identity = node(tmp_path / "a")
        client = module.RegistryClient(registry.url, identity)
        assert client.getDh(identity.prefix.bits) == (registry.folder / "dh.pem").read_bytes()
        assert client.renewCertificate() == (tmp_path / "a/cert.crt").read_bytes()
        assert client.getNetworkConfig(identity.prefix.bits.encode())
        assert client.getCa() == (registry.folder / "ca.crt").read_bytes()
        assert client.updateHMAC() == b""
        assert client.revoke(identity.cert.serial_number) == b""
        for answer in (client.versions(), client.topology()):
            assert isinstance(json.loads(answer or b""), dict)
        with pytest.raises(ValueError, match="identity is that of"):
            client.getDh("1" * 16)


def test_only_a_refusal_for_want_of_rights_is_raised(registry: Any, caplog: pytest.LogCaptureFixture) -> None:
    registry.command += ["--prefix-length", "0"]
    with registry.running():
        client = module.RegistryClient(registry.url)
        with pytest.raises(RegistryRefused) as error:
            client.addToken(EMAIL, TOKEN)
        assert error.value.status == 403
        assert client.revoke("no CN") is None
        assert client.revoke(987654321) is None
    caplog.clear()
    assert client.isToken(TOKEN) is None, "nobody listens"
    assert "isToken" in caplog.text
    with pytest.raises(ValueError, match="identity"):
        client.getDh()


# --- the configuration of its registry, as its software release writes it ---


def slapos_conf(folder: Path, port: int, *more: str) -> Path:
    """All that it may write: here nobody has IPv6, and the mail host is its default."""
    lines = (
        f"port {port}",
        "4 127.0.0.1",
        "6 ''",
        "authorized-origin 127.0.0.1",
        f"db {folder}/registry.db",
        f"ca {folder}/re6stnet.crt",
        f"key {folder}/re6stnet.key",
        f"dh {folder}/dh.pem",
        "ipv4 10.42.0.0/16 8",
        "client-count 10",
        "tunnel-refresh 300",
        "hello 15",
        "mailhost 127.0.0.1",
        "prefix-length 16",
        "anonymous-prefix-length 0",
        f"logfile {folder}/registry.log",
        "verbose 2",
        f"run {folder}/run",
        "min-protocol 1",
        "encrypt",
        "max-clients 20",
        "grace-period 8640000",
        *more,
    )
    path = folder / "re6st-registry.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def make_authority(folder: Path, bits: str, serial: str) -> None:
    """As its recipe does it: neither a common name nor an e-mail address."""
    key, crt = folder / "re6stnet.key", folder / "re6stnet.crt"
    subprocess.run(["openssl", "genrsa", "-out", key, bits], check=True, capture_output=True)
    request = ["openssl", "req", "-nodes", "-new", "-x509", "-batch", "-set_serial", serial, "-days", "3650"]
    subprocess.run([*request, "-key", key, "-out", crt], check=True, capture_output=True)
    (folder / "dh.pem").write_text("-----BEGIN DH PARAMETERS-----\nMAYCAQ8CAQI=\n-----END DH PARAMETERS-----\n")
    (folder / "run").mkdir()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(folder: Path, conf: Path, port: int, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with open(folder / "access.log", "ab") as access:
        process = subprocess.Popen(
            [*ours("re6st.cli.registry.main"), f"@{conf}"], stderr=access, env={**os.environ, **environment}
        )
        url, end = f"http://127.0.0.1:{port}/", time.monotonic() + DEADLINE
        try:
            while True:
                assert process.poll() is None, (folder / "access.log").read_text()
                assert time.monotonic() < end
                try:
                    with urllib.request.urlopen(url + "getCa", timeout=5):
                        break
                except OSError:
                    time.sleep(0.05)
            yield url, process
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    folder = tmp_path / "partition"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("bits", "serial"), [("2048", "0x120010db80024"), ("1024", "0x1fc01"), ("2048", "0xfe")])
def test_the_registry_of_slapos_starts_as_it_is(
    partition: Path, our_conf: Any, tmp_path: Path, bits: str, serial: str
) -> None:
    """Also with a short key, and with the wide networks of its guide."""
    make_authority(partition, bits, serial)
    conf = slapos_conf(partition, port := free_port())
    with serving(partition, conf, port) as (url, process):
        manage(url, our_conf, tmp_path)
        with pytest.raises(RegistryRefused) as refused:
            module.RegistryClient(url).requestToken("alice@example.org")
        assert refused.value.status == 403, "nobody waits for a mail that cannot be sent"
        with urllib.request.urlopen(url, timeout=5) as page:
            assert page.read(), "its promise: something answers"
        listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
        own = [line.split()[3] for line in listening if f"pid={process.pid}," in line]
        assert own == [f"127.0.0.1:{port}"], "no port or page that nobody asked for"
        dump = subprocess.run(["sqlite3", partition / "registry.db", ".dump"], capture_output=True, check=True)
        assert EMAIL.encode() in dump.stdout, "its hourly copy, while the registry serves"
        (partition / "registry.log").rename(partition / "registry.log.1")
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: (partition / "registry.log").exists())
    log = (partition / "registry.log.1").read_text()
    assert "--mailhost: the CA" in log
    assert "emailAddress" in log
    assert process.returncode == 0


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_proxy_on_the_machine_passes_nothing_on_as_the_operators(partition: Path) -> None:
    """Its Apache listens for all, and says in X-Forwarded-For for whom it asks; its recipe asks the registry itself."""
    make_authority(partition, "2048", "0x120010db80024")
    conf = slapos_conf(partition, port := free_port())
    with serving(partition, conf, port) as (url, _):

        def call(path: str, **headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            try:
                with urllib.request.urlopen(urllib.request.Request(url + path, headers=named), timeout=10) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        add = f"addToken?email={EMAIL}&token={TOKEN}"
        apache = {"X_Forwarded_Host": "[2001:db8::1]:9026", "X_Forwarded_Server": "example.org"}
        assert call(add, X_Forwarded_For="2001:db8::66", **apache) == 403
        assert call("getCa", X_Forwarded_For="2001:db8::66", **apache) == 200
        assert call(add) == 204
