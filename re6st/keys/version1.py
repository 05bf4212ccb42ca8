"""Certificates of version 1, which the library cannot make, so they are built here (wire.md 2.2)."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_SHA512_RSA = bytes.fromhex("300d06092a864886f70d01010d0500")


def to_be_signed(
    issuer: bytes, subject: x509.Name, key: rsa.RSAPublicKey, serial: int, begin: datetime, end: datetime
) -> bytes:
    """The body of a certificate, which the issuer, a name in DER, signs with RSA and SHA-512. The dates are aware, and
    in whole seconds.
    """
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    validity = _der(0x30, _der_time(begin), _der_time(end))
    return _der(0x30, _der_integer(serial), _SHA512_RSA, issuer, validity, subject.public_bytes(), spki)


def certificate(body: bytes, signature: bytes) -> x509.Certificate:
    """The certificate, from a body that was signed."""
    return x509.load_der_x509_certificate(_der(0x30, body, _SHA512_RSA, _der(0x03, b"\0", signature)))


def _der(tag: int, *parts: bytes) -> bytes:
    """One DER value (X.690)."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def _der_integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _der_time(when: datetime) -> bytes:
    """UTCTime until 2049, then GeneralizedTime (RFC 5280 4.1.2.5)."""
    when = when.astimezone(UTC)
    if when.year < 2050:
        return _der(0x17, when.strftime("%y%m%d%H%M%SZ").encode())
    return _der(0x18, when.strftime("%Y%m%d%H%M%SZ").encode())
