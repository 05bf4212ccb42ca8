from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.core.prefix import Prefix, serial_of_network
from re6st.keys import pki
from re6st.linux import disk

NETWORK = IPv6Network("2001:db8:42::/48")


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return cert.new_key()


@pytest.fixture(scope="module")
def other_key() -> rsa.RSAPrivateKey:
    return cert.new_key()


def issue(
    authority: cert.Authority,
    key: rsa.RSAPrivateKey,
    when: datetime,
    cn: str = "3/16",
    serial: int = 7,
    until: datetime | None = None,
) -> x509.Certificate:
    subject = cert.subject_for(x509.Name([]), 5, Prefix.from_cn(cn))
    return authority.issue(subject, key.public_key(), serial, when, until)


def test_pki_vector(vector: Callable[[str], Any], authority: cert.Authority, when: datetime) -> None:
    recorded = vector("pki")
    trust = authority.trust
    assert trust.network == NETWORK
    assert trust.key_size == 2048
    assert cert.to_pem(trust.ca).decode() == recorded["ca_crt"]
    assert len(recorded["nodes"]) == 2
    for node in recorded["nodes"]:
        own = cert.load_pem(node["crt"].encode())
        key = cert.load_private_key(node["key"].encode())
        assert cert.to_pem(own).decode() == node["crt"]
        assert cert.load_der(cert.to_der(own)) == own
        assert cert.prefix_of_cert(own).cn == node["cn"]
        assert cert.number_of_cert(own) is None, "these certificates have no serialNumber in the subject"
        trust.check_strict(own, when)
        trust.check_own(own, when)
        identity = cert.Identity(trust, own, key)
        assert (identity.prefix.cn, identity.der) == (node["cn"], cert.to_der(own))
        assert identity.fingerprint == cert.fingerprint(own, "sha1")
        assert cert.load_private_key(cert.key_to_pem(key)).private_numbers() == key.private_numbers()
        # Issued again from the same parts it is the same certificate, byte for byte.
        public = key.public_key()
        again = authority.issue(
            own.subject,
            public,
            own.serial_number,
            pki.begin_of(own) + cert.BACKDATED,
            pki.end_of(own),
        )
        assert cert.to_der(again) == identity.der


def test_bootstrap_peer_vector(vector: Callable[[str], Any], nodes: dict[str, cert.Identity]) -> None:
    entry = vector("bootstrap_peer")
    node = nodes[entry["for_cn"]]
    assert cert.decrypt(node.key, bytes.fromhex(entry["encrypted"])).decode() == entry["plain"]
    assert cert.decrypt(node.key, cert.encrypt(node.cert, entry["plain"].encode())).decode() == entry["plain"]


def test_issued_certificate_is_as_the_older_software_makes_it(
    authority: cert.Authority, key: rsa.RSAPrivateKey, when: datetime
) -> None:
    fields = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ünïcode Corp."),
            x509.NameAttribute(NameOID.COMMON_NAME, "forged/1"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "99"),
        ]
    )
    request = cert.load_request(cert.new_request(key, fields).public_bytes(serialization.Encoding.PEM))
    public = authority.check_request(request)
    made = authority.issue(cert.subject_for(request.subject, 12, Prefix.from_cn("300/77")), public, 129, when)
    assert made.version is x509.Version.v1
    assert made.serial_number == 129
    assert made.issuer == authority.trust.ca.subject
    assert pki.end_of(made) == when + timedelta(seconds=31536000)
    assert pki.same_key(made.public_key(), key.public_key())
    assert isinstance(made.signature_hash_algorithm, hashes.SHA512)
    assert [(a.oid, a.value) for a in made.subject] == [
        (NameOID.ORGANIZATION_NAME, "Ünïcode Corp."),
        (NameOID.EMAIL_ADDRESS, "a@example.org"),
        (NameOID.SERIAL_NUMBER, "12"),
        (NameOID.COMMON_NAME, "300/77"),
    ]
    assert cert.number_of_cert(made) == 12
    authority.trust.check_strict(made, when + timedelta(days=1))


@pytest.mark.parametrize("serial", [0, 1, 127, 128, 255, 256, 1 << 31, (1 << 63) + 1, 1 << 150])
@pytest.mark.parametrize("year", [2026, 2049, 2050, 2051])
def test_every_serial_and_date_can_be_read_back(
    authority: cert.Authority, key: rsa.RSAPrivateKey, serial: int, year: int
) -> None:
    start = datetime(year, 1, 2, 3, 4, 5, tzinfo=UTC)
    made = issue(authority, key, start, serial=serial or 3)
    assert made.serial_number == (serial or 3)
    assert pki.begin_of(made) == start - cert.BACKDATED
    assert cert.issued_at(made) == start
    assert pki.end_of(made) == start + cert.VALIDITY


