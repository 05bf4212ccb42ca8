"""The longer queries of the registry's state in PostgreSQL: pages of nodes, tokens and revocations, and counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from re6st.core.prefix import Prefix
from re6st.core.wire.extensions import Extension
from re6st.registryd.listed_rows import TOP_SOFTWARE, like, names_of, node_of, revoked_of, token_of
from re6st.registryd.postgresql.queries import PostgresQueries, storable
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

_FROM = (
    " FROM certificate AS c LEFT JOIN seen AS s ON s.prefix = c.prefix LEFT JOIN revoked AS r ON r.serial = c.serial "
    "LEFT JOIN tags AS t ON t.prefix = c.prefix LEFT JOIN stay AS y ON y.prefix = c.prefix "
    "LEFT JOIN name AS n ON n.prefix = c.prefix "
)
_NODES = (
    "SELECT c.prefix, c.email, c.pem, c.serial, c.number, c.not_after, r.serial IS NOT NULL, s.date, s.protocol,"
    " s.software, s.extensions, t.names, y.online, y.since, n.name" + _FROM
)
"""The columns that `_node` needs."""
_NAMES = (
    "SELECT c.prefix, c.email, s.software, n.name FROM certificate AS c LEFT JOIN seen AS s ON s.prefix = c.prefix"
    " LEFT JOIN name AS n ON n.prefix = c.prefix "
)
_OLDER = f"strpos(' ' || coalesce(s.extensions, '') || ' ', ' {Extension.BABEL_HELLO} ') = 0"
"""The condition for nodes of older software, for which the network's hellos have to be long."""

_SORTS: Mapping[str, tuple[str, ...]] = {
    "address": ("c.prefix",),
    "email": ("c.email IS NULL", "c.email"),
    "seen": ("coalesce(s.date, 0)",),
    "expires": ("c.not_after",),
    "version": ("s.software IS NULL", "s.software"),
    "serial": ("c.serial",),
}
"""The SQL for each of NODE_SORTS."""
_STATES: Mapping[str, str] = {
    "all": "",
    "online": " AND c.prefix = ANY(%(online)s)",
    "offline": " AND c.prefix <> ALL(%(online)s)",
    "expiring": " AND c.not_after <= %(soon)s",
    "revoked": " AND r.serial IS NOT NULL",
    "older": f" AND s.protocol IS NOT NULL AND {_OLDER}",
}
"""The SQL for each of NODE_STATES."""


