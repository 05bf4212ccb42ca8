"""Reads the registry's state in PostgreSQL: the Queries of its repository, over one connection."""

from __future__ import annotations

import hmac
import logging
from typing import Any

import psycopg

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.clock import Marks
from re6st.core.registry.presence import Stay
from re6st.keys import pki
from re6st.registryd.records import Issued, StoredEvent, Token
from re6st.registryd.repository import ContentError
from re6st.registryd.stored_configuration import StoredConfiguration

logger = logging.getLogger("store")

TOKEN_KEY = "re6st_token_key"  # noqa: S105 - the name of a value
"""Our own value of the configuration: the key of the digests by which tokens are found."""

_LACKS = "strpos(' ' || coalesce(s.extensions, '') || ' ', ' ' || %s || ' ') = 0"
"""The condition for nodes that did not announce an extension."""

Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresQueries(StoredConfiguration):
    """Reads rows over one connection."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def config(self, name: str) -> Any:
        """A value of the configuration; None if there is none."""
        row = self.one("SELECT kind, value FROM config WHERE name = %s", name)
        return None if row is None else from_text(*row)

    def pem(self, prefix: Prefix) -> bytes | None:
        """The certificate of a prefix."""
        row = self.one("SELECT pem FROM certificate WHERE prefix = %s", prefix.bits)
        return None if row is None else bytes(row[0], "ascii")

    def issued(self, prefix: Prefix) -> Issued | None:
        """The certificate of a prefix with its serial and end."""
        row = self.one("SELECT pem, serial, not_after FROM certificate WHERE prefix = %s", prefix.bits)
        return None if row is None else Issued(prefix, bytes(row[0], "ascii"), row[1], row[2])

    def prefix_by_serial(self, serial: int) -> Prefix | None:
        row = self.one("SELECT prefix FROM certificate WHERE serial = %s", serial)
        return Prefix.from_bits(row[0]) if row else None

    def prefix_by_email(self, email: str) -> Prefix | None:
        """The prefix of the first certificate with this e-mail address."""
        row = self.one("SELECT prefix FROM certificate WHERE email = %s ORDER BY position LIMIT 1", storable(email))
        return Prefix.from_bits(row[0]) if row else None

    def token(self, token: str, now: float = 0.0) -> Token | None:
        """What a token allows, unless it has an end of its own before `now`.

        The database compares byte by byte, and its time tells how much of a wrong token is right. So it compares
        digests, which do not depend on what was sent in a way that anybody else knows.
        """
        row = self.one(
            "SELECT email, prefix_length, uses, tags FROM token"
            " WHERE digest = %s AND (expires IS NULL OR expires > %s)",
            *(self._digest(token), now),
        )
        return None if row is None else Token(row[0], row[1], row[2], tuple(row[3].split()))

    def crl(self) -> list[int]:
        return [row[0] for row in self._db.execute("SELECT serial FROM revoked ORDER BY serial")]

    def is_revoked(self, serial: int) -> bool:
        return self.one("SELECT 1 FROM revoked WHERE serial = %s", serial) is not None

    def name(self, prefix: Prefix) -> str | None:
        """The name of a node."""
        row = self.one("SELECT name FROM name WHERE prefix = %s", prefix.bits)
        found: str | None = row and row[0]
        return found

    def named(self, name: str) -> Prefix | None:
        """The node that has a name."""
        row = self.one("SELECT prefix FROM name WHERE name = %s", storable(name))
        return Prefix.from_bits(row[0]) if row else None

    def count(self) -> int:
        """How many certificates there are."""
        found: int = self.one("SELECT count(*) FROM certificate")[0]
        return found

    def longest_prefix(self) -> int | None:
        """The length of the longest prefix that a node has; None if no node has one."""
        found: int | None = self.one("SELECT max(length(prefix)) FROM certificate")[0]
        return found

    def members(self, region: Prefix, limit: int) -> list[Prefix]:
        """The nodes whose prefixes begin with that of a region, who called last first."""
        found = self._db.execute(
            "SELECT prefix FROM certificate LEFT JOIN seen USING (prefix) WHERE prefix >= %s AND prefix < %s"
            " ORDER BY date DESC NULLS LAST LIMIT %s",
            (region.bits, region.bits + "2", limit),
        )
        return [Prefix.from_bits(row[0]) for row in found]

    def first_deadline(self, grace: int) -> float | None:
        """When something is to be cleaned up next, as Unix time."""
        row = self.one(
            "SELECT least((SELECT min(coalesce(expires, created + %s)) FROM token),"
            " (SELECT min(not_after) + %s FROM certificate WHERE prefix IS DISTINCT FROM"
            " (SELECT value FROM config WHERE name = 'prefix')), (SELECT min(listed_until) FROM revoked))",
            *(grace, grace),
        )
        deadline: float | None = row[0]
        return deadline

    def newest_issue(self) -> float | None:
        """When the newest certificate was issued, as Unix time; None if there is none, or it cannot be read."""
        row = self.one("SELECT pem FROM certificate ORDER BY serial DESC LIMIT 1")
        try:
            return None if row is None else pki.begin_of(cert.load_pem(bytes(row[0], "ascii"))).timestamp()
        except cert.CertError as error:
            logger.warning("the newest certificate in the database: %s", error)
            return None

    def events(self, limit: int) -> list[StoredEvent]:
        """The events, the oldest first; at most the last `limit`."""
        rows = self._db.execute(
            "SELECT number, time, kind, cn, text, count FROM event ORDER BY number DESC LIMIT %s", (limit,)
        ).fetchall()
        return [StoredEvent(*row) for row in reversed(rows)]

    def lacking(self, extension: str, limit: int = -1) -> list[Prefix]:
        """The nodes that have called, and did not announce this extension in their last call."""
        found = self._db.execute(
            f"SELECT s.prefix FROM seen AS s WHERE {_LACKS} ORDER BY s.prefix LIMIT %s".encode(),  # noqa: S608
            (extension, None if limit < 0 else limit),
        )
        return [Prefix.from_bits(row[0]) for row in found]

    def without(self, extension: str, now: float) -> list[Prefix]:
        """The nodes with a valid certificate that have never called, or do not announce this extension."""
        found = self._db.execute(
            "SELECT c.prefix FROM certificate AS c LEFT JOIN seen AS s USING (prefix)"  # noqa: S608 - our own words
            f" WHERE {_LACKS} AND c.not_after > %s ORDER BY c.prefix".encode(),
            (extension, now),
        )
        return [Prefix.from_bits(row[0]) for row in found]

    def stays(self) -> list[Stay]:
        """The nodes that are online, and since when."""
        rows = self._db.execute("SELECT prefix, since FROM stay WHERE online ORDER BY prefix")
        return [Stay(Prefix.from_bits(bits), True, since) for bits, since in rows]

    def marks(self) -> Marks | None:
        """The stored times of the clock."""
        row = self.one("SELECT trusted, seen FROM clock")
        return None if row is None else Marks(*row)

    def is_used(self, prefix: Prefix) -> bool:
        """Whether this leaf, or one that contains it, is used or reserved."""
        above = [prefix.bits[:length] for length in range(prefix.length + 1)]
        row = self.one(
            "SELECT 1 FROM certificate WHERE prefix = ANY(%s) UNION ALL SELECT 1 FROM reserved WHERE prefix = ANY(%s)"
            " LIMIT 1",
            *(above, above),
        )
        return row is not None

    def _digest(self, token: str) -> bytes:
        return hmac.digest(self.config(TOKEN_KEY), token.encode("utf-8", "surrogatepass"), "sha256")

    def one(self, statement: str, *values: Any) -> Any:
        """The first row that a statement finds; None if there is none."""
        return self._db.execute(statement.encode(), values).fetchone()


# --- values ---


def to_text(value: str | int | float | bytes) -> tuple[str, str]:
    """A value of the configuration as its two columns."""
    match value:
        case bytes():
            return "bytes", value.hex()
        case str():
            return "text", value
        case int():
            return "integer", str(value)
    return "real", repr(value)


def from_text(kind: str, value: str) -> str | int | float | bytes:
    """The value of two columns. Raises ContentError."""
    try:
        match kind:
            case "bytes":
                return bytes.fromhex(value)
            case "integer":
                return int(value)
            case "real":
                return float(value)
    except ValueError:
        raise ContentError(f"a value of the configuration is no {kind}") from None
    return value


def storable(text: str) -> str:
    """A text that PostgreSQL can store: it knows neither the character 0 nor half a surrogate pair."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
