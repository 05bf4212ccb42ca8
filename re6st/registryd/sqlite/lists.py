"""The longer queries of the registry's database: pages of nodes, tokens and revocations, and counts.

Each one runs in a thread, over its own read-only connection (`reading`), so that nobody waits for it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from re6st.core.prefix import Prefix
from re6st.core.wire.extensions import Extension
from re6st.registryd.listed_rows import TOP_SOFTWARE, like, names_of, node_of, revoked_of, token_of
from re6st.registryd.records import (
    GONE_AFTER,
    GONE_UNTIL,
    Figures,
    ListedNode,
    ListedToken,
    NodeFilter,
    NodeName,
    NodeSearch,
    NodeSelection,
    RegistryCounts,
    RevokedCertificate,
    SoftwareCount,
)
from re6st.registryd.sqlite.certificate_table import pem_of
from re6st.registryd.sqlite.sql_queries import SqlQueries
from re6st.service.sqlite_files import readable_errors

BUSY_TIMEOUT = 5.0

_FROM = """
FROM re6st_issued AS i JOIN cert AS c USING (prefix) LEFT JOIN re6st_seen AS s USING (prefix)
LEFT JOIN re6st_extensions AS e ON e.prefix = s.prefix AND e.date = s.date
LEFT JOIN crl ON crl.serial = i.serial LEFT JOIN re6st_tags AS t USING (prefix)
LEFT JOIN re6st_stay AS y USING (prefix) LEFT JOIN re6st_name AS n ON n.prefix = i.prefix """

_NODES = (
    "SELECT i.prefix, c.email, c.cert, i.serial, i.number, i.not_after, crl.serial IS NOT NULL, s.date, s.protocol,"
    " s.software, e.names, t.names, y.online, y.since, n.name" + _FROM
)
"""The columns that `_node` needs."""

_NAMES = (
    "SELECT i.prefix, c.email, s.software, n.name FROM re6st_issued AS i JOIN cert AS c USING (prefix)"
    " LEFT JOIN re6st_seen AS s USING (prefix) LEFT JOIN re6st_name AS n ON n.prefix = i.prefix "
)

_OLDER = f"NOT instr(' ' || ifnull(e.names, '') || ' ', ' {Extension.BABEL_HELLO} ')"
"""The condition for nodes of older software, for which the network's hellos have to be long."""

_SORTS: Mapping[str, tuple[str, ...]] = {
    "address": ("i.prefix",),
    "email": ("c.email IS NULL", "c.email"),
    "seen": ("ifnull(s.date, 0)",),
    "expires": ("i.not_after",),
    "version": ("s.software IS NULL", "s.software"),
    "serial": ("i.serial",),
}
"""The SQL for each of NODE_SORTS."""

