"""None"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.core.prefix import Prefix, serial_of_network
from re6st.keys import pki
from tests.unit.certificates import NETWORK, issue


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return cert.new_key()


@pytest.fixture(scope="module")
def other_key() -> rsa.RSAPrivateKey:
    return cert.new_key()


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
