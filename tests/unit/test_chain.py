"""Who is believed: the chain of a certificate, and its dates."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from re6st.cert import CertError, Trust, to_pem

WHEN = datetime(2027, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CA_KEY, NODE_KEY, OTHER_KEY = (rsa.generate_private_key(65537, 2048) for _ in range(3))

Extensions = tuple[tuple[x509.ExtensionType, bool], ...]
CA_ONLY: Extensions = ((x509.BasicConstraints(True, None), True),)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make(
    subject: str = "3/16",
    issuer: str = "ca",
    key: rsa.RSAPrivateKey = NODE_KEY,
    signer: rsa.RSAPrivateKey = CA_KEY,
    since: datetime = WHEN - DAY,
    until: datetime = WHEN + DAY,
    extensions: Extensions = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .serial_number(7)
        .not_valid_before(since)
        .not_valid_after(until)
        .public_key(key.public_key())
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA512())


def ca(**options: object) -> x509.Certificate:
    return make(**{"subject": "ca", "key": CA_KEY, "extensions": CA_ONLY, **options})  # type: ignore[arg-type]


def usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, key_cert_sign, True, False, False)


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
CASES: dict[str, tuple[Callable[[], tuple[x509.Certificate, x509.Certificate]], str | None]] = {
    "good": (lambda: (ca(), make()), None),
    "good, with a usage": (lambda: (ca(extensions=(*CA_ONLY, (usage(key_cert_sign=True), True))), make()), None),
    "a node's usage": (lambda: (ca(), make(extensions=((usage(key_cert_sign=False), True),))), None),
    "no CA, as newer ones of the older software say": (
        lambda: (ca(), make(extensions=((x509.BasicConstraints(False, None), True),))),
        None,
    ),
    "unknown, of no weight": (lambda: (ca(), make(extensions=((UNKNOWN, False),))), None),
    "the CA itself": (lambda: (ca(), ca()), None),
    "critical": (
        lambda: (ca(), make(extensions=((UNKNOWN, True),))),
        "unhandled critical extension",
    ),
    "critical in the CA": (
        lambda: (ca(extensions=(*CA_ONLY, (UNKNOWN, True))), make()),
        "unhandled critical extension",
    ),
    "another's key": (lambda: (ca(), make(signer=OTHER_KEY)), "signature failure"),
    "another's name": (lambda: (ca(), make(issuer="other")), "unable to get local issuer"),
    "self-signed": (lambda: (ca(), make(issuer="3/16", signer=NODE_KEY)), "self-signed"),
    "early": (lambda: (ca(), make(since=WHEN + timedelta(seconds=1))), "not yet valid"),
    "late": (lambda: (ca(), make(until=WHEN - timedelta(seconds=1))), "has expired"),
    "just in time": (lambda: (ca(), make(since=WHEN)), None),
    "early CA": (lambda: (ca(since=WHEN + timedelta(hours=1)), make()), "not yet valid"),
    "late CA": (lambda: (ca(until=WHEN - timedelta(hours=1)), make()), "has expired"),
    "no CA": (
        lambda: (ca(extensions=((x509.BasicConstraints(False, None), True),)), make()),
        "invalid CA certificate",
    ),
    "CA of another use": (
        lambda: (ca(extensions=(*CA_ONLY, (usage(key_cert_sign=False), True))), make()),
        "invalid CA certificate",
    ),
    "no word of a CA": (lambda: (ca(extensions=()), make()), "invalid CA certificate"),
}


@pytest.mark.parametrize("case", CASES)
def test_who_is_believed_and_why_not(case: str, tmp_path: Path) -> None:
    made, reason = CASES[case]
    authority, cert = made()
    trust = Trust(authority)
    if reason is None:
        trust.check(cert, WHEN)
    else:
        with pytest.raises(CertError, match=f"^not accepted: .*{reason}"):
            trust.check(cert, WHEN)
    assert openssl_accepts(authority, cert, WHEN, tmp_path) == (reason is None), "OpenSSL itself decides the same"


def openssl_accepts(authority: x509.Certificate, cert: x509.Certificate, when: datetime, directory: Path) -> bool:
    for certificate, file in ((authority, "ca"), (cert, "cert")):
        (directory / file).write_bytes(to_pem(certificate))
    argv = ["openssl", "verify", "-attime", str(int(when.timestamp())), "-CAfile", "ca", "cert"]
    return subprocess.run(argv, cwd=directory, capture_output=True, check=False).returncode == 0
