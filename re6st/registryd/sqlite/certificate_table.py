"""The certificates in the registry's table `cert`, as this or another program wrote them (wire.md section 4)."""

from __future__ import annotations

import logging
import sqlite3

from re6st import cert
from re6st.keys import pki

logger = logging.getLogger("store")

RESERVED = "reserved"
"""Stored instead of a certificate: this leaf is never given to anybody."""


def pem_of(value: str | bytes | None) -> bytes | None:
    """A stored certificate; old databases store it as BLOB."""
    data = value.encode("ascii", "replace") if isinstance(value, str) else value
    return None if data is None or data == RESERVED.encode("ascii") else data


def read_new(db: sqlite3.Connection) -> None:
    """Store serial, node number and end of each certificate that `re6st_issued` does not have. Raises sqlite3.Error."""
    rows = db.execute(
        "SELECT prefix FROM cert WHERE cert IS NOT NULL AND prefix NOT IN (SELECT prefix FROM re6st_issued)"
    )
    read = 0
    for (bits,) in rows.fetchall():  # not the certificates all at once: 100,000 of them have 150 MB
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
