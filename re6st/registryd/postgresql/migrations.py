"""The tables of a registry in PostgreSQL, and how those of an older release become ours.

Each migration is run once, in order, in one transaction, by whichever process comes first. A migration only adds: what
an older process reads and writes stays as it is, so that processes can be upgraded one after the other. A later
release removes what nobody uses any more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import psycopg

from re6st.registryd.repository import ContentError

logger = logging.getLogger("store")

MIGRATIONS: Sequence[Sequence[str]] = (
    (
        "CREATE TABLE config (name text PRIMARY KEY, kind text NOT NULL, value text NOT NULL)",
        # Free leaves of the tree of prefixes (core/registry/allocator.py), and those that nobody ever gets.
        """CREATE TABLE free_leaf (
  prefix text COLLATE "C" PRIMARY KEY, length integer GENERATED ALWAYS AS (length(prefix)) STORED)""",
        "CREATE INDEX free_leaf_length ON free_leaf (length, prefix)",
        'CREATE TABLE reserved (prefix text COLLATE "C" PRIMARY KEY)',
        # Free node numbers: those from `first` on, below `past`.
        "CREATE TABLE free_number (first bigint PRIMARY KEY, past bigint)",
        # `position` is the order of enrolment. A serial is unique: no two certificates ever have the same one.
        """CREATE TABLE certificate (
  prefix text COLLATE "C" PRIMARY KEY, position bigint GENERATED ALWAYS AS IDENTITY, email text COLLATE "C",
  pem text NOT NULL, serial bigint NOT NULL UNIQUE, number bigint, not_after bigint NOT NULL)""",
        "CREATE INDEX certificate_email ON certificate (email, position)",
        "CREATE INDEX certificate_number ON certificate (number)",
        "CREATE INDEX certificate_not_after ON certificate (not_after)",
        "CREATE INDEX certificate_length ON certificate (length(prefix))",
        # Certificates that were renewed and have not ended: revoking their prefix revokes them, too.
        """CREATE TABLE superseded (
  serial bigint PRIMARY KEY, prefix text COLLATE "C" NOT NULL, not_after bigint NOT NULL)""",
        "CREATE INDEX superseded_prefix ON superseded (prefix)",
        "CREATE INDEX superseded_not_after ON superseded (not_after)",
        # `prefix` and those after it are known only if the certificate was revoked here.
        """CREATE TABLE revoked (
  serial bigint PRIMARY KEY, listed_until bigint NOT NULL, prefix text COLLATE "C", email text COLLATE "C", date bigint,
  reason text)""",
        "CREATE INDEX revoked_listed_until ON revoked (listed_until)",
        # Tokens are found by a digest whose key is in `config` (changes.py).
        """CREATE TABLE token (
  digest bytea PRIMARY KEY, token text COLLATE "C" NOT NULL, email text COLLATE "C" NOT NULL,
  prefix_length integer NOT NULL, created bigint NOT NULL, expires bigint)""",
        "CREATE INDEX token_token ON token (token)",
        """CREATE TABLE seen (
  prefix text COLLATE "C" PRIMARY KEY REFERENCES certificate ON DELETE CASCADE, date bigint NOT NULL,
  protocol integer NOT NULL, software text COLLATE "C" NOT NULL, extensions text NOT NULL)""",
        # The times of core/registry/clock.py.
        "CREATE TABLE clock (id integer PRIMARY KEY CHECK (id = 0), trusted bigint NOT NULL, seen bigint NOT NULL)",
        """CREATE TABLE event (
  number bigint PRIMARY KEY, time bigint NOT NULL, kind text NOT NULL, cn text, text text NOT NULL,
  count bigint NOT NULL)""",
        "CREATE INDEX event_kind ON event (kind)",
        "INSERT INTO free_leaf (prefix) VALUES ('')",
        "INSERT INTO free_number VALUES (0, NULL)",
    ),
    (
        # An older process uses a token up at once.
        "ALTER TABLE token ADD COLUMN uses integer NOT NULL DEFAULT 1 CHECK (uses > 0)",
        "ALTER TABLE token ADD COLUMN tags text NOT NULL DEFAULT ''",
        # The tags of nodes, with a blank between them.
        """CREATE TABLE tags (
  prefix text COLLATE "C" PRIMARY KEY REFERENCES certificate ON DELETE CASCADE, names text NOT NULL)""",
    ),
    (
        # Sessions of nodes (call_sessions.py), which need not outlive a crash: they are in no log, and on no replica.
        'CREATE UNLOGGED TABLE session (prefix text COLLATE "C" PRIMARY KEY, state bytea NOT NULL)',
    ),
    (
        # Since when a node is online, or when one that is not was there last.
        """CREATE TABLE stay (
  prefix text COLLATE "C" PRIMARY KEY REFERENCES certificate ON DELETE CASCADE, online boolean NOT NULL,
  since bigint NOT NULL)""",
    ),
    (
        # The names of nodes (core/names.py).
        """CREATE TABLE name (
  prefix text COLLATE "C" PRIMARY KEY REFERENCES certificate ON DELETE CASCADE,
  name text COLLATE "C" NOT NULL UNIQUE)""",
    ),
)
"""The statements of each migration; its number is its place, from 1 on. Those that were released are never changed."""


def migrate(db: psycopg.Connection[Any]) -> None:
    """Run what has not been run yet; the caller has begun a transaction, and holds the lock of those who write.

    Raises ContentError, psycopg.Error.
    """
    db.execute("CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, run timestamptz DEFAULT now())")
    row = db.execute("SELECT coalesce(max(number), 0) FROM migration").fetchone()
    done = row[0] if row else 0
    tables = db.execute("SELECT 1 FROM pg_tables WHERE schemaname = current_schema()").fetchall()
    if not done and len(tables) > 1:
        raise ContentError("it has tables of another program: make a database for the registry alone")
    for number, statements in enumerate(MIGRATIONS[done:], done + 1):
        for statement in statements:
            db.execute(statement.encode())
        db.execute("INSERT INTO migration (number) VALUES (%s)", (number,))
        logger.info("tables of the database brought to number %d", number)
