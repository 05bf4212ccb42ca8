"""Whether a certificate is to be believed: issued by the CA, valid now (RFC 5280 section 6.1, for a chain of two).

OpenSSL, which wire.md 2.4 names, decides the same; its own binding, pyOpenSSL, was more than a megabyte of each node.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID

_KNOWN = frozenset(
    (
        *(ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE),
        *(ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.SUBJECT_ALTERNATIVE_NAME),
    )
)
"""Extensions that may be critical: we look at them, or know that they say nothing to us."""


def signed(ca: x509.Certificate, cert: x509.Certificate) -> bool:
    """Whether the CA issued this certificate, whatever its dates."""
    try:
        cert.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def flaw(ca: x509.Certificate, cert: x509.Certificate, when: datetime) -> str | None:
    """Why a certificate is not to be believed at the time `when` (aware); None if it is."""
    if not signed(ca, cert):
        return "it was not issued by the CA of this network"
    for each, name in ((ca, "the CA certificate"), (cert, "it")):
        try:
            extensions = list(each.extensions)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            return f"{name} has a damaged extension"
        unknown = [extension.oid for extension in extensions if extension.critical and extension.oid not in _KNOWN]
        if unknown:  # it might say anything (section 4.2)
            return f"{name} has the critical extension {unknown[0].dotted_string}, which is unknown here"
        if each is ca and not _may_issue(ca, [extension.value for extension in extensions]):
            return "the CA certificate may not be used to issue others"
        if when < each.not_valid_before_utc:
            return f"{name} is not yet valid"
        if when >= each.not_valid_after_utc:
            return f"{name} has expired"
    return None


def _may_issue(ca: x509.Certificate, extensions: list[x509.ExtensionType]) -> bool:
    """Whether it is a CA's (sections 4.2.1.3 and 4.2.1.9); what has neither extension is one only where it is old."""
    usage = next((value for value in extensions if isinstance(value, x509.KeyUsage)), None)
    constraints = next((value for value in extensions if isinstance(value, x509.BasicConstraints)), None)
    if usage is not None and not usage.key_cert_sign:
        return False
    return constraints.ca if constraints is not None else usage is not None or ca.version is x509.Version.v1
