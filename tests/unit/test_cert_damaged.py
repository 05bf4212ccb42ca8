"""Certificates, requests and files that are damaged or planted."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.exceptions import InternalError
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.linux import disk
from tests.unit.certificates import issue

# --- damaged input ---


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return cert.new_key()


def pem(name: str, body: str = "AAAA") -> bytes:
    return f"-----BEGIN {name}-----\n{body}\n-----END {name}-----\n".encode()


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"no pem", pem("CERTIFICATE"), pem("CERTIFICATE", "%"), pem("PRIVATE KEY"), b"\xff" * 99]
)
def test_no_pem_is_one_line(data: bytes) -> None:
    for load in (cert.load_pem, cert.load_private_key):
        with pytest.raises(cert.CertError, match=r"^my\.file: ") as error:
            load(data, "my.file")
        assert "\n" not in str(error.value)
    for reader in (cert.load_der, cert.load_request):
        with pytest.raises(cert.CertError) as error:
            reader(data)
        assert "\n" not in str(error.value)


def test_only_rsa(authority: cert.Authority, when: datetime) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    text = curve.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(cert.CertError, match="not RSA"):
        cert.load_private_key(text)
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(curve, hashes.SHA256())
    with pytest.raises(cert.CertError, match="not RSA"):
        cert.load_request(request.public_bytes(serialization.Encoding.PEM))


def test_a_protected_key_is_refused_with_a_reason(key: rsa.RSAPrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    with pytest.raises(cert.CertError):
        cert.load_private_key(text)


def test_a_request_signed_by_somebody_else_is_refused(key: rsa.RSAPrivateKey) -> None:
    good = cert.new_request(key, [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Corp")])
    der = bytearray(good.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    bad = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(cert.CertError, match="signature"):
        cert.load_request(bad)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_certificates_raise_nothing_else(authority: cert.Authority, when: datetime, seed: int) -> None:
    """A peer's certificate with some bytes changed: whatever is read from it, only CertError comes out."""
    chance = random.Random(seed)
    key = cert.new_key(2048) if seed == 0 else authority.key
    good = cert.to_der(issue(authority, key, when) if seed % 2 else authority.trust.ca)
    for _ in range(1200):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            # The signature is at the end, and no parser looks at it.
            data[chance.randrange(len(data) - 250)] = chance.choice([chance.randrange(256), 0, 0xFF, 0x80, 0x30])
        with suppress(cert.CertError):
            read_everything(authority.trust, bytes(data), when)


def read_everything(trust: cert.Trust, der: bytes, when: datetime) -> None:
    loaded = cert.load_der(der)
    for step in (
        lambda: cert.prefix_of_cert(loaded),
        lambda: cert.number_of_cert(loaded),
        lambda: cert.network_of_ca(loaded),
        lambda: cert.fingerprint(loaded),
        lambda: cert.encrypt(loaded, b"secret"),
        lambda: cert.verify(loaded, b"s" * 256, b"data"),
        lambda: trust.renews(loaded),
        lambda: trust.signed(loaded),
        lambda: trust.check_own(loaded, when),
        lambda: trust.check_strict(loaded, when),
    ):
        with suppress(cert.CertError):
            step()


def test_damaged_requests_raise_nothing_else(key: rsa.RSAPrivateKey, authority: cert.Authority) -> None:
    chance = random.Random(9)
    request = cert.new_request(
        key,
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Corp"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org"),
        ],
    )
    text = request.public_bytes(serialization.Encoding.PEM)
    for _ in range(1500):
        data = bytearray(text)
        data[chance.randrange(30, len(data) - 30)] = chance.choice(b"ABCabc019+/=\n-")
        with suppress(cert.CertError):
            authority.check_request(cert.load_request(bytes(data)))


def test_a_million_random_bytes() -> None:
    chance = random.Random(6)
    for _ in range(1000):
        noise = chance.randbytes(chance.randrange(2000))
        for load in (cert.load_pem, cert.load_der, cert.load_private_key, cert.load_request):
            with pytest.raises(cert.CertError):
                load(noise)


# --- fields and files ---


