"""Lists for the operator, read from the registry's database a page at a time, over a connection of their own.

Values are those of JSON: times as text in UTC, prefixes as CN and as bits. docs/registry-admin.md has every field.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from re6st import cert
from re6st.core.prefix import Prefix, address, address_bits, subnet

PAGE_LIMIT = 500
"""Rows of one page: some milliseconds."""
BUSY_TIMEOUT = 5.0
SERIAL_DIGITS = 18
_UNITS = (("year", 365.25 * 86400), ("day", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which nodes to list; times in Unix seconds."""

    email: str | None = None
    ends_before: int | None = None
    unseen_since: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    records: list[Record]
    next: str | None
    """Where the next page begins; None: this is the last."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. Raises sqlite3.Error."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
    try:
        yield db
    finally:
        db.close()


def iso(when: float | None) -> str | None:
    """A Unix time as text: 2027-06-01T00:00:00Z."""
    return None if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def relative(when: str | None, now: float | None = None) -> str:
    """A time as `in 12 days` or `4 s ago`."""
    if when is None:
        return "-"
    distance = datetime.strptime(when, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() - (now or time.time())
    name, size = next(((name, size) for name, size in _UNITS if abs(distance) >= 2 * size), _UNITS[-1])
    number = round(abs(distance) / size)
    text = f"{number} {name}{'s' if name in ('day', 'year') and number != 1 else ''}"
    return f"in {text}" if distance > 0 else f"{text} ago"


NODES = """
SELECT i.prefix, c.email, c.cert, i.serial, i.number, i.not_after, crl.serial, s.date, s.protocol, s.software,
  e.names
FROM re6st_issued AS i JOIN cert AS c USING (prefix) LEFT JOIN re6st_seen AS s USING (prefix)
LEFT JOIN re6st_extensions AS e ON e.prefix = s.prefix AND e.date = s.date
LEFT JOIN crl ON crl.serial = i.serial """
"""The columns that `node_record` takes."""


def nodes(db: sqlite3.Connection, network: IPv6Network, wanted: Filter, after: str) -> Page:
    """Nodes by their address, those behind the prefix `after` in bits."""
    rows = db.execute(
        NODES + "WHERE i.prefix > ?1 AND (?2 IS NULL OR c.email = ?2) AND (?3 IS NULL OR i.not_after <= ?3)"
        " AND (?4 IS NULL OR s.date IS NULL OR s.date < ?4) ORDER BY i.prefix LIMIT ?5",
        (after, wanted.email, wanted.ends_before, wanted.unseen_since, PAGE_LIMIT),
    ).fetchall()
    own = registry_bits(db)
    return _page([node_record(row, network, own) for row in rows], "prefix")


def find(db: sqlite3.Connection, network: IPv6Network, target: str) -> Record | None:
    """The node with a CN, a serial of its certificate or an older one, or an address in its subnet.

    Raises ValueError: none of these.
    """
    if is_serial(target):
        older = "(SELECT prefix FROM re6st_superseded WHERE serial = ?1)"
        query = f"{NODES} WHERE i.serial = ?1 OR i.prefix = {older} ORDER BY i.serial = ?1 DESC"
        row = db.execute(query, (int(target),)).fetchone()
    else:
        candidates = prefixes_above(network, IPv6Address(target)) if ":" in target else [Prefix.from_cn(target).bits]
        rows = (db.execute(NODES + "WHERE i.prefix = ?", (bits,)).fetchone() for bits in candidates)
        row = next((each for each in rows if each is not None), None)
    if row is None:
        return None
    found = db.execute("SELECT serial FROM re6st_superseded WHERE prefix = ? ORDER BY serial", (row[0],))
    return node_record(row, network, registry_bits(db)) | {"older_serials": [serial for (serial,) in found]}


def is_serial(text: str) -> bool:
    """Whether this is a serial rather than a CN."""
    return text.isascii() and text.isdigit() and len(text) <= SERIAL_DIGITS


def prefixes_above(network: IPv6Network, ip: IPv6Address) -> list[str]:
    """The prefixes whose subnets have an address in them."""
    inside = address_bits(network, ip)
    return [] if inside is None else [inside.bits[:length] for length in range(1, inside.length + 1)]


def tokens(db: sqlite3.Connection, grace: int, now: float, after: str, limit: int | None = None) -> Page:
    """Tokens in the order of the alphabet, those behind `after`."""
    rows = db.execute(
        "SELECT token, email, prefix_len, date, ifnull(expires, date + ?1) FROM token LEFT JOIN re6st_token"
        " USING (token) WHERE token > ?2 ORDER BY token LIMIT ?3",
        (grace, after, limit or PAGE_LIMIT),
    ).fetchall()
    records = [
        {
            "token": token,
            "email": email or None,
            "prefix_length": length,
            "created": iso(created),
            "expires": iso(expires),
            "expired": expires <= now,
        }
        for token, email, length, created, expires in rows
    ]
    return _page(records, "token", limit)


def revoked(db: sqlite3.Connection, after: str) -> Page:
    """The list of revoked certificates by their serial, those behind the serial `after`."""
    rows = db.execute(
        "SELECT crl.serial, crl.date, coalesce(r.prefix, i.prefix, s.prefix), coalesce(r.email, c.email), r.date,"
        " r.reason FROM crl LEFT JOIN re6st_revoked AS r USING (serial) LEFT JOIN re6st_issued AS i USING (serial)"
        " LEFT JOIN re6st_superseded AS s USING (serial) LEFT JOIN cert AS c ON c.prefix = i.prefix"
        " WHERE crl.serial > ? ORDER BY crl.serial LIMIT ?",
        (int(after or -1), PAGE_LIMIT),
    ).fetchall()
    records = [
        {
            "serial": serial,
            "cn": None if bits is None else Prefix.from_bits(bits).cn,
            "email": email or None,
            "revoked": iso(when),
            "reason": reason or None,
            "listed_until": iso(until),
        }
        for serial, until, bits, email, when, reason in rows
    ]
    return _page(records, "serial")


def _page(records: list[Record], key: str, limit: int | None = None) -> Page:
    return Page(records, str(records[-1][key]) if len(records) == (limit or PAGE_LIMIT) else None)


def registry_bits(db: sqlite3.Connection) -> str | None:
    row = db.execute("SELECT value FROM config WHERE name = 'prefix'").fetchone()
    return row and str(row[0])


def node_record(row: tuple[Any, ...], network: IPv6Network, own: str | None) -> Record:
    bits, email, pem, serial, number, not_after, is_revoked, seen, protocol, software, names = row
    prefix = Prefix.from_bits(bits)
    return {
        "cn": prefix.cn,
        "prefix": bits,
        "subnet": str(subnet(network, prefix)),
        "address": str(address(network, prefix)),
        "email": email or None,
        "serial": serial,
        "number": number,
        "issued": _issued(pem),
        "expires": iso(not_after),
        "revoked": is_revoked is not None,
        "registry": bits == own,
        "seen": iso(seen),
        "version": software or None,
        "protocol": protocol,
        "extensions": None if protocol is None else (names or "").split(),
    }


def _issued(pem: str | bytes) -> str | None:
    """When a certificate was issued; only the certificate itself says so."""
    try:
        found = cert.load_pem(pem.encode("ascii", "replace") if isinstance(pem, str) else pem)
        return iso(cert.issued_at(found).timestamp())
    except (cert.CertError, ValueError):
        return None
