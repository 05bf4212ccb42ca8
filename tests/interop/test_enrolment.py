"""Machines enrol across the two implementations, and a registry's database changes hands."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.client.files import Files
from re6st.client.registry_client import RegistryClient, RegistryRefused
from re6st.client.rekey import change_key
from re6st.core.wire import params
from re6st.keys import pki

T = TypeVar("T")


def node(folder: Path) -> cert.Identity:
    """Who enrolled in a folder: the files fit together, and the key is private."""
    assert (folder / "cert.key").stat().st_mode & 0o777 == 0o600
    return cert.Identity.load(folder / "ca.crt", folder / "cert.crt", folder / "cert.key", datetime.now(UTC))


def place(folder: Path) -> Files:
    return Files(folder / "ca.crt", folder / "cert.crt", folder / "cert.key")


def call(url: str, identity: cert.Identity | None, do: Callable[[RegistryClient], Awaitable[T]]) -> T:
    async def main() -> T:
        return await do(RegistryClient(url, identity, timeout=30))

    return asyncio.run(main())


def add_token(url: str, token: str) -> None:
    call(url, None, lambda client: client.call("addToken", email="alice@example.org", token=token))


def is_token(url: str, token: str) -> bool:
    return call(url, None, lambda client: client.call("isToken", token=token)) is not None


def parameters(url: str, identity: cert.Identity) -> params.Parameters:
    def decrypt(data: bytes) -> bytes:
        return cert.decrypt(identity.key, data)

    return params.decode(call(url, identity, lambda client: client.get_network_config()), decrypt)


@pytest.fixture(params=["ours", "theirs"])
def registry(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("our_registry" if request.param == "ours" else "their_registry")


@pytest.fixture(params=["our conf", "their conf"])
def conf(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("our_conf" if request.param == "our conf" else "their_conf")


def test_enrol(registry: Any, conf: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Anonymously and by token, in every pairing of registry and re6st-conf."""
    with registry.running():
        done = conf(registry.url, tmp_path / "a", "--anonymous", "-r", "O", "Example Corp.")
        assert done.returncode == 0, done.stderr
        first = node(tmp_path / "a")
        assert first.prefix.cn == "0/20"
        assert "2001:db8:42::/68 (CN=0/20)" in done.stdout.splitlines()[-1]
        assert first.cert.version is x509.Version.v1
        assert first.cert.serial_number == 1
        subject = [(a.oid, a.value) for a in first.cert.subject]
        assert subject[0] == (NameOID.ORGANIZATION_NAME, "Example Corp.")
        assert subject[1:] == [(NameOID.SERIAL_NUMBER, "0"), (NameOID.COMMON_NAME, "0/20")]

        add_token(registry.url, "abcdefgh")
        assert is_token(registry.url, "abcdefgh")
        fingerprint = f"sha256:{cert.fingerprint(first.trust.ca, 'sha256').hex()}"
        done = conf(registry.url, tmp_path / "b", "--token", "abcdefgh", "--fingerprint", fingerprint)
        assert done.returncode == 0, done.stderr
        second = node(tmp_path / "b")
        assert second.prefix.cn == "1/16"
        assert cert.number_of_cert(second.cert) == 1
        assert not is_token(registry.url, "abcdefgh")

        done = conf(registry.url, tmp_path / "c", "--token", "abcdefgh")
        assert done.returncode == 1
        assert not (tmp_path / "c" / "cert.crt").exists()
        done = conf(registry.url, tmp_path / "d", "--anonymous", "--fingerprint", "sha1:" + "00" * 20)
        assert done.returncode == 1
        assert list((tmp_path / "d").iterdir()) == []

        for identity in (first, second):
            got = parameters(registry.url, identity)
            assert got.registry_prefix == first.prefix
            assert got.hello == 7
            assert params.version_number(got.version) == 1
            assert params.check_version(got.version, identity.verify_version)
            assert got.babel_hmac_sign is not None
        # Enrolled again in the same folder: same key, same fields. Ours wants to be told that this is meant.
        force: list[str] = []
        if "our conf" in request.node.callspec.params.values():
            done = conf(registry.url, tmp_path / "a", "--anonymous")
            assert done.returncode == 0, done.stderr
            assert node(tmp_path / "a").prefix == first.prefix
            force = ["--force"]
        done = conf(registry.url, tmp_path / "a", "--anonymous", *force)
        assert done.returncode == 0, done.stderr
        again = node(tmp_path / "a")
        assert again.key.private_numbers() == first.key.private_numbers()
        assert again.cert.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "Example Corp."
        assert again.prefix != first.prefix


def test_our_conf_with_a_mailed_token(registry: Any, our_conf: Any, tmp_path: Path) -> None:
    with registry.running():
        done = our_conf(registry.url, tmp_path / "a", "--email", "alice@example.org")
        assert done.returncode == 1
        assert "run again with --token" in done.stderr
        assert "alice@example.org" in registry.mailbox.read_text()
        assert our_conf(registry.url, tmp_path / "a", "--token", registry.mailed_token()).returncode == 0
        assert node(tmp_path / "a").prefix.cn == "0/16"


def test_their_conf_with_a_mailed_token(our_registry: Any, their_conf_command: list[str], tmp_path: Path) -> None:
    """It asks for the token, so it is given one while it runs."""
    folder = tmp_path / "a"
    folder.mkdir()
    with our_registry.running():
        command = [*their_conf_command, "--registry", our_registry.url, "--email", "alice@example.org"]
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            # The prompt comes when the mail is out.
            shown = ""
            while "token" not in shown.lower():
                character = process.stdout.read(1)
                assert character, shown
                shown += character
            _, errors = process.communicate(our_registry.mailed_token() + "\n", timeout=60)
        assert process.returncode == 0, errors
    assert node(folder).prefix.cn == "0/16"


