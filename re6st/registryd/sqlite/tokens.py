"""Tokens: made, found in constant time, and used up."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from re6st.registryd.records import Token
from re6st.registryd.repository import Conflict
from re6st.registryd.sqlite.sql_queries import SqlQueries
from re6st.registryd.sqlite.token_index import TokenIndex


class Tokens(SqlQueries):
    """Writes tokens."""

    _tokens: TokenIndex

    def token(self, token: str, now: float = 0.0) -> Token | None:
        """Like SqlQueries.token, in a time that tells nothing about the existing tokens."""
        found = self._tokens.find(token)
        return None if found is None else super().token(found, now)

    def add_token(
        self,
        token: str,
        email: str,
        length: int,
        now: float,
        expires: float | None = None,
        *,
        uses: int = 1,
        tags: Sequence[str] = (),
    ) -> None:
        """Store a token that ends with the grace period after `now`, or at `expires`. Raises Conflict if it exists."""
        try:
            self._db.execute("INSERT INTO token VALUES (?, ?, ?, ?)", (token, email, length, int(now)))
        except sqlite3.IntegrityError:
            raise Conflict("this token exists already") from None
        if expires is not None:
            self._db.execute("INSERT OR REPLACE INTO re6st_token VALUES (?, ?)", (token, int(expires)))
        if uses > 1 or tags:
            self._db.execute("INSERT OR REPLACE INTO re6st_reusable VALUES (?, ?, ?)", (token, uses, " ".join(tags)))

    def use_token(self, token: str) -> None:
        """Count a use of an existing token; it is deleted with the last one."""
        left = "UPDATE re6st_reusable SET uses = uses - 1 WHERE token = ? AND uses > 1"
        if not self._db.execute(left, (token,)).rowcount:
            self.delete_token(token)

    def delete_token(self, token: str) -> bool:
        """Delete a token; returns whether it existed."""
        return self._db.execute("DELETE FROM token WHERE token = ?", (token,)).rowcount > 0
