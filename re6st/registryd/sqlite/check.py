"""Checks whether a registry's database is intact, and makes copies that are. Both only read the file, even while a
registry uses it.

They work on a file by its name, not on a repository: a damaged file is none, and a copy is a file. `check` verifies
everything on which an allocation or a session relies: SQLite's own structure, the tree of wire.md 4.1, each
certificate, and what the configuration and our own tables say about them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from re6st import cert
from re6st.core.prefix import MAX_LENGTH, Prefix, PrefixError
from re6st.core.wire.params import KEY_LENGTH, ParamsError, check_version, version_number
from re6st.keys import pki
from re6st.registryd.own_node import own_node
from re6st.registryd.parameters import FLOOR
from re6st.registryd.repository import ContentError, RepositoryError
from re6st.registryd.sqlite.certificate_table import RESERVED
from re6st.registryd.sqlite.lists import reading
from re6st.registryd.sqlite.schema import SCHEMA
from re6st.registryd.sqlite.sql_queries import SqlQueries

FINDINGS_LIMIT = 100
"""Number of findings that are reported; the others are counted."""


class BackupError(Exception):
    """No copy was made; the text is for the user."""


@dataclass(frozen=True, slots=True)
class RowFault:
    """A fault in a row: `key` is the prefix in bits, the serial or the name; empty for the whole table."""

    table: str
    key: str
    problem: str


@dataclass
class Report:
    """What a database contains, and what is wrong with it."""

    used: int = 0
    free: int = 0
    reserved: int = 0
    tokens: int = 0
    revoked: int = 0
    problems: int = 0
    findings: list[RowFault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Problems of the network; the database is intact all the same, and a copy of it is good."""

    def add(self, table: str, key: object, problem: str) -> None:
        self.problems += 1
        if len(self.findings) < FINDINGS_LIMIT:
            self.findings.append(RowFault(table, str(key)[:MAX_LENGTH], problem))


@dataclass(frozen=True, slots=True)
class _Known:
    """The contents of a certificate."""

    serial: int
    number: int | None
    not_after: int


def check(path: Path, trust: cert.Trust) -> Report:
    """Check a whole database. Raises RepositoryError if it cannot be opened at all."""
    report = Report()
    with _named(path), reading(path) as db:
        db.execute("BEGIN")  # the state of one moment, whatever is written meanwhile
        for (text,) in db.execute(f"PRAGMA integrity_check({FINDINGS_LIMIT})"):
            if text != "ok":
                report.add("", "", f"SQLite: {text}")
        if _check_tables(db, report):
            known = _check_tree(db, trust, report)
            _check_own_node(db, report)
            _check_config(db, trust, known, report)
            _check_own(db, known, report)
            report.tokens = db.execute("SELECT count(*) FROM token").fetchone()[0]
            report.revoked = db.execute("SELECT count(*) FROM crl").fetchone()[0]
    return report


def partition_problems(leaves: Iterable[Prefix], room: int) -> Iterator[tuple[Prefix, str]]:
    """Where sorted leaves do not divide a space of `room` bits completely: overlaps and gaps."""
    position, last = 0, Prefix(0, 0)
    for leaf in leaves:
        if leaf.length > room:
            yield leaf, f"longer than the {room} bits that the network has"
            continue
        start = leaf.value << room - leaf.length
        if start < position:
            yield leaf, f"overlaps with {last.bits or 'the whole network'}"
        elif start > position:
            yield leaf, "no row has the space before it"
        end = start + (1 << room - leaf.length)
        if end > position:
            position, last = end, leaf
    if position < 1 << room:
        yield last, "no row has the space after it"


def _check_tables(db: sqlite3.Connection, report: Report) -> bool:
    """Whether the tables exist."""
    for table, columns in SCHEMA.items():
        found = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        if found != [column.split()[0] for column in columns]:
            report.add(table, "", "has other columns than a registry's" if found else "is missing")
            return False
    return True


def _check_tree(db: sqlite3.Connection, trust: cert.Trust, report: Report) -> dict[str, _Known]:
    """Check the rows of `cert`; returns the contents of their certificates, by prefix in bits."""
    known: dict[str, _Known] = {}
    leaves: list[Prefix] = []
    serials: dict[int, str] = {}
    numbers: dict[int, str] = {}
    for bits, value in db.execute("SELECT prefix, cert FROM cert ORDER BY prefix"):
        try:
            prefix = Prefix.from_bits(bits)
        except (PrefixError, TypeError, AttributeError):
            report.add("cert", bits, "the prefix is not a string of bits")
            continue
        leaves.append(prefix)
        if value is None:
            report.free += 1
            continue
        if value in (RESERVED, RESERVED.encode()):
            report.reserved += 1
            continue
        report.used += 1
        if (found := _check_certificate(prefix, value, trust, report)) is None:
            continue
        known[bits] = found
        if (other := serials.setdefault(found.serial, bits)) != bits:
            report.add("cert", bits, f"its certificate has the serial {found.serial}, as that of {other}")
        if found.number is not None and (other := numbers.setdefault(found.number, bits)) != bits:
            report.add("cert", bits, f"its node has the number {found.number}, as that of {other}")
    for leaf, problem in partition_problems(leaves, MAX_LENGTH - trust.network.prefixlen):
        report.add("cert", leaf.bits, problem)
    return known


