"""Checks for --check-config whether a file can be the database of a registry: it makes and changes nothing, and does
not read everything.

It works on a file by its name, not on a repository, since it runs before a registry uses the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from re6st.core.prefix import Prefix
from re6st.registryd.own_node import own_node
from re6st.registryd.repository import ContentError
from re6st.registryd.sqlite.schema import SCHEMA
from re6st.registryd.sqlite.sql_queries import SqlQueries
from re6st.service.sqlite_files import looking_at


def problems_of_file(path: Path, communities: Iterable[Prefix]) -> Iterator[str]:
    """What is wrong with a database that is to serve these communities, as texts."""
    try:
        with looking_at(path) as db:
            yield from _problems(db, communities)
    except (sqlite3.Error, ContentError) as error:
        yield str(error)


def _problems(db: sqlite3.Connection, communities: Iterable[Prefix]) -> Iterator[str]:
    """Raises sqlite3.Error, ContentError."""
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        yield f"damaged: {verdict}. Restore a copy."
        return
    found = {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in SCHEMA}
    if not any(found.values()):
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            yield "of another program: it has none of a registry's tables"
        return
    for table, columns in SCHEMA.items():
        if found[table] != [column.split()[0] for column in columns]:
            yield f"table {table} is not a registry's: it has the columns {', '.join(found[table]) or '(none)'}"
            return
    rows = SqlQueries(db)
    own = own_node(rows)
    if own is not None and own.problem:
        yield own.problem
    for prefix in communities:
        if prefix.length and rows.is_used(prefix):
            yield f"--community: {prefix.bits} lies in a prefix that a node has already"
