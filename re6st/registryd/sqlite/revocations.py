"""The list of revoked certificates, the reasons, and what is deleted from the database when its time is over."""

from __future__ import annotations

import logging

from re6st.core.prefix import Prefix
from re6st.registryd.repository import Conflict, NotFound
from re6st.registryd.sqlite.space import Space

logger = logging.getLogger("store")

CLEAN_UP_LIMIT = 1000


class Revocations(Space):
    """Revokes certificates, and deletes what has ended."""

    def revoke(self, serial: int, now: float, reason: str = "") -> Prefix:
        """Revoke a serial, unless its certificate has ended; returns whose it is. Raises Conflict, NotFound."""
        if self.is_revoked(serial):
            raise Conflict(f"serial {serial} is revoked already")
        found = self._one(
            "SELECT prefix, not_after FROM re6st_issued WHERE serial = ?1"
            " UNION ALL SELECT prefix, not_after FROM re6st_superseded WHERE serial = ?1 LIMIT 1",
            serial,
        )
        if found is None:
            raise NotFound(f"no certificate has the serial {serial}")
        prefix, not_after = Prefix.from_bits(found[0]), found[1]
        if not_after > now:
            self._db.execute("INSERT INTO crl VALUES (?, ?)", (serial, not_after))
            self._explain(prefix, [serial], now, reason)
        return prefix

    def evict(self, prefix: Prefix, now: float, reason: str = "", *, keep: bool = False) -> None:
        """Revoke the certificate of a prefix, and older ones of it that have not ended; make the prefix free.

        With `keep` nobody else ever gets it. Raises NotFound.
        """
        issued = self.issued(prefix)
        if issued is None:
            raise NotFound(f"no certificate for {prefix}")
        added = self._db.execute(
            "INSERT OR IGNORE INTO crl SELECT serial, not_after FROM re6st_superseded WHERE prefix = ?1"
            " AND not_after > ?2 UNION SELECT serial, not_after FROM re6st_issued WHERE prefix = ?1 AND not_after > ?2"
            " RETURNING serial",
            (prefix.bits, int(now)),
        ).fetchall()
        self._explain(prefix, [row[0] for row in added], now, reason)
        self._free(prefix, keep=keep)

    def revoke_superseded(self, prefix: Prefix, now: float, reason: str) -> list[int]:
        """Revoke the certificates of a prefix that were replaced and have not ended; returns their serials."""
        added = self._db.execute(
            "INSERT OR IGNORE INTO crl SELECT serial, not_after FROM re6st_superseded WHERE prefix = ?"
            " AND not_after > ? RETURNING serial",
            (prefix.bits, int(now)),
        )
        serials = [row[0] for row in added.fetchall()]
        self._explain(prefix, serials, now, reason)
        return serials

    def revoke_unknown(self, serial: int, not_after: float) -> None:
        """Revoke a serial whose certificate is not stored here."""
        self._db.execute("INSERT OR IGNORE INTO crl VALUES (?, ?)", (serial, int(not_after)))

    def _explain(self, prefix: Prefix, serials: list[int], now: float, reason: str) -> None:
        """Store for the operator whose the revoked certificates were."""
        self._db.executemany(
            "INSERT OR REPLACE INTO re6st_revoked SELECT ?2, prefix, email, ?3, ?4 FROM cert WHERE prefix = ?1",
            [(prefix.bits, serial, int(now), reason) for serial in serials],
        )

    def clean_up(self, now: float, grace: int, most: int = CLEAN_UP_LIMIT) -> bool:
        """Delete old tokens, certificates and revocations (wire.md 4.4); returns whether the list of revoked serials
        changed.

        `now` is the trusted time (core/registry/clock.py). The certificate of the registry's own node is never deleted.
        At most `most` certificates are deleted at once, so that nobody waits long.
        """
        limit = int(now) - grace
        self._db.execute(
            "DELETE FROM token WHERE token IN (SELECT token FROM token LEFT JOIN re6st_token USING (token)"
            " WHERE ifnull(expires, date + ?) <= ?)",
            (grace, int(now)),
        )
        self._db.execute("DELETE FROM re6st_superseded WHERE not_after <= ?", (int(now),))
        due = self._db.execute(
            "SELECT prefix, serial FROM re6st_issued WHERE not_after <= ? AND prefix IS NOT ?"
            " ORDER BY not_after LIMIT ?",
            (limit, self.config("prefix"), most),
        )
        for bits, serial in due.fetchall():
            logger.info("certificate %d of %s ended %d s ago: its prefix is free again", serial, bits, grace)
            self._free(Prefix.from_bits(bits))
        return self._db.execute("DELETE FROM crl WHERE date <= ?", (int(now),)).rowcount > 0