def _check_certificate(prefix: Prefix, value: Any, trust: cert.Trust, report: Report) -> _Known | None:
    try:
        found = cert.load_pem(value.encode("ascii", "replace") if isinstance(value, str) else value)
        named = cert.prefix_of_cert(found)
        known = _Known(found.serial_number, cert.number_of_cert(found), int(pki.end_of(found).timestamp()))
    except (cert.CertError, ValueError, TypeError) as error:
        report.add("cert", prefix.bits, f"certificate: {error}")
        return None
    if named != prefix:
        report.add("cert", prefix.bits, f"its certificate has the CN {named.cn}, not {prefix.cn}")
    if not trust.signed(found):
        report.add("cert", prefix.bits, "its certificate was not signed by the CA")
    return known


def _check_config(db: sqlite3.Connection, trust: cert.Trust, known: dict[str, _Known], report: Report) -> None:
    config: dict[str, Any] = dict(db.execute("SELECT name, value FROM config"))
    last = config.get("serial", 0)
    highest = max((each.serial for each in known.values()), default=0)
    if not isinstance(last, int) or last < highest:
        report.add("config", "serial", f"is {last!r}, but there is a certificate with the serial {highest}")
    own = config.get("prefix")
    if own is None:
        if known:
            report.add("config", "prefix", "is missing, though there are certificates")
    elif not db.execute("SELECT 1 FROM cert WHERE prefix = ? AND cert IS NOT NULL", (own,)).fetchone():
        report.add("config", "prefix", f"is {own!r}, the registry's own, which is free for anybody")
    version = config.get("version")
    if version is not None:
        try:
            number = version_number(version)
            good = number == 0 or check_version(version, lambda packed, sign: cert.verify(trust.ca, sign, packed))
        except (ParamsError, TypeError):
            good = False
        if not good:
            report.add("config", "version", "is not signed by the CA")
        elif number < (config.get(FLOOR) or 0):
            problem = (
                f"is {number}, nodes have {config[FLOOR]}: a copy was restored. Revoke again what was revoked since"
            )
            report.add("config", "version", problem)
    for name in ("babel_hmac0", "babel_hmac1", "babel_hmac2"):
        key = config.get(name)
        if key is not None and not (isinstance(key, bytes) and len(key) in (0, KEY_LENGTH)):
            report.add("config", name, f"is not a key of {KEY_LENGTH} bytes")


def _check_own_node(db: sqlite3.Connection, report: Report) -> None:
    with suppress(ContentError):  # reported with the configuration
        own = own_node(SqlQueries(db))
        if own is not None and own.problem:
            report.warnings.append(own.problem)


def _check_own(db: sqlite3.Connection, known: dict[str, _Known], report: Report) -> None:
    """Check our tables against the certificates. A missing row is not a fault: the next start reads the certificate."""
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "re6st_issued" in tables:
        for bits, *values in db.execute("SELECT prefix, serial, number, not_after FROM re6st_issued"):
            if bits not in known:
                report.add("re6st_issued", bits, "there is no such certificate")
            elif known[bits] != _Known(*values):
                report.add("re6st_issued", bits, f"is {tuple(values)}, its certificate says otherwise")
    for table, key, where in (
        ("re6st_superseded", "prefix", "cert WHERE cert IS NOT NULL AND prefix"),
        ("re6st_seen", "prefix", "cert WHERE cert IS NOT NULL AND prefix"),
        ("re6st_token", "token", "token WHERE token"),
        ("re6st_reusable", "token", "token WHERE token"),
        ("re6st_name", "prefix", "cert WHERE cert IS NOT NULL AND prefix"),
        ("re6st_tags", "prefix", "cert WHERE cert IS NOT NULL AND prefix"),
        ("re6st_stay", "prefix", "cert WHERE cert IS NOT NULL AND prefix"),
        ("re6st_revoked", "serial", "crl WHERE serial"),
    ):
        if table not in tables:
            continue
        query = f"SELECT {key} FROM {table} AS o WHERE NOT EXISTS (SELECT 1 FROM {where} = o.{key})"  # noqa: S608
        for (value,) in db.execute(query):
            report.add(table, "a token" if key == "token" else value, "belongs to nothing that exists")


def backup(path: Path, copy: Path, trust: cert.Trust, *, force: bool = False) -> Report:
    """Copy a database as it is at one moment, check the copy, and only then give it its name.

    Raises BackupError, RepositoryError. An existing file is replaced only with `force`.
    """
    if copy.exists() and (not force or not copy.is_file() or copy.samefile(path)):
        raise BackupError(f"{copy} exists already, and is not replaced. Choose another name, or give --force.")
    made = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            _copy(path, made)
            report = check(made, trust)
            if report.problems:
                first = report.findings[0]
                raise BackupError(
                    f"the copy of {path} does not verify ({first.table} {first.key}: {first.problem}), and is not kept."
                    " Run re6st-registry check."
                )
            if force:
                made.replace(copy)
            else:
                os.link(made, copy)  # never replaces a file that appeared meanwhile
        finally:
            for name in (made, Path(f"{made}-journal"), Path(f"{made}-wal"), Path(f"{made}-shm")):
                with suppress(FileNotFoundError):
                    name.unlink()
        _flush(copy.parent)
    except OSError as error:
        raise BackupError(f"{copy}: {error.strerror}") from None
    return report


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into errors of this database."""
    try:
        yield
    except sqlite3.Error as error:
        raise RepositoryError(f"database {path}: {error}") from None


def _copy(path: Path, made: Path) -> None:
    with _named(path), reading(path) as source:
        target = sqlite3.connect(made, isolation_level=None)
        try:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # a single file, which needs no other one beside it
        finally:
            target.close()
    _flush(made)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