def test_sign_is_deterministic_and_bound_to_data_and_key(
    authority: cert.Authority, other_key: rsa.RSAPrivateKey
) -> None:
    signature = cert.sign(authority.key, b"data")
    assert signature == cert.sign(authority.key, b"data")
    ca = authority.trust.ca
    assert cert.verify(ca, signature, b"data")
    assert not cert.verify(ca, signature, b"datb")
    assert not cert.verify(ca, cert.sign(other_key, b"data"), b"data")
    for bad in (b"", b"x", signature[:-1], signature + b"\0", bytes(256), b"\xff" * 256):
        assert not cert.verify(ca, bad, b"data")


def test_encrypt_up_to_the_limit_of_the_key(nodes: dict[str, cert.Identity]) -> None:
    node = nodes["0/16"]
    for length in (0, 1, 20, 245):
        assert cert.decrypt(node.key, cert.encrypt(node.cert, bytes(length))) == bytes(length)
    with pytest.raises(cert.CertError, match="246 bytes are too many"):
        cert.encrypt(node.cert, bytes(246))
    for bad in (b"", b"x", bytes(255), bytes(257), b"\xff" * 256):
        with pytest.raises(cert.CertError):
            cert.decrypt(node.key, bad)


# --- whom we trust ---


def test_strict_wants_chain_and_dates(
    authority: cert.Authority, key: rsa.RSAPrivateKey, other_key: rsa.RSAPrivateKey, when: datetime
) -> None:
    trust, day = authority.trust, timedelta(days=1)
    good = issue(authority, key, when)
    trust.check_strict(good, when)
    for time in (when - day, when + 366 * day):
        with pytest.raises(cert.CertError, match="not accepted"):
            trust.check_strict(good, time)
    ca = authority.trust.ca
    namesake = (
        x509.CertificateBuilder()
        .subject_name(ca.subject)
        .issuer_name(ca.subject)
        .serial_number(ca.serial_number)
        .not_valid_before(pki.begin_of(ca))
        .not_valid_after(pki.end_of(ca))
        .public_key(other_key.public_key())
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(other_key, hashes.SHA512())
    )
    forged = issue(cert.Authority(namesake, other_key), key, when)
    with pytest.raises(cert.CertError):
        trust.check_strict(forged, when)
    # A node must not be able to make certificates for others.
    with pytest.raises(cert.CertError):
        trust.check_strict(issue_by_node(good, key, other_key, when), when)


@pytest.mark.parametrize("critical", [True, False, None])
def test_certificates_of_version_3_are_believed_too(
    authority: cert.Authority, key: rsa.RSAPrivateKey, when: datetime, critical: bool | None
) -> None:
    """Which newer registries of the older software issue, with the word that their owner is no CA, or without."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(cert.subject_for(x509.Name([]), 5, Prefix.from_cn("3/16")))
        .issuer_name(authority.trust.ca.subject)
        .serial_number(7)
        .not_valid_before(when)
        .not_valid_after(when + timedelta(days=9))
        .public_key(key.public_key())
    )
    if critical is not None:
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical)
    own = builder.sign(authority.key, hashes.SHA512())
    assert own.version is x509.Version.v3
    authority.trust.check_strict(own, when)
    authority.trust.check_own(own, when)
    assert cert.prefix_of_cert(own).cn == "3/16"


def issue_by_node(
    issuer: x509.Certificate, issuer_key: rsa.RSAPrivateKey, key: rsa.RSAPrivateKey, when: datetime
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "9/16")]))
        .issuer_name(issuer.subject)
        .serial_number(99)
        .not_valid_before(when)
        .not_valid_after(when + timedelta(days=9))
        .public_key(key.public_key())
        .sign(issuer_key, hashes.SHA512())
    )


def test_strict_wants_the_key_size_of_the_network(authority: cert.Authority, when: datetime) -> None:
    small = rsa.generate_private_key(65537, 1024)
    with pytest.raises(cert.CertError, match="size"):
        authority.trust.check_strict(issue(authority, small, when), when)
    with pytest.raises(cert.CertError, match="1024 bits"):
        authority.check_request(cert.load_request(cert.new_request(small).public_bytes(serialization.Encoding.PEM)))


def test_own_certificate_may_be_expired_but_not_of_the_future(
    authority: cert.Authority, key: rsa.RSAPrivateKey, other_key: rsa.RSAPrivateKey, when: datetime
) -> None:
    trust = authority.trust
    own = issue(authority, key, when)
    trust.check_own(own, when + timedelta(days=5000))
    why = r"the clock says 2027-05-31T00:00:00Z, but the certificate is valid from 2027-05-31T23:00:00Z on"
    with pytest.raises(cert.NotYetValid, match=why):
        trust.check_own(own, when - timedelta(days=1))
    alien = cert.Authority(cert.new_ca(other_key, NETWORK, "other", "o@example.org", when), other_key)
    with pytest.raises(cert.CertError):
        trust.check_own(issue(alien, key, when), when)


@pytest.mark.parametrize("skew", [5, 60, 600])
def test_a_clock_that_is_somewhat_late_keeps_nobody_out(
    key: rsa.RSAPrivateKey, other_key: rsa.RSAPrivateKey, when: datetime, skew: int
) -> None:
    """The network was just made, by a registry whose clock is ahead of everybody's."""
    authority = cert.Authority(cert.new_ca(other_key, NETWORK, "new", "o@example.org", when), other_key)
    own, late = issue(authority, key, when), when - timedelta(seconds=skew)
    authority.trust.check_own(own, late)
    authority.trust.check_strict(own, late)
    assert pki.end_of(own) == when + cert.VALIDITY, "it ends when it would have ended"