_STATES: Mapping[str, str] = {
    "all": "",
    "online": " AND i.prefix IN (SELECT value FROM json_each(:online))",
    "offline": " AND i.prefix NOT IN (SELECT value FROM json_each(:online))",
    "expiring": " AND i.not_after <= :soon",
    "revoked": " AND crl.serial IS NOT NULL",
    "older": f" AND s.protocol IS NOT NULL AND {_OLDER}",
}
"""The SQL for each of NODE_STATES."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection. Raises sqlite3.Error."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
    with closing(db), readable_errors():
        yield db


class ListRows(SqlQueries):
    """The Lists of a database."""

    def nodes(self, wanted: NodeFilter, after: str, limit: int) -> list[ListedNode]:
        """Nodes in the order of their addresses, after the prefix `after` in bits."""
        rows = self._db.execute(
            _NODES + "WHERE i.prefix > ?1 AND (?2 IS NULL OR c.email = ?2) AND (?3 IS NULL OR i.not_after <= ?3)"
            " AND (?4 IS NULL OR s.date IS NULL OR s.date < ?4) ORDER BY i.prefix LIMIT ?5",
            (after, wanted.email, wanted.ends_before, wanted.unseen_since, limit),
        )
        return [_node(row) for row in rows]

    def node(self, prefix: Prefix) -> ListedNode | None:
        """The node of a prefix."""
        row = self._one(_NODES + "WHERE i.prefix = ?", prefix.bits)
        return None if row is None else _node(row)

    def node_by_serial(self, serial: int) -> ListedNode | None:
        """The node whose certificate has, or had, a serial."""
        older = "(SELECT prefix FROM re6st_superseded WHERE serial = ?1)"
        row = self._one(f"{_NODES} WHERE i.serial = ?1 OR i.prefix = {older} ORDER BY i.serial = ?1 DESC", serial)
        return None if row is None else _node(row)

    def older_serials(self, prefix: Prefix) -> list[int]:
        """The serials of a node's certificates that were replaced and have not ended."""
        found = self._db.execute("SELECT serial FROM re6st_superseded WHERE prefix = ? ORDER BY serial", (prefix.bits,))
        return [serial for (serial,) in found]

    def select_nodes(self, wanted: NodeSelection) -> tuple[int, list[ListedNode]]:
        """How many nodes a selection has, and the part of them that it asks for."""
        condition, values = _search(wanted.search)
        values |= {"soon": wanted.ends_before, "online": _bits(wanted.online or ())}
        condition += _STATES[wanted.state]
        if wanted.state in ("online", "offline") and wanted.online is None:
            condition += " AND 0"
        total = self._db.execute(f"SELECT count(*) {_FROM} WHERE {condition}", values).fetchone()[0]
        order = ", ".join(part + (" DESC" if wanted.descending else "") for part in _SORTS[wanted.sort])
        rows = self._db.execute(
            f"{_NODES} WHERE {condition} ORDER BY {order}, i.prefix LIMIT :limit OFFSET :offset",
            values | {"limit": wanted.limit, "offset": wanted.offset},
        )
        return total, [_node(row) for row in rows]

    def tokens(self, grace: int, after: str, limit: int) -> list[ListedToken]:
        """Tokens in alphabetical order, after `after`."""
        rows = self._db.execute(
            "SELECT token, email, prefix_len, date, ifnull(expires, date + ?1), ifnull(uses, 1), ifnull(tags, '')"
            " FROM token LEFT JOIN re6st_token USING (token) LEFT JOIN re6st_reusable USING (token)"
            " WHERE token > ?2 ORDER BY token LIMIT ?3",
            (grace, after, limit),
        )
        return [token_of(row) for row in rows]

    def every_token(self) -> Iterator[str]:
        """All tokens."""
        for (token,) in self._db.execute("SELECT token FROM token"):
            yield token

    def revoked(self, after: int, limit: int) -> list[RevokedCertificate]:
        """Revoked certificates in the order of their serials, after the serial `after`."""
        rows = self._db.execute(
            "SELECT crl.serial, coalesce(r.prefix, i.prefix, s.prefix), coalesce(r.email, c.email), r.date, r.reason,"
            " crl.date FROM crl LEFT JOIN re6st_revoked AS r USING (serial) LEFT JOIN re6st_issued AS i USING (serial)"
            " LEFT JOIN re6st_superseded AS s USING (serial) LEFT JOIN cert AS c ON c.prefix = i.prefix"
            " WHERE crl.serial > ? ORDER BY crl.serial LIMIT ?",
            (after, limit),
        )
        return revoked_of(rows)

    def names(self, limit: int) -> list[NodeName]:
        """The names of the first nodes by address."""
        return names_of(self._db.execute(_NAMES + "ORDER BY i.prefix LIMIT ?", (limit,)))

    def names_of(self, prefixes: Iterable[Prefix]) -> list[NodeName]:
        """The names of those of these nodes that have a certificate."""
        condition = "WHERE i.prefix IN (SELECT value FROM json_each(?)) ORDER BY i.prefix"
        return names_of(self._db.execute(_NAMES + condition, (_bits(prefixes),)))

    def counts(self, online: Iterable[Prefix], now: int, soon: int) -> RegistryCounts:
        """The numbers of the overview; a certificate that ends before `soon` is expiring."""

        def count(statement: str, *values: object) -> int:
            found: int = self._one(f"SELECT count(*) FROM {statement}", *values)[0]  # noqa: S608 - our own words
            return found

        software = self._db.execute(
            f"SELECT s.software, s.protocol, s.protocol IS NOT NULL AND {_OLDER}, count(*)"  # noqa: S608 - our own words
            " FROM re6st_issued LEFT JOIN re6st_seen AS s USING (prefix) LEFT JOIN re6st_extensions AS e"
            " ON e.prefix = s.prefix AND e.date = s.date GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT ?",
            (TOP_SOFTWARE,),
        )
        return RegistryCounts(
            nodes=count("re6st_issued"),
            routed=count("re6st_issued WHERE prefix IN (SELECT value FROM json_each(?))", _bits(online)),
            expiring=count("re6st_issued WHERE not_after <= ? AND not_after > ?", soon, now),
            expired=count("re6st_issued WHERE not_after <= ?", now),
            never_seen=count("re6st_issued LEFT JOIN re6st_seen USING (prefix) WHERE date IS NULL"),
            tokens=count("token"),
            revoked=count("crl"),
            software=tuple(SoftwareCount(name, protocol, bool(old), total) for name, protocol, old, total in software),
        )

    def figures(self, now: float, soon: int, since: int, grace: int, seen_limit: int) -> Figures:
        """The facts for monitoring: the software of nodes that called after `since`; when nodes last called, for at
        most `seen_limit` nodes.
        """
        valid, expiring, ended = self._one(
            "SELECT total(not_after >= ?2), total(not_after BETWEEN ?1 AND ?2 - 1), total(not_after < ?1)"
            " FROM re6st_issued WHERE serial NOT IN (SELECT serial FROM crl)",
            *(int(now), soon),
        )
        (revoked,) = self._one("SELECT count(*) FROM crl")
        unused, expired = self._one(
            "SELECT total(ifnull(expires, date + ?1) > ?2), total(ifnull(expires, date + ?1) <= ?2)"
            " FROM token LEFT JOIN re6st_token USING (token)",
            *(grace, now),
        )
        (earliest,) = self._one("SELECT min(not_after) FROM re6st_issued WHERE not_after > ?", int(now))
        free = self._db.execute("SELECT length(prefix), count(*) FROM cert WHERE cert IS NULL GROUP BY 1 ORDER BY 1")
        software = self._db.execute(
            "SELECT software, protocol, count(*) AS n FROM re6st_seen WHERE date > ? GROUP BY 1, 2 ORDER BY n DESC",
            (since,),
        )
        seen = self._db.execute("SELECT prefix, date FROM re6st_seen ORDER BY prefix LIMIT ?", (seen_limit,))
        return Figures(
            certificates={"valid": int(valid), "expiring": int(expiring), "grace": int(ended), "revoked": revoked},
            earliest=earliest,
            tokens={"unused": int(unused), "expired": int(expired)},
            free=dict(free.fetchall()),
            software={(name, protocol): total for name, protocol, total in software},
            seen=tuple((Prefix.from_bits(bits), date) for bits, date in seen),
            gone=self._one(
                "SELECT count(*) FROM re6st_stay WHERE NOT online AND since BETWEEN ? AND ?",
                *(int(now) - GONE_UNTIL, int(now) - GONE_AFTER),
            )[0],
        )


def _node(row: tuple[Any, ...]) -> ListedNode:
    return node_of(row, pem_of(row[2]))


def _search(search: NodeSearch) -> tuple[str, dict[str, Any]]:
    """The condition for a search."""
    if search.serial is not None:
        return "i.serial = :serial", {"serial": search.serial}
    if search.prefixes is not None:
        return "i.prefix IN (SELECT value FROM json_each(:inside))", {"inside": _bits(search.prefixes)}
    if not search.text:
        return "1", {}
    columns = " OR ".join(f"{column} LIKE :like ESCAPE '\\'" for column in ("n.name", "c.email", "s.software"))
    return f"({columns})", {"like": like(search.text)}


def _bits(prefixes: Iterable[Prefix]) -> str:
    return json.dumps([prefix.bits for prefix in prefixes])
