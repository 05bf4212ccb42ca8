"""What a node remembers between runs: addresses of peers, network parameters, its own last addresses (wire.md 10.2).

One SQLite file, `STATE/cache.db`, in the form of the older software, so that a machine may go back. It is only a
memory: a damaged file is set aside with a warning, and a failing disk costs the memory, not the node.

It is written in the event loop, so nobody is waited for: what somebody who holds the file keeps from it, and what
changes more often than every few seconds, is written later.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from re6st.core.mesh import memory
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.wire.datagrams import Endpoint, format_addresses, parse_addresses
from re6st.core.wire.params import Parameters, ParamsError, check
from re6st.service.sqlite_files import readable_errors

WRITE_EVERY = 5.0
"""Seconds between two writings, however often peers tell something else."""
COMPLAIN_EVERY = 300.0
"""Seconds between two warnings that it cannot be written."""

_TABLES = {
    "peer": "CREATE TABLE peer (\n  prefix TEXT PRIMARY KEY NOT NULL,\n  address TEXT NOT NULL)",
    "config": "CREATE TABLE config (\n  name TEXT PRIMARY KEY NOT NULL,\n  value)",
}
_ROUTES = "re6st_routes"
"""Our own row of `config`: how many routes the network had, which sets babel's update interval at the next start."""

_TROUBLE = frozenset(
    (
        *(
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_IOERR,
        ),
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM),
    )
)
"""Errors by which nothing is wrong with the file: somebody holds it, or the disk fails."""

_MISTAKES = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG))
"""Why there can never be a file."""

log = logging.getLogger(__name__)


def parameters_in(db: sqlite3.Connection) -> Parameters | None:
    """The network parameters in a cache; None when there are none. Raises sqlite3.Error, ParamsError."""
    rows = dict(db.execute("SELECT name, value FROM config"))
    if "version" not in rows:
        return None
    values: dict[str, Any] = {}
    try:
        for name, value in rows.items():
            if name.endswith(":json"):
                values[name.removesuffix(":json")] = json.loads(value)
            elif name == "crl":  # the form of old caches
                values[name] = json.loads(value)
            else:
                values[name] = value
        return check(values)
    except (ValueError, TypeError, RecursionError) as error:
        raise ParamsError(str(error)) from None