def test_unknown_hash_is_an_error_of_words(authority: cert.Authority) -> None:
    assert len(cert.fingerprint(authority.trust.ca, "sha256")) == 32
    for name in ("nosuch", "", "shake_128"):
        with pytest.raises(cert.CertError, match="unknown hash"):
            cert.fingerprint(authority.trust.ca, name)


def test_private_files_are_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cert.key"
    disk.write_private(path, b"secret")
    assert path.read_bytes() == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        disk.write_private(path, b"other")
    assert path.read_bytes() == b"secret"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_files_keep_their_mode(tmp_path: Path) -> None:
    path = tmp_path / "cert.crt"
    disk.replace_file(path, b"one")
    path.chmod(0o640)
    disk.replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_identity_from_files_names_the_file_at_fault(
    tmp_path: Path, vector: Callable[[str], Any], when: datetime, key: rsa.RSAPrivateKey
) -> None:
    recorded = vector("pki")
    files = tmp_path / "ca.crt", tmp_path / "cert.crt", tmp_path / "cert.key"
    one = recorded["nodes"][1]
    for path, text in zip(files, (recorded["ca_crt"], one["crt"], one["key"]), strict=True):
        path.write_text(text)
    assert cert.Identity.load(*files, when).prefix == Prefix(1, 16)
    for path in files:
        text = path.read_text()
        for content in ("", "nonsense", "x" * 100_000):
            path.write_text(content)
            with pytest.raises(cert.CertError, match=path.name):
                cert.Identity.load(*files, when)
        path.unlink()
        with pytest.raises(cert.CertError, match=f"{path.name}: No such file"):
            cert.Identity.load(*files, when)
        path.write_text(text)
    files[2].write_bytes(cert.key_to_pem(key))
    with pytest.raises(cert.CertError, match=r"cert\.key does not belong to .*cert\.crt"):
        cert.Identity.load(*files, when)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
def test_a_file_planted_beside_does_not_keep_one_from_being_replaced(tmp_path: Path) -> None:
    """In a directory like /etc/re6stnet, who may make files there could block renewals by one of his."""
    tmp_path.chmod(0o1777)
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o755)
    path, planted = tmp_path / "cert.crt", tmp_path / "cert.crt.new"
    path.write_bytes(b"one")
    os.chown(path, 64001, 64001)
    planted.symlink_to("/etc/passwd")
    os.chown(planted, 64002, 64002, follow_symlinks=False)
    if (pid := os.fork()) == 0:
        try:
            os.setgid(64001)
            os.setuid(64001)
            disk.replace_file(path, b"two")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert path.read_bytes() == b"two"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cert.crt", "cert.crt.new"]
    assert planted.is_symlink()


@pytest.mark.skipif(not cert._QUICKLY, reason="this library looks at keys itself")
def test_a_key_whose_parts_do_not_fit_together_is_not_used(key: rsa.RSAPrivateKey, tmp_path: Path) -> None:
    """A damaged file: others would refuse what it signs. A node can enrol again; the registry cannot."""
    numbers = key.private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d ^ 4, numbers.dmp1 ^ 4, numbers.dmq1 ^ 4, numbers.iqmp, numbers.public_numbers
    )
    damaged = wrong.private_key(unsafe_skip_rsa_key_validation=True).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    with pytest.raises(cert.CertError, match=r"^ca\.key: the key is damaged: restore it from its backup$"):
        cert.load_private_key(damaged, "ca.key")
    path = tmp_path / "cert.key"
    path.write_bytes(damaged)
    with pytest.raises(cert.CertError, match=r"cert\.key: .* restore it from its backup, or enrol again$"):
        cert.load_node_key(path)


def test_a_key_that_the_library_fails_to_use_is_damaged(key: rsa.RSAPrivateKey) -> None:
    """Some versions of it do so instead of refusing it."""

    class Broken:
        def public_key(self) -> rsa.RSAPublicKey:
            return key.public_key()

        def sign(self, *_: object) -> bytes:
            raise InternalError("unknown OpenSSL error", [])

    with pytest.raises(cert.DamagedKey):
        cert._try_out(cast(Any, Broken()), "cert.key")
