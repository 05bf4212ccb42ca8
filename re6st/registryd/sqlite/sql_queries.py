"""Reads the registry's database: the Queries of its repository, over one connection."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any, Self, TypeVar

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.clock import Marks
from re6st.core.registry.presence import Stay
from re6st.keys import pki
from re6st.registryd.records import Issued, StoredEvent, Token
from re6st.registryd.sqlite.certificate_table import pem_of
from re6st.registryd.stored_configuration import StoredConfiguration

T = TypeVar("T")

logger = logging.getLogger("store")


class SqlQueries(StoredConfiguration):
    """Reads rows over one connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def close(self) -> None:
        self._db.close()

    def at_one_moment(self, query: Callable[[Self], T]) -> T:
        """The result of a query, which sees what was committed when it began, whatever is committed meanwhile."""
        self._db.execute("BEGIN")
        try:
            return query(self)
        finally:
            if self._db.in_transaction:  # an error may have ended it
                self._db.execute("COMMIT")

    def config(self, name: str) -> Any:
        row = self._one("SELECT value FROM config WHERE name = ?", name)
        return row and row[0]

    def pem(self, prefix: Prefix) -> bytes | None:
        """The certificate of a prefix."""
        row = self._one("SELECT cert FROM cert WHERE prefix = ?", prefix.bits)
        return pem_of(row[0]) if row else None

    def issued(self, prefix: Prefix) -> Issued | None:
        """The certificate of a prefix with its serial and end; None also if it cannot be read."""
        row = self._one(
            "SELECT cert, serial, not_after FROM re6st_issued JOIN cert USING (prefix) WHERE prefix = ?", prefix.bits
        )
        pem = pem_of(row[0]) if row else None
        return None if pem is None else Issued(prefix, pem, row[1], row[2])

    def prefix_by_serial(self, serial: int) -> Prefix | None:
        row = self._one("SELECT prefix FROM re6st_issued WHERE serial = ?", serial)
        return Prefix.from_bits(row[0]) if row else None

    def prefix_by_email(self, email: str) -> Prefix | None:
        """The prefix of the first certificate with this e-mail address."""
        row = self._one("SELECT prefix FROM cert WHERE email = ? AND cert IS NOT NULL ORDER BY rowid LIMIT 1", email)
        return Prefix.from_bits(row[0]) if row else None

    def token(self, token: str, now: float = 0.0) -> Token | None:
        """What a token allows, unless it has an end of its own before `now`."""
        row = self._one(
            "SELECT email, prefix_len, ifnull(uses, 1), ifnull(tags, '') FROM token LEFT JOIN re6st_token USING (token)"
            " LEFT JOIN re6st_reusable USING (token) WHERE token = ? AND (expires IS NULL OR expires > ?)",
            *(token, now),
        )
        return None if row is None else Token(row[0], row[1], row[2], tuple(row[3].split()))

    def crl(self) -> list[int]:
        return [row[0] for row in self._db.execute("SELECT serial FROM crl ORDER BY serial")]

    def is_revoked(self, serial: int) -> bool:
        return self._one("SELECT 1 FROM crl WHERE serial = ?", serial) is not None

    def count(self) -> int:
        """How many certificates there are."""
        found: int = self._one("SELECT count(*) FROM re6st_issued")[0]
        return found

    def longest_prefix(self) -> int | None:
        """The length of the longest prefix that a node has; None if no node has one."""
        found: int | None = self._one("SELECT max(length(prefix)) FROM re6st_issued")[0]
        return found

    def members(self, region: Prefix, limit: int) -> list[Prefix]:
        """The nodes whose prefixes begin with that of a region, who called last first."""
        found = self._db.execute(
            "SELECT prefix FROM re6st_issued LEFT JOIN re6st_seen USING (prefix)"
            " WHERE prefix >= ?1 AND prefix < ?1 || '2' ORDER BY date DESC LIMIT ?2",
            (region.bits, limit),
        )
        return [Prefix.from_bits(row[0]) for row in found]

    def first_deadline(self, grace: int) -> float | None:
        """When something is to be cleaned up next, as Unix time."""
        row = self._one(
            "SELECT min(date) FROM (SELECT min(ifnull(expires, date + ?1)) AS date FROM token"
            " LEFT JOIN re6st_token USING (token) UNION ALL"
            " SELECT * FROM (SELECT not_after + ?1 FROM re6st_issued WHERE prefix IS NOT"
            " (SELECT value FROM config WHERE name = 'prefix') ORDER BY not_after LIMIT 1)"
            " UNION ALL SELECT min(date) FROM crl)",
            grace,
        )
        deadline: float | None = row[0]
        return deadline

    def newest_issue(self) -> float | None:
        """When the newest certificate was issued, as Unix time; None if there is none, or it cannot be read."""
        row = self._one("SELECT cert FROM re6st_issued JOIN cert USING (prefix) ORDER BY serial DESC LIMIT 1")
        pem = pem_of(row[0]) if row else None
        try:
            return None if pem is None else pki.begin_of(cert.load_pem(pem)).timestamp()
        except cert.CertError as error:
            logger.warning("the newest certificate in the database: %s", error)
            return None

    def events(self, limit: int) -> list[StoredEvent]:
        """The events, the oldest first; at most the last `limit`."""
        rows = self._db.execute("SELECT * FROM re6st_event ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [StoredEvent(*row) for row in reversed(rows)]

    def lacking(self, extension: str, limit: int = -1) -> list[Prefix]:
        """The nodes that have called, and did not announce this extension in their last call."""
        found = self._db.execute(
            "SELECT s.prefix FROM re6st_seen AS s LEFT JOIN re6st_extensions AS e USING (prefix, date)"
            " WHERE NOT instr(' ' || ifnull(e.names, '') || ' ', ' ' || ? || ' ') ORDER BY s.prefix LIMIT ?",
            (extension, limit),
        )
        return [Prefix.from_bits(row[0]) for row in found]

    def without(self, extension: str, now: float) -> list[Prefix]:
        """The nodes with a valid certificate that have never called, or do not announce this extension."""
        found = self._db.execute(
            "SELECT i.prefix FROM re6st_issued AS i LEFT JOIN re6st_seen AS s USING (prefix)"
            " LEFT JOIN re6st_extensions AS e ON e.prefix = s.prefix AND e.date = s.date WHERE i.not_after > ?"
            " AND NOT instr(' ' || ifnull(e.names, '') || ' ', ' ' || ? || ' ') ORDER BY i.prefix",
            (now, extension),
        )
        return [Prefix.from_bits(row[0]) for row in found]

    def stays(self) -> list[Stay]:
        """The nodes that are online, and since when."""
        rows = self._db.execute("SELECT prefix, since FROM re6st_stay WHERE online ORDER BY prefix")
        return [Stay(Prefix.from_bits(bits), True, since) for bits, since in rows]

    def marks(self) -> Marks | None:
        """The stored times of the clock."""
        row = self._one("SELECT trusted, seen FROM re6st_clock")
        return row and Marks(*row)

    def name(self, prefix: Prefix) -> str | None:
        """The name of a node."""
        row = self._one("SELECT name FROM re6st_name WHERE prefix = ?", prefix.bits)
        found: str | None = row and row[0]
        return found

    def named(self, name: str) -> Prefix | None:
        """The node that has a name."""
        row = self._one("SELECT prefix FROM re6st_name WHERE name = ?", name)
        return Prefix.from_bits(row[0]) if row else None

    def is_used(self, prefix: Prefix) -> bool:
        """Whether this leaf, or one that contains it, is used or reserved."""
        above = [(prefix.bits[:length],) for length in range(prefix.length + 1)]
        return any(self._one("SELECT 1 FROM cert WHERE prefix = ? AND cert IS NOT NULL", *bits) for bits in above)

    def _one(self, statement: str, *values: Any) -> Any:
        return self._db.execute(statement, values).fetchone()