class Cache:
    """The memory of one node. `addresses` and `parameters` are the copies in use; methods change them and the file."""

    def __init__(self, path: Path, patience: float = 2.0, chance: Random | None = None) -> None:
        """Whoever holds the file is waited for `patience` seconds. Raises OSError for what is no place of a file."""
        self._chance = chance or Random()  # noqa: S311
        self._path = path
        self._patience = patience
        self._changed: set[str] = set()
        """Whose row in the file is not the one in memory: prefixes in bits; empty for ourselves."""
        self._unwritten: Parameters | None = None
        self._written = self._complained = float("-inf")
        self._db = self._open()
        with self._quietly():
            self._db.execute("PRAGMA busy_timeout = 0")
        self.addresses: dict[Prefix, tuple[Endpoint, ...]] = self._load_addresses()
        self.own: tuple[Endpoint, ...] = self._load_own()
        self._routes = self._kept_routes = self._load_routes()

    def close(self, keep: Iterable[Prefix]) -> None:
        """Close the file; of the peers only `keep` stay (wire.md 10.2)."""
        for prefix in self.addresses.keys() - set(keep):
            self.addresses.pop(prefix)
            self._changed.add(prefix.bits)
        with self._quietly():
            self._db.execute(f"PRAGMA busy_timeout = {round(1000 * self._patience)}")
        self._write()
        self._db.close()

    def tick(self) -> None:
        """Write what has not been written yet, if it is time to."""
        now = time.monotonic()
        if self.next_deadline(now) <= now:
            self._write()

    def next_deadline(self, now: float) -> float:
        """When `tick` is to be called."""
        waits = self._changed or self._unwritten is not None or self._routes != self._kept_routes
        return self._written + WRITE_EVERY if waits else float("inf")

    # -- addresses --

    def learn(self, peer: Prefix, endpoints: tuple[Endpoint, ...], spare: Callable[[Prefix], bool]) -> None:
        """Remember where a peer is. Addresses that worked first stay first.

        When the memory is full, a peer for whom `spare` is true makes room, or else anyone.
        """
        known = self.addresses.get(peer, ())
        ordered = memory.in_order(known, endpoints)
        if ordered == known:
            return
        if peer not in self.addresses:
            forgotten = memory.makes_room(self.addresses, spare, self._chance)
            if forgotten is not None:
                self.forget(forgotten)
        self.addresses[peer] = ordered
        self._change(peer.bits)

    def worked(self, peer: Prefix, endpoint: Endpoint) -> None:
        """Put the address that worked in front of the others."""
        known = self.addresses.get(peer, ())
        ordered = memory.worked_first(known, endpoint)
        if ordered != known:
            self.addresses[peer] = ordered
            self._change(peer.bits)

    def forget(self, peer: Prefix) -> None:
        if self.addresses.pop(peer, None) is not None:
            self._change(peer.bits)

    def set_own(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Remember our own addresses."""
        if endpoints != self.own:
            self.own = endpoints
            self._change("")

    # -- parameters --

    def load_parameters(self) -> Parameters | None:
        """The network parameters of the last run; None when there are none or they are damaged."""
        if self._unwritten is not None:
            return self._unwritten
        try:
            return parameters_in(self._db)
        except sqlite3.Error as error:
            log.warning("%s: %s", self._path, error)
        except ParamsError as error:
            log.warning("%s: the network parameters in it are damaged (%s): asking the registry", self._path, error)
        return None

    def store_parameters(self, parameters: Parameters) -> None:
        """Replace the stored parameters; a value that is absent is removed."""
        self._unwritten = parameters
        self._write()

    def _write_parameters(self, parameters: Parameters) -> None:
        rows: dict[str, Any] = {}
        for name, value in parameters.public().items():
            if isinstance(value, list):
                rows[f"{name}:json"] = json.dumps(value)
            else:
                rows[name] = int(value) if isinstance(value, bool) else value
        for name in ("version", "babel_hmac_sign", "babel_hmac_accept", "valid_until", "babel_switch_time"):
            if (value := getattr(parameters, name)) is not None:
                rows[name] = value
        self._db.execute("DELETE FROM config WHERE name != ?", (_ROUTES,))
        self._db.executemany("INSERT INTO config VALUES (?, ?)", rows.items())

    @property
    def routes(self) -> int:
        """How many routes the network had when we last looked."""
        return self._routes

    @routes.setter
    def routes(self, count: int) -> None:
        self._routes = count
        self.tick()

    # -- within --

    def _change(self, bits: str) -> None:
        self._changed.add(bits)
        self.tick()

    def _write(self) -> None:
        """Bring the file up to date, if nobody holds it."""
        self._written = time.monotonic()
        with self._quietly():
            for bits in self._changed:
                endpoints = self.own if not bits else self.addresses.get(Prefix.from_bits(bits))
                if endpoints is None:
                    self._db.execute("DELETE FROM peer WHERE prefix = ?", (bits,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO peer VALUES (?, ?)", (bits, format_addresses(endpoints)))
            if self._unwritten is not None:
                self._write_parameters(self._unwritten)
            if self._routes != self._kept_routes:
                self._db.execute("INSERT OR REPLACE INTO config VALUES (?, ?)", (_ROUTES, self._routes))
            self._db.commit()
            self._changed.clear()
            self._unwritten, self._kept_routes = None, self._routes

    def _open(self) -> sqlite3.Connection:
        """The file, or where that cannot be had now, what is in it. Raises OSError for what is no place of a file."""
        try:
            # The keys of babel are in it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._path.chmod(0o600)
        except OSError as error:
            if error.errno in _MISTAKES:
                raise OSError(f"{self._path}: {error.strerror}. Choose another directory with --state.") from None
            log.warning(
                "%s: %s: nothing new is remembered. Choose another directory with --state.", self._path, error.strerror
            )
            return self._copy()
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if code in _TROUBLE:
                remedy = "Make room." if code == sqlite3.SQLITE_FULL else "Restart re6stnet once that is mended."
                log.warning("%s: %s: nothing new is remembered. %s", self._path, error, remedy)
                return self._copy()
            return self._set_aside(error)

    def _set_aside(self, why: sqlite3.DatabaseError) -> sqlite3.Connection:
        """A new file in the place of a damaged one; in memory alone where that cannot be."""
        backup = self._path.with_suffix(".bak")
        try:
            self._path.replace(backup)
            for leftover in ("-wal", "-shm"):
                self._path.with_name(self._path.name + leftover).unlink(missing_ok=True)
            log.warning("%s is damaged (%s): it is now %s, and a new one is made", self._path, why, backup.name)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            return self._connect()
        except (OSError, sqlite3.Error) as error:
            log.warning("%s is damaged (%s), and stays (%s): nothing is remembered", self._path, why, error)
            return self._prepare(sqlite3.connect(":memory:"))

    def _copy(self) -> sqlite3.Connection:
        """What is in the file, as far as it can be read, in memory alone."""
        db = sqlite3.connect(":memory:")
        try:
            source = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            with contextlib.closing(source):
                source.backup(db)
            return self._prepare(db)
        except sqlite3.Error:
            db.close()
            return self._prepare(sqlite3.connect(":memory:"))

    def _connect(self) -> sqlite3.Connection:
        return self._prepare(sqlite3.connect(self._path, timeout=self._patience))

    def _prepare(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Make the tables that are missing. Raises sqlite3.Error."""
        try:
            with readable_errors():
                if (problem := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                    raise sqlite3.DatabaseError(problem)
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
                for name, statement in _TABLES.items():
                    if name not in found:
                        db.execute(statement)
                    elif " ".join(found[name].split()) != " ".join(statement.split()):
                        raise sqlite3.DatabaseError(f"table {name} has other columns")
                db.commit()
        except BaseException:
            db.close()
            raise
        return db

    def _load_addresses(self) -> dict[Prefix, tuple[Endpoint, ...]]:
        addresses: dict[Prefix, tuple[Endpoint, ...]] = {}
        for bits, text in self._peers():
            with contextlib.suppress(PrefixError):
                if bits and (endpoints := parse_addresses(text)):
                    addresses[Prefix.from_bits(bits)] = endpoints
        return addresses

    def _load_own(self) -> tuple[Endpoint, ...]:
        return next((parse_addresses(text) for bits, text in self._peers() if not bits), ())

    def _load_routes(self) -> int:
        with self._quietly():
            row = self._db.execute("SELECT value FROM config WHERE name = ?", (_ROUTES,)).fetchone()
            return row[0] if row and isinstance(row[0], int) else 0
        return 0

    def _peers(self) -> list[tuple[str, str]]:
        """What is not text in a damaged row costs that row only."""
        try:
            rows: Iterable[tuple[bytes, bytes]] = self._db.execute(
                "SELECT CAST(prefix AS BLOB), CAST(address AS BLOB) FROM peer"
                " WHERE prefix IS NOT NULL AND address IS NOT NULL"
            )
            return [(bits.decode("utf-8", "replace"), text.decode("utf-8", "replace")) for bits, text in rows]
        except sqlite3.Error as error:
            log.warning("%s: %s", self._path, error)
            return []

    @contextlib.contextmanager
    def _quietly(self) -> Any:
        """A memory that cannot be written is a warning."""
        try:
            yield
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.rollback()
            if time.monotonic() - self._complained >= COMPLAIN_EVERY:
                self._complained = time.monotonic()
                log.warning("%s: %s: what is new is written once that is mended", self._path, error)
