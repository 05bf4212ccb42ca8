"""The name that a machine asks for: in its certificate request, as a DNS name (RFC 5280 4.2.1.6).

A registry of the older software takes only subject and key from a request, so it ignores this. The certificate has no
name: an operator can rename a machine whose certificate stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from re6st.core import names


@dataclass(frozen=True, slots=True)
class RequestedName:
    name: str
    only: bool
    """No other name will do: if somebody has it, the request is to be refused."""


def add(builder: x509.CertificateSigningRequestBuilder, wanted: RequestedName) -> x509.CertificateSigningRequestBuilder:
    """Ask for a name: in a critical extension if no other one will do."""
    return builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(wanted.name)]), critical=wanted.only)


def read(request: x509.CertificateSigningRequest) -> RequestedName | None:
    """The name that a request asks for; None if it asks for none, or for what is no name. Raises BadName if that had to
    be its name.
    """
    try:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        asked = found.value.get_values_for_type(x509.DNSName)
    except Exception:  # the parser raises errors of many kinds, and the input is a stranger's
        return None
    if len(asked) == 1 and names.is_name(asked[0]):
        return RequestedName(asked[0], found.critical)
    if found.critical:
        raise names.BadName(f"a request for {len(asked)} names, or for what is no name")
    return None
