"""The certificates in the registry's table `cert`, as this or another program wrote them (wire.md section 4)."""

from __future__ import annotations

import logging
import sqlite3
from collections import OrderedDict

from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.keys import pki

logger = logging.getLogger("store")

RESERVED = "reserved"
"""In the place of a certificate: this leaf is never given to anybody."""
REMEMBERED = 1000
"""Certificates, of some kilobytes each, that need not be verified again."""


def pem_of(value: str | bytes | None) -> bytes | None:
    """A stored certificate; old databases hold it as BLOB."""
    data = value.encode("ascii", "replace") if isinstance(value, str) else value
    return None if data is None or data == RESERVED.encode("ascii") else data


def believed(trust: cert.Trust, prefix: Prefix, pem: bytes, serial: int | None = None) -> x509.Certificate:
    """A stored certificate, if our CA made it for this prefix, and with this serial: whoever wrote to the database may
    have put another one there, and would be given one for his own key. Raises CertError.
    """
    found = cert.load_pem(pem)
    if not trust.signed(found):
        raise cert.CertError(f"the certificate of {prefix} in the database is not of our CA: restore a copy of it")
    if cert.prefix_of_cert(found) != prefix or serial not in (None, found.serial_number):
        raise cert.CertError(f"the certificate of {prefix} in the database is another one's: restore a copy of it")
    return found


class Believed:
    """Certificates that were found to be good before, of those who call most: a session asks for one twice."""

    def __init__(self, trust: cert.Trust) -> None:
        self._trust = trust
        self._known: OrderedDict[Prefix, tuple[bytes, x509.Certificate]] = OrderedDict()

    def certificate(self, prefix: Prefix, pem: bytes) -> x509.Certificate:
        """As `believed`; anything else that is stored for the prefix is looked at anew. Raises CertError."""
        known = self._known.pop(prefix, None)
        if known is None or known[0] != pem:
            known = pem, believed(self._trust, prefix, pem)
        self._known[prefix] = known
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known[1]


def read_new(db: sqlite3.Connection) -> None:
    """Note serial, node number and end of each certificate that `re6st_issued` does not know. Raises sqlite3.Error."""
    rows = db.execute(
        "SELECT prefix FROM cert WHERE cert IS NOT NULL AND prefix NOT IN (SELECT prefix FROM re6st_issued)"
    )
    read = 0
    for (bits,) in rows.fetchall():  # not the certificates at once: 150 MB for 100,000 of them
        pem = pem_of(db.execute("SELECT cert FROM cert WHERE prefix = ?", (bits,)).fetchone()[0])
        if pem is None:
            continue
        try:
            found = cert.load_pem(pem)
            not_after = int(pki.end_of(found).timestamp())
        except (cert.CertError, ValueError) as error:
            logger.warning("certificate of prefix %s in the database: %s", bits, error)
            continue
        db.execute(
            "INSERT INTO re6st_issued VALUES (?, ?, ?, ?)",
            (bits, found.serial_number, cert.number_of_cert(found), not_after),
        )
        read += 1
    if read:
        logger.info("%d certificates read for the first time", read)