def test_a_session_with_their_registry(their_registry: Any, our_conf: Any, tmp_path: Path) -> None:
    async def calls(client: RegistryClient) -> None:
        before = await client.get_network_config()
        assert await client.get_dh() == (their_registry.folder / "dh.pem").read_bytes()
        assert await client.renew_certificate() == identity.cert, "not yet time"
        assert await client.get_bootstrap_peer() is None, "no node runs"
        assert params.decode(await client.get_network_config(), decrypt) == params.decode(before, decrypt)

    async def over_a_restart(client: RegistryClient) -> None:
        with their_registry.running():
            await client.get_dh()
        with their_registry.running():
            await client.get_dh()

    def decrypt(data: bytes) -> bytes:
        return cert.decrypt(identity.key, data)

    with their_registry.running():
        assert our_conf(their_registry.url, tmp_path / "a", "--anonymous").returncode == 0
        identity = node(tmp_path / "a")
        call(their_registry.url, identity, calls)
    call(their_registry.url, identity, over_a_restart)


def test_revocation(registry: Any, our_conf: Any, tmp_path: Path) -> None:
    with registry.running():
        url = registry.url
        for name in ("a", "b"):
            assert our_conf(url, tmp_path / name, "--anonymous").returncode == 0
        first, second = node(tmp_path / "a"), node(tmp_path / "b")
        before = parameters(url, first)

        serial = second.cert.serial_number
        call(url, None, lambda client: client.call("revoke", cn_or_serial=str(serial)))
        revoked = parameters(url, first)
        assert revoked.crl == {serial}
        assert revoked.version > before.version
        assert params.check_version(revoked.version, first.verify_version)
        renewed = call(url, second, lambda client: client.renew_certificate())
        assert renewed.serial_number == serial + 1
        assert pki.end_of(renewed) == pki.end_of(second.cert)

        call(url, None, lambda client: client.call("revoke", cn_or_serial=second.prefix.cn))
        with pytest.raises(RegistryRefused) as error:
            parameters(url, second)
        assert error.value.status in (404, 500), "500 by the release on PyPI"
        assert parameters(url, first).crl == {serial, serial + 1}


def test_their_registry_cannot_change_a_key(their_registry: Any, our_conf: Any, tmp_path: Path) -> None:
    with their_registry.running():
        assert our_conf(their_registry.url, tmp_path / "a", "--anonymous").returncode == 0
        before = node(tmp_path / "a")
        done = subprocess.run(
            [sys.executable, "-m", "re6st.cli.conf.main", "rekey", "--dir", tmp_path / "a"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 5
        assert "cannot change a key: it runs an older version, or other software" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert node(tmp_path / "a").der == before.der
        assert call(their_registry.url, before, lambda client: client.renew_certificate()) == before.cert


def test_a_database_changes_hands_and_back(
    their_registry: Any, our_registry: Any, our_conf: Any, their_conf: Any, tmp_path: Path
) -> None:
    """A network that began with the deployed registry goes on with ours, and may go back."""
    identities: list[cert.Identity] = []

    def enrol(registry: Any, conf: Any, *arguments: str) -> None:
        folder = tmp_path / f"node{len(identities)}"
        done = conf(registry.url, folder, *arguments)
        assert done.returncode == 0, done.stderr
        identities.append(node(folder))

    def check(registry: Any) -> params.Parameters:
        """Everybody is known: a session, the same certificate, the same parameters."""
        for identity in identities:
            assert call(registry.url, identity, lambda client: client.renew_certificate()) == identity.cert
        return parameters(registry.url, identities[0])

    with their_registry.running():
        enrol(their_registry, their_conf, "--anonymous")
        add_token(their_registry.url, "abcdefgh")
        add_token(their_registry.url, "zyxwvuts")
        enrol(their_registry, their_conf, "--token", "abcdefgh")
        enrol(their_registry, our_conf, "--anonymous")
        revoked = identities.pop()
        call(their_registry.url, None, lambda client: client.call("revoke", cn_or_serial=revoked.prefix.cn))
        before = check(their_registry)
    with our_registry.running():
        after = check(our_registry)
        assert (after.babel_hmac_sign, after.crl) == (before.babel_hmac_sign, before.crl)
        assert after.registry_prefix == identities[0].prefix
        assert params.version_number(after.version) >= params.version_number(before.version)
        enrol(our_registry, their_conf, "--token", "zyxwvuts")
        enrol(our_registry, our_conf, "--anonymous")
        files = place(tmp_path / "node3")
        identities[-1] = asyncio.run(change_key(our_registry.url, files))
        assert not pki.same_key(identities[-1].key.public_key(), revoked.key.public_key())
        between = check(our_registry)
        assert between.crl == {*before.crl, identities[-1].cert.serial_number - 1}
    with their_registry.running():
        last = check(their_registry)
        assert last.version >= between.version
        enrol(their_registry, our_conf, "--anonymous")
        check(their_registry)
    with our_registry.running():
        check(our_registry)
        enrol(our_registry, our_conf, "--anonymous")
    serials = [identity.cert.serial_number for identity in identities]
    assert serials == sorted(set(serials))
    assert serials[2] == revoked.cert.serial_number + 1
    for number, one in enumerate(identities):
        for other in identities[:number]:
            assert not one.prefix.contains(other.prefix)
            assert not other.prefix.contains(one.prefix)
