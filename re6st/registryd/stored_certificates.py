"""Checks that the registry's CA signed a stored certificate: somebody else may have written it to the database."""

from __future__ import annotations

from collections import OrderedDict

from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix

REMEMBERED = 1000
"""Number of certificates, of some kilobytes each, that need not be verified again."""


def believed(trust: cert.Trust, prefix: Prefix, pem: bytes, serial: int | None = None) -> x509.Certificate:
    """A stored certificate, if our CA signed it for this prefix, and with this serial. Whoever can write to the
    database may have replaced it, and would get a certificate for his own key. Raises CertError.
    """
    found = cert.load_pem(pem)
    if not trust.signed(found):
        raise cert.CertError(
            f"the certificate of {prefix} in the database was not signed by our CA: restore a copy of the database"
        )
    if cert.prefix_of_cert(found) != prefix or serial not in (None, found.serial_number):
        raise cert.CertError(
            f"the certificate of {prefix} in the database belongs to another node: restore a copy of the database"
        )
    return found


class Believed:
    """Certificates that were verified before, of those that call most: a session asks for one twice."""

    def __init__(self, trust: cert.Trust, limit: int = REMEMBERED) -> None:
        self._trust = trust
        self._limit = limit
        self._known: OrderedDict[Prefix, tuple[bytes, x509.Certificate]] = OrderedDict()

    def certificate(self, prefix: Prefix, pem: bytes) -> x509.Certificate:
        """As `believed`; if another one is stored for the prefix, it is verified. Raises CertError."""
        known = self._known.pop(prefix, None)
        if known is None or known[0] != pem:
            known = pem, believed(self._trust, prefix, pem)
        self._known[prefix] = known
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
        return known[1]
