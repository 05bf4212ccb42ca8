"""The tables of the registry's database: those of the deployed registry, and our own ones beside them (wire.md 4.6)."""

from __future__ import annotations

from collections.abc import Mapping

SCHEMA: Mapping[str, tuple[str, ...]] = {
    "config": ("name TEXT PRIMARY KEY NOT NULL", "value"),
    "token": (
        "token TEXT PRIMARY KEY NOT NULL",
        "email TEXT NOT NULL",
        "prefix_len INTEGER NOT NULL",
        "date INTEGER NOT NULL",
    ),
    "cert": ("prefix TEXT PRIMARY KEY NOT NULL", "email TEXT", "cert TEXT"),
    "crl": ("serial INTEGER PRIMARY KEY NOT NULL", "date INTEGER NOT NULL"),
}
"""wire.md 4.6. The reference compares the stored text character by character."""


def create_statement(table: str) -> str:
    """The text of the table as the reference writes it."""
    return f"CREATE TABLE {table} (\n  " + ",\n  ".join(SCHEMA[table]) + ")"


OUR_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS re6st_issued (
  prefix TEXT PRIMARY KEY NOT NULL, serial INTEGER NOT NULL, number INTEGER, not_after INTEGER NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS re6st_issued_serial ON re6st_issued (serial)",
    "CREATE INDEX IF NOT EXISTS re6st_issued_number ON re6st_issued (number)",
    "CREATE INDEX IF NOT EXISTS re6st_issued_not_after ON re6st_issued (not_after)",
    "CREATE INDEX IF NOT EXISTS re6st_issued_length ON re6st_issued (length(prefix))",
    # Certificates that were renewed and have not ended: revoking their prefix revokes them, too.
    """CREATE TABLE IF NOT EXISTS re6st_superseded (
  serial INTEGER PRIMARY KEY NOT NULL, prefix TEXT NOT NULL, not_after INTEGER NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS re6st_superseded_prefix ON re6st_superseded (prefix)",
    "CREATE INDEX IF NOT EXISTS re6st_cert_email ON cert (email)",
    # The times of core/registry/clock.py.
    "CREATE TABLE IF NOT EXISTS re6st_clock (id INTEGER PRIMARY KEY CHECK (id = 0), trusted INTEGER, seen INTEGER)",
    """CREATE TRIGGER IF NOT EXISTS re6st_cert_insert AFTER INSERT ON cert BEGIN
  DELETE FROM re6st_issued WHERE prefix = NEW.prefix; END""",
    """CREATE TRIGGER IF NOT EXISTS re6st_cert_update AFTER UPDATE ON cert BEGIN
  DELETE FROM re6st_issued WHERE prefix IN (OLD.prefix, NEW.prefix); END""",
    """CREATE TRIGGER IF NOT EXISTS re6st_cert_delete AFTER DELETE ON cert BEGIN
  DELETE FROM re6st_issued WHERE prefix = OLD.prefix; END""",
    # When a node last made an authenticated call, as Unix time, and with which software.
    """CREATE TABLE IF NOT EXISTS re6st_seen (
  prefix TEXT PRIMARY KEY NOT NULL, date INTEGER NOT NULL, protocol INTEGER NOT NULL, software TEXT NOT NULL)""",
    """CREATE TRIGGER IF NOT EXISTS re6st_seen_delete AFTER DELETE ON cert BEGIN
  DELETE FROM re6st_seen WHERE prefix = OLD.prefix; END""",
    """CREATE TRIGGER IF NOT EXISTS re6st_seen_free AFTER UPDATE ON cert WHEN NEW.cert IS NULL BEGIN
  DELETE FROM re6st_seen WHERE prefix = NEW.prefix; END""",
    # The extensions that it announced then (core/wire/extensions.py), with the date of that call: a program that does
    # not know this table records later calls.
    """CREATE TABLE IF NOT EXISTS re6st_extensions (
  prefix TEXT PRIMARY KEY NOT NULL, date INTEGER NOT NULL, names TEXT NOT NULL)""",
    """CREATE TRIGGER IF NOT EXISTS re6st_extensions_delete AFTER DELETE ON re6st_seen BEGIN
  DELETE FROM re6st_extensions WHERE prefix = OLD.prefix; END""",
    # Since when a node is online, or when one that is not was there last (presence.py).
    """CREATE TABLE IF NOT EXISTS re6st_stay (
  prefix TEXT PRIMARY KEY NOT NULL, online INTEGER NOT NULL, since INTEGER NOT NULL)""",
    """CREATE TRIGGER IF NOT EXISTS re6st_stay_delete AFTER DELETE ON cert BEGIN
  DELETE FROM re6st_stay WHERE prefix = OLD.prefix; END""",
    """CREATE TRIGGER IF NOT EXISTS re6st_stay_free AFTER UPDATE ON cert WHEN NEW.cert IS NULL BEGIN
  DELETE FROM re6st_stay WHERE prefix = NEW.prefix; END""",
    # Events, for the operator (events.py).
    """CREATE TABLE IF NOT EXISTS re6st_event (
  number INTEGER PRIMARY KEY NOT NULL, time INTEGER NOT NULL, kind TEXT NOT NULL, cn TEXT, text TEXT NOT NULL,
  count INTEGER NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS re6st_event_kind ON re6st_event (kind)",
    # The names of nodes (core/names.py).
    "CREATE TABLE IF NOT EXISTS re6st_name (prefix TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE)",
    """CREATE TRIGGER IF NOT EXISTS re6st_name_delete AFTER DELETE ON cert BEGIN
  DELETE FROM re6st_name WHERE prefix = OLD.prefix; END""",
    """CREATE TRIGGER IF NOT EXISTS re6st_name_free AFTER UPDATE ON cert WHEN NEW.cert IS NULL BEGIN
  DELETE FROM re6st_name WHERE prefix = NEW.prefix; END""",
    # Tokens that have an end of their own.
    """CREATE TABLE IF NOT EXISTS re6st_token (
  token TEXT PRIMARY KEY NOT NULL, expires INTEGER NOT NULL)""",
    """CREATE TRIGGER IF NOT EXISTS re6st_token_delete AFTER DELETE ON token BEGIN
  DELETE FROM re6st_token WHERE token = OLD.token; END""",
    # Tokens that are good for more than one certificate, or give tags. What does not know this table uses a token up at
    # once.
    """CREATE TABLE IF NOT EXISTS re6st_reusable (
  token TEXT PRIMARY KEY NOT NULL, uses INTEGER NOT NULL CHECK (uses > 0), tags TEXT NOT NULL)""",
    """CREATE TRIGGER IF NOT EXISTS re6st_reusable_delete AFTER DELETE ON token BEGIN
  DELETE FROM re6st_reusable WHERE token = OLD.token; END""",
    # The tags of nodes, with a blank between them.
    "CREATE TABLE IF NOT EXISTS re6st_tags (prefix TEXT PRIMARY KEY NOT NULL, names TEXT NOT NULL)",
    """CREATE TRIGGER IF NOT EXISTS re6st_tags_delete AFTER DELETE ON cert BEGIN
  DELETE FROM re6st_tags WHERE prefix = OLD.prefix; END""",
    """CREATE TRIGGER IF NOT EXISTS re6st_tags_free AFTER UPDATE ON cert WHEN NEW.cert IS NULL BEGIN
  DELETE FROM re6st_tags WHERE prefix = NEW.prefix; END""",
    # Whose the revoked certificates were, and when and why they were revoked.
    """CREATE TABLE IF NOT EXISTS re6st_revoked (
  serial INTEGER PRIMARY KEY NOT NULL, prefix TEXT NOT NULL, email TEXT, date INTEGER NOT NULL,
  reason TEXT NOT NULL)""",
    """CREATE TRIGGER IF NOT EXISTS re6st_revoked_delete AFTER DELETE ON crl BEGIN
  DELETE FROM re6st_revoked WHERE serial = OLD.serial; END""",
)
