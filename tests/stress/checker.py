"""Whether a registry's database is sound, found out apart from the registry's own code."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from re6st.keys import pki


class Checker:
    """Reads a database again and again, and each certificate once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, tuple[int, str, int, int]] = {}

    def certificates(self) -> dict[str, str]:
        """By prefix, the certificates in PEM form."""
        with closing(self._open()) as db:
            return dict(db.execute("SELECT prefix, cert FROM cert WHERE cert LIKE '-----BEGIN%'"))

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        with closing(self._open()) as db:
            return db.execute(statement).fetchall()

    def problems(self) -> list[str]:
        """What is wrong with the database as such."""
        with closing(self._open()) as db:
            found = [f"integrity: {row[0]}" for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
            leaves = sorted(row[0] for row in db.execute("SELECT prefix FROM cert"))
            stored = dict(db.execute("SELECT prefix, cert FROM cert WHERE cert IS NOT NULL AND cert != 'reserved'"))
            issued = {
                row[0]: row[1:] for row in db.execute("SELECT prefix, serial, number, not_after FROM re6st_issued")
            }
            last = db.execute("SELECT value FROM config WHERE name = 'serial'").fetchone()
        found += [f"{a} lies over {b}" for a, b in pairwise(leaves) if b.startswith(a)]
        if sum(1 << 128 - len(leaf) for leaf in leaves) != 1 << 128:
            found.append("the leaves do not cover the network")
        if stored.keys() != issued.keys():
            found.append(f"re6st_issued differs for {stored.keys() ^ issued.keys()}")
        read = {prefix: self._read(pem) for prefix, pem in stored.items()}
        for prefix, (serial, cn, number, not_after) in read.items():
            if issued.get(prefix) != (serial, number, not_after):
                found.append(f"re6st_issued has {issued.get(prefix)} for {prefix}, not {serial, number, not_after}")
            if cn != f"{int(prefix, 2)}/{len(prefix)}":
                found.append(f"the certificate of {prefix} is for {cn}")
        for what, values in (
            ("serial", [serial for serial, _, _, _ in read.values()]),
            ("number", [number for _, _, number, _ in read.values()]),
        ):
            if len(set(values)) != len(values):
                found.append(f"a {what} was given twice")
        if read and max(serial for serial, _, _, _ in read.values()) > last[0]:
            found.append("the counter of serials is behind")
        return found

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.path}?mode=rw", uri=True, timeout=30)

    def _read(self, pem: str | bytes) -> tuple[int, str, int, int]:
        """Serial, CN, node number, end."""
        pem = pem.decode() if isinstance(pem, bytes) else pem
        if pem not in self._known:
            found = x509.load_pem_x509_certificate(pem.encode())
            cn, number = (
                str(found.subject.get_attributes_for_oid(oid)[0].value)
                for oid in (NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER)
            )
            end = int(pki.end_of(found).timestamp())
            self._known[pem] = (found.serial_number, cn, int(number), end)
        return self._known[pem]
