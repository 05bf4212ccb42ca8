"""The contents of certificates and keys, with today's `cryptography` and with that of Debian 12 (38) alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import cryptography
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:  # Debian 12's does not have it
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

_VERSION = int(cryptography.__version__.partition(".")[0])
_IN_UTC = _VERSION >= 42
"""Whether the library has times that say that they are in UTC, and warns about those that do not."""


def begin_of(certificate: x509.Certificate) -> datetime:
    """Since when it is valid, in UTC. Raises ValueError for an invalid date."""
    return certificate.not_valid_before_utc if _IN_UTC else certificate.not_valid_before.replace(tzinfo=UTC)


def end_of(certificate: x509.Certificate) -> datetime:
    """Until when it is valid, in UTC. Raises ValueError for an invalid date."""
    return certificate.not_valid_after_utc if _IN_UTC else certificate.not_valid_after.replace(tzinfo=UTC)


def same_key(one: CertificatePublicKeyTypes, other: CertificatePublicKeyTypes) -> bool:
    """Whether two public keys are the same, whatever their type."""
    first, second = (each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in (one, other))
    return first == second


def verify_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raises ValueError, TypeError, UnsupportedAlgorithm or InvalidSignature, unless the key of that issuer signed it
    in the issuer's name.
    """
    if _VERSION >= 40:
        certificate.verify_directly_issued_by(issuer)
        return
    key, algorithm = issuer.public_key(), certificate.signature_hash_algorithm
    if certificate.issuer != issuer.subject:
        raise ValueError("issued in another name")
    if not isinstance(key, rsa.RSAPublicKey) or algorithm is None:
        raise TypeError("not signed with RSA")
    key.verify(certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(), algorithm)


def digest_bits(certificate: x509.Certificate) -> int:
    """The hash in its signature; 0 for an unknown one."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return 0
    return 8 * algorithm.digest_size if algorithm else 0


def may_sign(certificate: x509.Certificate) -> bool | None:
    """Its basic constraints for a CA (RFC 5280 4.2.1.9); None if it has none, such as a certificate of version 1."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension):
        return False
