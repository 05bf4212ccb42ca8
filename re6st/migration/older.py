"""What the older software finds when it replaces ours on a machine, and what ours finds when it returns.

It uses our files, with few exceptions: the registry's database is in another place, and has another kind of journal;
tokens may have an end of their own; option files may have options that it does not know; and files belong to users as
which it does not run. This module puts everything into its form. What has no such form is kept until we return: rows in
our own tables, which it ignores, and lines of option files, as comments.
"""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
from collections.abc import Set
from contextlib import closing
from pathlib import Path

from re6st.core import older_options
from re6st.linux import disk
from re6st.registryd.sqlite.schema import SCHEMA, create_statement
from re6st.service import states
from re6st.service.sqlite_files import readable_errors
from re6st.service.states import CONF_LIMIT, NODE, Owner, Places, StateError

GRACE_PERIOD = 8640000
"""Seconds, if the options do not say another time (wire.md 11.3)."""


def hand_over(places: Places, node: Owner | None, registry: Owner | None, to: Owner) -> list[str]:
    """Put everything into the form of the older software, which runs as `to`; returns what to report.

    Our services are stopped. A user that is None has no files. Raises StateError, OSError.
    """
    if registry is not None:
        _refuse_server(places.options)
    users = {each.user for each in (node, registry) if each is not None}
    etc = places.options.parent
    for directory in (etc, places.state(NODE)):
        states.hand_over(directory, users, to)
    with contextlib.suppress(FileNotFoundError):
        # In a sticky directory that a group may write to, not even root may write to other users' files.
        etc.chmod(0o755)
    told = []
    if registry is not None:
        grace = _grace_period(places.options)
        told += states.return_registry(places, registry, to, lambda path: to_older_form(path, grace))
    for path, ours in _option_files(places):
        text, names = older_options.set_aside(_read(path), ours)
        if names and path.is_symlink():
            told += [f"{path}:{name} is not known to the older software: take the line out" for name in names]
        elif names:
            _replace(path, text)
            told += [f"{path}:{name} is not known to the older software, and is a comment meanwhile" for name in names]
    for path in sorted(etc.glob("*.next")):
        told.append(f"{path} is of a change of key that was begun: it ends by re6st-conf rekey when we are back")
    return told


def take_back(places: Places) -> None:
    """Turn comments in option files, which `hand_over` made from lines, into lines again. Raises OSError."""
    for path, _ in _option_files(places):
        text = _read(path)
        if (changed := older_options.take_back(text)) != text and not path.is_symlink():
            _replace(path, changed)


# --- the registry's database ---


def to_older_form(path: Path, grace: int) -> str:
    """Put a database that nobody uses into the form that the older registry opens and keeps; returns a summary of it.

    Tokens with an end of their own get the date by which they end then, `grace` seconds later.

    Raises StateError.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db, readable_errors():
            if (problem := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(problem)
            tables = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
            for table in SCHEMA:
                if tables.get(table) != create_statement(table):
                    raise StateError(
                        f"{path}: table {table} differs from that of the older registry. Move the file away"
                    )
            if "re6st_token" in tables:
                db.execute(
                    "UPDATE token SET date = ends FROM (SELECT token AS name, expires - ? AS ends FROM re6st_token)"
                    " WHERE token = name AND date != ends",
                    (grace,),
                )
            # Then everything is in one file, which can be copied even while the older registry runs.
            if (mode := db.execute("PRAGMA journal_mode = DELETE").fetchone()[0]) != "delete":
                raise sqlite3.DatabaseError(f"its journal is {mode}")
            return _content(db)
    except sqlite3.Error as error:
        raise StateError(f"{path}: {error}. Mend that, go back to a copy of it, or move it away") from None


def _content(db: sqlite3.Connection) -> str:
    certificates, revoked, tokens, serial = db.execute(
        "SELECT (SELECT count(*) FROM cert WHERE CAST(cert AS TEXT) != 'reserved'),"
        " (SELECT count(*) FROM crl), (SELECT count(*) FROM token), (SELECT value FROM config WHERE name = 'serial')"
    ).fetchone()
    return f"{certificates} certificates, the last serial is {serial or 0}, {revoked} revoked, {tokens} tokens"


# --- option files ---


def _option_files(places: Places) -> tuple[tuple[Path, Set[str]], ...]:
    return (
        (places.options.with_name("re6stnet.conf"), older_options.NODE),
        (places.options, older_options.REGISTRY),
    )


def _refuse_server(options: Path) -> None:
    """The older registry has a file only, and the one that is here may be from before a move to PostgreSQL: it would
    give prefixes a second time. Raises StateError.
    """
    for name in older_options.set_aside(_read(options), older_options.SERVER)[1]:
        raise StateError(
            f"{options}:{name}: the registry's state is in PostgreSQL, which the older software cannot use. First move"
            " it back to a file with re6st-registry migrate, and take the line out"
        )


def _read(path: Path) -> str:
    """A text file; empty if there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(CONF_LIMIT + 1)
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return text if len(text) <= CONF_LIMIT else ""


def _replace(path: Path, text: str) -> None:
    """Write a file again, with its owner and mode; anything but a file is left alone."""
    if path.is_file() and not path.is_symlink():
        disk.replace_file(path, text.encode())


def _grace_period(options: Path) -> int:
    """The value of an option in an option file, from the last line that has it; the default if no line has it."""
    grace = GRACE_PERIOD
    for line in _read(options).splitlines():
        with contextlib.suppress(ValueError):
            match shlex.split(line, comments=True):
                case ["grace-period" | "--grace-period", number]:
                    grace = int(number)
    return grace
