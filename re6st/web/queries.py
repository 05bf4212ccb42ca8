"""What the operator's page reads from the registry's database: a page of nodes, and the numbers of the overview."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from re6st.core.prefix import Prefix, PrefixError
from re6st.core.wire.extensions import Extension
from re6st.registryd.listings import NODES, Record, is_serial, node_record, prefixes_above, registry_bits

PAGE = 50
"""Nodes of one page."""
EXPIRING = 30 * 86400
"""Seconds: a certificate that ends within is marked; nodes renew a month before."""
SEARCH_LIMIT = 100
TOP_VERSIONS = 20

SORTS: Mapping[str, tuple[str, ...]] = {
    "address": ("i.prefix",),
    "email": ("c.email IS NULL", "c.email"),
    "seen": ("ifnull(s.date, 0)",),
    "expires": ("i.not_after",),
    "version": ("s.software IS NULL", "s.software"),
    "serial": ("i.serial",),
}
"""The columns a list can be sorted by, each with the expressions of SQL that it is sorted by."""

STATES = ("all", "online", "offline", "expiring", "revoked", "older")


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """Which nodes to list. `online` are those with a route; None: unknown, and then no node is online or offline."""

    search: str = ""
    state: str = "all"
    sort: str = "address"
    descending: bool = False
    offset: int = 0
    online: frozenset[Prefix] | None = None
    limit: int = PAGE


def nodes(db: sqlite3.Connection, network: IPv6Network, query: NodeQuery, now: float) -> Record:
    """One page of nodes, and how many there are on all pages."""
    wanted, values = _search(network, query.search)
    values |= {"now": int(now), "soon": int(now) + EXPIRING, "online": _bits(query.online or ())}
    wanted += _STATE_CONDITIONS[query.state]
    if query.state in ("online", "offline") and query.online is None:
        wanted += " AND 0"
    total = db.execute(f"SELECT count(*) {_FROM} WHERE {wanted}", values).fetchone()[0]
    order = ", ".join(part + (" DESC" if query.descending else "") for part in SORTS[query.sort])
    rows = db.execute(
        f"{NODES} WHERE {wanted} ORDER BY {order}, i.prefix LIMIT :limit OFFSET :offset",
        values | {"limit": query.limit, "offset": query.offset},
    ).fetchall()
    own = registry_bits(db)
    return {"total": total, "nodes": [node_record(row, network, own) for row in rows]}


OLDER = f"NOT instr(' ' || ifnull(e.names, '') || ' ', ' {Extension.BABEL_HELLO} ')"
"""The condition for nodes of older software: the network's hellos have to be long for them."""

_FROM = NODES[NODES.index("FROM ") :]

_STATE_CONDITIONS: Mapping[str, str] = {
    "all": "",
    "online": " AND i.prefix IN (SELECT value FROM json_each(:online))",
    "offline": " AND i.prefix NOT IN (SELECT value FROM json_each(:online))",
    "expiring": " AND i.not_after <= :soon",
    "revoked": " AND crl.serial IS NOT NULL",
    "older": f" AND s.protocol IS NOT NULL AND {OLDER}",
}


def _search(network: IPv6Network, text: str) -> tuple[str, dict[str, Any]]:
    """The condition for what somebody looks for: a CN, an address, a serial, or a part of an e-mail or a version."""
    text = text.strip()[:SEARCH_LIMIT]
    if not text:
        return "1", {}
    if is_serial(text):
        return "i.serial = :serial", {"serial": int(text)}
    try:
        return "i.prefix = :bits", {"bits": Prefix.from_cn(text).bits}
    except PrefixError:
        pass
    try:
        inside = prefixes_above(network, IPv6Address(text.partition("/")[0]))
        return "i.prefix IN (SELECT value FROM json_each(:inside))", {"inside": json.dumps(inside)}
    except ValueError:
        pass
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return "(c.email LIKE :like ESCAPE '\\' OR s.software LIKE :like ESCAPE '\\')", {"like": f"%{escaped}%"}


def _bits(prefixes: Iterable[Prefix]) -> str:
    return json.dumps([prefix.bits for prefix in prefixes])


def numbers(db: sqlite3.Connection, online: frozenset[Prefix] | None, now: float) -> Record:
    """What the overview counts."""

    def count(statement: str, *values: object) -> int:
        found: int = db.execute(f"SELECT count(*) FROM {statement}", values).fetchone()[0]  # noqa: S608 - our own words
        return found

    known = count("re6st_issued")
    routed = count("re6st_issued WHERE prefix IN (SELECT value FROM json_each(?))", _bits(online or ()))
    versions = db.execute(
        f"SELECT s.software, s.protocol, s.protocol IS NOT NULL AND {OLDER}, count(*)"  # noqa: S608 - our own words
        " FROM re6st_issued LEFT JOIN re6st_seen AS s USING (prefix) LEFT JOIN re6st_extensions AS e"
        " ON e.prefix = s.prefix AND e.date = s.date GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT ?",
        (TOP_VERSIONS,),
    )
    return {
        "nodes": known,
        "online": None if online is None else routed,
        "offline": None if online is None else known - routed,
        "expiring": count("re6st_issued WHERE not_after <= ? AND not_after > ?", int(now) + EXPIRING, int(now)),
        "expired": count("re6st_issued WHERE not_after <= ?", int(now)),
        "never_seen": count("re6st_issued LEFT JOIN re6st_seen USING (prefix) WHERE date IS NULL"),
        "tokens": count("token"),
        "revoked": count("crl"),
        "versions": [
            {"version": software or None, "protocol": protocol, "older": bool(older), "nodes": nodes}
            for software, protocol, older, nodes in versions
        ],
    }


def names(db: sqlite3.Connection, limit: int) -> list[tuple[str, str | None, str | None]]:
    """Prefix in bits, e-mail address and version of the first nodes by address."""
    return db.execute(
        "SELECT i.prefix, c.email, s.software FROM re6st_issued AS i JOIN cert AS c USING (prefix)"
        " LEFT JOIN re6st_seen AS s USING (prefix) ORDER BY i.prefix LIMIT ?",
        (limit,),
    ).fetchall()


def known(db: sqlite3.Connection, prefixes: Iterable[Prefix]) -> list[tuple[str, str | None, str | None]]:
    """Prefix in bits, e-mail address and version of those of these nodes that have a certificate."""
    return db.execute(
        "SELECT i.prefix, c.email, s.software FROM re6st_issued AS i JOIN cert AS c USING (prefix)"
        " LEFT JOIN re6st_seen AS s USING (prefix) WHERE i.prefix IN (SELECT value FROM json_each(?))"
        " ORDER BY i.prefix",
        (_bits(prefixes),),
    ).fetchall()