class PostgresLists(PostgresQueries):
    """The Lists of a database."""

    def nodes(self, wanted: NodeFilter, after: str, limit: int) -> list[ListedNode]:
        """Nodes in the order of their addresses, after the prefix `after` in bits."""
        conditions, values = ["c.prefix > %(after)s"], {"after": after, "limit": limit} | _filled(wanted)
        if wanted.email is not None:
            conditions.append("c.email = %(email)s")
        if wanted.ends_before is not None:
            conditions.append("c.not_after <= %(ends_before)s")
        if wanted.unseen_since is not None:
            conditions.append("(s.date IS NULL OR s.date < %(unseen_since)s)")
        where = " AND ".join(conditions)
        return [_node(row) for row in self._rows(f"{_NODES} WHERE {where} ORDER BY c.prefix LIMIT %(limit)s", values)]

    def node(self, prefix: Prefix) -> ListedNode | None:
        """The node of a prefix."""
        row = self.one(_NODES + "WHERE c.prefix = %s", prefix.bits)
        return None if row is None else _node(row)

    def node_by_serial(self, serial: int) -> ListedNode | None:
        """The node whose certificate has, or had, a serial."""
        older = "(SELECT prefix FROM superseded WHERE serial = %s)"
        where = f"WHERE c.serial = %s OR c.prefix = {older} ORDER BY c.serial = %s DESC"
        row = self.one(_NODES + where, serial, serial, serial)
        return None if row is None else _node(row)

    def older_serials(self, prefix: Prefix) -> list[int]:
        """The serials of a node's certificates that were replaced and have not ended."""
        found = self._db.execute("SELECT serial FROM superseded WHERE prefix = %s ORDER BY serial", (prefix.bits,))
        return [serial for (serial,) in found]

    def select_nodes(self, wanted: NodeSelection) -> tuple[int, list[ListedNode]]:
        """How many nodes a selection has, and the part of them that it asks for."""
        condition, values = _search(wanted.search)
        values |= {"soon": wanted.ends_before, "online": _bits(wanted.online or ())}
        condition += _STATES[wanted.state]
        if wanted.state in ("online", "offline") and wanted.online is None:
            condition += " AND false"
        total = self._rows(f"SELECT count(*) {_FROM} WHERE {condition}", values)[0][0]
        order = ", ".join(part + (" DESC" if wanted.descending else "") for part in _SORTS[wanted.sort])
        rows = self._rows(
            f"{_NODES} WHERE {condition} ORDER BY {order}, c.prefix LIMIT %(limit)s OFFSET %(offset)s",
            values | {"limit": wanted.limit, "offset": wanted.offset},
        )
        return total, [_node(row) for row in rows]

    def tokens(self, grace: int, after: str, limit: int) -> list[ListedToken]:
        """Tokens in alphabetical order, after `after`."""
        rows = self._db.execute(
            "SELECT token, email, prefix_length, created, coalesce(expires, created + %s), uses, tags FROM token"
            " WHERE token > %s ORDER BY token LIMIT %s",
            (grace, storable(after), limit),
        )
        return [token_of(row) for row in rows]

    def every_token(self) -> Iterator[str]:
        """All tokens."""
        for (token,) in self._db.execute("SELECT token FROM token"):
            yield token

    def revoked(self, after: int, limit: int) -> list[RevokedCertificate]:
        """Revoked certificates in the order of their serials, after the serial `after`."""
        rows = self._db.execute(
            "SELECT r.serial, coalesce(r.prefix, c.prefix, s.prefix), coalesce(r.email, c.email), r.date, r.reason,"
            " r.listed_until FROM revoked AS r LEFT JOIN certificate AS c ON c.serial = r.serial"
            " LEFT JOIN superseded AS s ON s.serial = r.serial WHERE r.serial > %s ORDER BY r.serial LIMIT %s",
            (after, limit),
        )
        return revoked_of(rows)

    def names(self, limit: int) -> list[NodeName]:
        """The names of the first nodes by address."""
        return names_of(self._rows(_NAMES + "ORDER BY c.prefix LIMIT %(limit)s", {"limit": limit}))

    def names_of(self, prefixes: Iterable[Prefix]) -> list[NodeName]:
        """The names of those of these nodes that have a certificate."""
        condition = "WHERE c.prefix = ANY(%(wanted)s) ORDER BY c.prefix"
        return names_of(self._rows(_NAMES + condition, {"wanted": _bits(prefixes)}))

    def counts(self, online: Iterable[Prefix], now: int, soon: int) -> RegistryCounts:
        """The numbers of the overview; a certificate that ends before `soon` is expiring."""
        software = self._db.execute(
            f"SELECT s.software, s.protocol, s.protocol IS NOT NULL AND {_OLDER}, count(*)"  # noqa: S608 - our own words
            " FROM certificate AS c LEFT JOIN seen AS s ON s.prefix = c.prefix GROUP BY 1, 2, 3"
            " ORDER BY 4 DESC LIMIT %s".encode(),
            (TOP_SOFTWARE,),
        ).fetchall()
        nodes, routed, expiring, expired, never_seen = self.one(
            "SELECT count(*), count(*) FILTER (WHERE c.prefix = ANY(%s)),"
            " count(*) FILTER (WHERE not_after <= %s AND not_after > %s), count(*) FILTER (WHERE not_after <= %s),"
            " count(*) FILTER (WHERE s.date IS NULL)"
            " FROM certificate AS c LEFT JOIN seen AS s ON s.prefix = c.prefix",
            *(_bits(online), soon, now, now),
        )
        return RegistryCounts(
            nodes=nodes,
            routed=routed,
            expiring=expiring,
            expired=expired,
            never_seen=never_seen,
            tokens=self.one("SELECT count(*) FROM token")[0],
            revoked=self.one("SELECT count(*) FROM revoked")[0],
            software=tuple(SoftwareCount(*row) for row in software),
        )

    def figures(self, now: float, soon: int, since: int, grace: int, seen_limit: int) -> Figures:
        """The facts for monitoring: the software of nodes that called after `since`; when nodes last called, for at
        most `seen_limit` nodes.
        """
        moment = int(now)
        valid, expiring, ended = self.one(
            "SELECT count(*) FILTER (WHERE not_after >= %s),"
            " count(*) FILTER (WHERE not_after >= %s AND not_after < %s), count(*) FILTER (WHERE not_after < %s)"
            " FROM certificate AS c WHERE NOT EXISTS (SELECT 1 FROM revoked AS r WHERE r.serial = c.serial)",
            *(soon, moment, soon, moment),
        )
        unused, expired = self.one(
            "SELECT count(*) FILTER (WHERE ends > %s), count(*) FILTER (WHERE ends <= %s)"
            " FROM (SELECT coalesce(expires, created + %s) AS ends FROM token) AS each",
            *(now, now, grace),
        )
        free = self._db.execute("SELECT length, count(*) FROM free_leaf GROUP BY 1 ORDER BY 1").fetchall()
        software = self._db.execute(
            "SELECT software, protocol, count(*) AS n FROM seen WHERE date > %s GROUP BY 1, 2 ORDER BY n DESC", (since,)
        ).fetchall()
        seen = self._db.execute("SELECT prefix, date FROM seen ORDER BY prefix LIMIT %s", (seen_limit,)).fetchall()
        revoked = self.one("SELECT count(*) FROM revoked")[0]
        return Figures(
            certificates={"valid": valid, "expiring": expiring, "grace": ended, "revoked": revoked},
            earliest=self.one("SELECT min(not_after) FROM certificate WHERE not_after > %s", moment)[0],
            tokens={"unused": unused, "expired": expired},
            free=dict(free),
            software={(name, protocol): total for name, protocol, total in software},
            seen=tuple((Prefix.from_bits(bits), date) for bits, date in seen),
            gone=self.one(
                "SELECT count(*) FROM stay WHERE NOT online AND since BETWEEN %s AND %s",
                *(moment - GONE_UNTIL, moment - GONE_AFTER),
            )[0],
        )

    def _rows(self, statement: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        return self._db.execute(statement.encode(), values).fetchall()


def _filled(wanted: NodeFilter) -> dict[str, object]:
    values: dict[str, object] = {"ends_before": wanted.ends_before, "unseen_since": wanted.unseen_since}
    return values | {"email": None if wanted.email is None else storable(wanted.email)}


def _node(row: tuple[Any, ...]) -> ListedNode:
    return node_of(row, bytes(row[2], "ascii"))


def _search(search: NodeSearch) -> tuple[str, dict[str, Any]]:
    """The condition for a search."""
    if search.serial is not None:
        return "c.serial = %(serial)s", {"serial": search.serial}
    if search.prefixes is not None:
        return "c.prefix = ANY(%(inside)s)", {"inside": _bits(search.prefixes)}
    if not search.text:
        return "true", {}
    return "(n.name ILIKE %(like)s OR c.email ILIKE %(like)s OR s.software ILIKE %(like)s)", {
        "like": like(storable(search.text))
    }


def _bits(prefixes: Iterable[Prefix]) -> list[str]:
    return [prefix.bits for prefix in prefixes]