def test_a_new_ca_has_the_network_in_its_serial(other_key: rsa.RSAPrivateKey, when: datetime) -> None:
    for network in ("2001:db8:42::/48", "fd00::/8", "2001:db8:8000::/33", "::/1", "2001:db8::1/128"):
        ca = cert.new_ca(other_key, IPv6Network(network), "name", "ca@example.org", when)
        assert cert.Trust(ca).network == IPv6Network(network)
        assert ca.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)[0].value == "ca@example.org"
        cert.Trust(ca).check(issue(cert.Authority(ca, other_key), other_key, when), when)


def renewed(
    ca: x509.Certificate, signer: rsa.RSAPrivateKey, end: timedelta = timedelta(days=9), **changes: Any
) -> x509.Certificate:
    """The CA's certificate with another end and these changes, signed by `signer`."""
    return (
        x509.CertificateBuilder()
        .subject_name(changes.get("subject", ca.subject))
        .issuer_name(changes.get("issuer", ca.subject))
        .serial_number(changes.get("serial", ca.serial_number))
        .not_valid_before(pki.begin_of(ca))
        .not_valid_after(pki.end_of(ca) + end)
        .public_key(changes.get("key", ca.public_key()))
        .add_extension(x509.BasicConstraints(changes.get("may_sign", True), None), critical=True)
        .sign(signer, changes.get("algorithm", hashes.SHA512()))
    )


def test_a_ca_with_a_later_end_takes_the_place_of_ours(authority: cert.Authority, when: datetime) -> None:
    trust = authority.trust
    assert trust.renews(trust.ca)
    assert trust.renews(renewed(trust.ca, authority.key))
    assert trust.renews(renewed(trust.ca, authority.key, algorithm=hashes.SHA256())), "as openssl makes it by default"
    assert not trust.renews(renewed(trust.ca, authority.key, timedelta(days=-1))), "one of before, repeated"


def test_no_other_ca_takes_the_place_of_ours(
    authority: cert.Authority, other_key: rsa.RSAPrivateKey, when: datetime
) -> None:
    ca, name = authority.trust.ca, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil")])
    for what, signer, changes in (
        ("signature", other_key, {}),
        ("subject", authority.key, {"subject": name, "issuer": name}),
        ("subject", authority.key, {"issuer": name}),
        ("key", other_key, {"key": other_key.public_key()}),
        ("key", authority.key, {"key": other_key.public_key()}),
        ("serial", authority.key, {"serial": serial_of_network(IPv6Network("fd00::/8"))}),
        ("right to sign", authority.key, {"may_sign": False}),
    ):
        new = renewed(ca, signer, **changes)
        assert (authority.trust.differs(new) or "").startswith(what)
        assert not authority.trust.renews(new)
        with pytest.raises(cert.CertError, match=f"its {what}"):
            authority.renew(new)
    node = issue(authority, other_key, when)
    assert not authority.trust.renews(node), "a node's certificate is signed by the CA, but is no CA"


def test_identity_wants_the_pair(
    authority: cert.Authority, key: rsa.RSAPrivateKey, nodes: dict[str, cert.Identity]
) -> None:
    with pytest.raises(cert.CertError, match="does not belong"):
        cert.Identity(authority.trust, nodes["0/16"].cert, key)
    with pytest.raises(cert.CertError, match="does not belong"):
        cert.Authority(authority.trust.ca, key)


@pytest.mark.parametrize("cn", ["1", "x/16", "70000/16", "1/129", ""])
def test_a_bad_common_name_is_refused(
    authority: cert.Authority, key: rsa.RSAPrivateKey, when: datetime, cn: str
) -> None:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else []
    made = authority.issue(x509.Name(names), key.public_key(), 5, when)
    with pytest.raises(cert.CertError):
        cert.prefix_of_cert(made)
    with pytest.raises(cert.CertError):
        authority.trust.check_strict(made, when)


def test_two_common_names_are_refused(authority: cert.Authority, key: rsa.RSAPrivateKey, when: datetime) -> None:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, cn) for cn in ("1/16", "2/16")]
    with pytest.raises(cert.CertError, match="exactly one"):
        cert.prefix_of_cert(authority.issue(x509.Name(names), key.public_key(), 5, when))


# --- damaged input ---


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
