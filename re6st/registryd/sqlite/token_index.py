"""Finds a token in a time that does not tell how much of a wrong one is right.

SQLite compares byte by byte. So tokens are looked up by a digest whose key only this process has: what is compared does
not depend on what was sent. The index is a temporary table of one connection, updated by temporary triggers. It takes
part in transactions, and is not in the database file.
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3

_STATEMENTS = (
    "PRAGMA temp_store = MEMORY",
    "CREATE TEMP TABLE re6st_digest (digest BLOB PRIMARY KEY NOT NULL, token TEXT NOT NULL) WITHOUT ROWID",
)
_TRIGGERS = (
    """CREATE TEMP TRIGGER IF NOT EXISTS re6st_digest_insert AFTER INSERT ON main.token BEGIN
  INSERT OR REPLACE INTO re6st_digest VALUES (token_digest(NEW.token), NEW.token); END""",
    """CREATE TEMP TRIGGER IF NOT EXISTS re6st_digest_delete AFTER DELETE ON main.token BEGIN
  DELETE FROM re6st_digest WHERE digest = token_digest(OLD.token); END""",
)


class TokenIndex:
    """The tokens of one connection's database."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Call this outside a transaction. Raises sqlite3.Error."""
        self._db = db
        key = secrets.token_bytes(32)

        def digest(token: str | bytes) -> bytes:
            return hmac.digest(
                key, token if isinstance(token, bytes) else token.encode("utf-8", "surrogatepass"), "sha256"
            )

        db.create_function("token_digest", 1, digest, deterministic=True)
        for statement in _STATEMENTS:
            db.execute(statement)

    def load(self) -> None:
        """Read all tokens: at first, and after another program changed them."""
        for statement in _TRIGGERS:
            self._db.execute(statement)
        self._db.execute("DELETE FROM re6st_digest")
        self._db.execute("INSERT OR REPLACE INTO re6st_digest SELECT token_digest(token), token FROM token")

    def find(self, token: str) -> str | None:
        """The token, if it exists."""
        row = self._db.execute("SELECT token FROM re6st_digest WHERE digest = token_digest(?)", (token,)).fetchone()
        return row and str(row[0])
