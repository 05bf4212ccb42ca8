"""What a node remembers between runs: addresses of peers, network parameters, its own last addresses (wire.md 10.2).

One SQLite file, `STATE/cache.db`, in the form of the older software, so that a machine may go back. It is only a
memory: a damaged file is set aside with a warning, and a failing disk costs the memory, not the node.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import random
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from re6st.core.params import Parameters, ParamsError, check
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.wire import Endpoint, format_addresses, parse_addresses

PEER_LIMIT = 200

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

    def __init__(self, path: Path, patience: float = 2.0) -> None:
        """Raises OSError when the file can neither be opened nor made, or is held for `patience` seconds."""
        self._path = path
        self._patience = patience
        self._db = self._open()
        self.addresses: dict[Prefix, tuple[Endpoint, ...]] = self._load_addresses()
        self.own: tuple[Endpoint, ...] = self._load_own()

    def close(self, keep: Iterable[Prefix]) -> None:
        """Close the file; of the peers only `keep` stay (wire.md 10.2)."""
        kept = set(keep)
        with self._quietly():
            for prefix in self.addresses.keys() - kept:
                self._db.execute("DELETE FROM peer WHERE prefix = ?", (prefix.bits,))
            self._db.commit()
        self._db.close()

    # -- addresses --

    def learn(self, peer: Prefix, endpoints: tuple[Endpoint, ...], spare: Callable[[Prefix], bool]) -> None:
        """Remember where a peer is. Addresses that worked first stay first.

        When the memory is full, a peer for whom `spare` is true makes room, or else anyone.
        """
        known = self.addresses.get(peer, ())
        ordered = (*(e for e in known if e in endpoints), *(e for e in endpoints if e not in known))
        if ordered == known:
            return
        if peer not in self.addresses and len(self.addresses) >= PEER_LIMIT:
            candidates = [p for p in self.addresses if spare(p)] or list(self.addresses)
            self.forget(random.choice(candidates))  # noqa: S311
        self.addresses[peer] = ordered
        self._store("peer", peer.bits, format_addresses(ordered))

    def worked(self, peer: Prefix, endpoint: Endpoint) -> None:
        """Put the address that worked in front of the others."""
        known = self.addresses.get(peer, ())
        if endpoint in known and known[0] != endpoint:
            self.addresses[peer] = ordered = (endpoint, *(e for e in known if e != endpoint))
            self._store("peer", peer.bits, format_addresses(ordered))

    def forget(self, peer: Prefix) -> None:
        if self.addresses.pop(peer, None) is not None:
            with self._quietly():
                self._db.execute("DELETE FROM peer WHERE prefix = ?", (peer.bits,))
                self._db.commit()

    def set_own(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Remember our own addresses."""
        if endpoints != self.own:
            self.own = endpoints
            self._store("peer", "", format_addresses(endpoints))

    # -- parameters --

    def load_parameters(self) -> Parameters | None:
        """The network parameters of the last run; None when there are none or they are damaged."""
        try:
            return parameters_in(self._db)
        except sqlite3.Error as error:
            log.warning("%s: %s", self._path, error)
        except ParamsError as error:
            log.warning("%s: the network parameters in it are damaged (%s): asking the registry", self._path, error)
        return None

    def store_parameters(self, parameters: Parameters) -> None:
        """Replace the stored parameters; a value that is absent is removed."""
        rows: dict[str, Any] = {}
        for name, value in parameters.public().items():
            if isinstance(value, list):
                rows[f"{name}:json"] = json.dumps(value)
            else:
                rows[name] = int(value) if isinstance(value, bool) else value
        for name in ("version", "babel_hmac_sign", "babel_hmac_accept", "valid_until", "babel_switch_time"):
            if (value := getattr(parameters, name)) is not None:
                rows[name] = value
        with self._quietly():
            self._db.execute("DELETE FROM config WHERE name != ?", (_ROUTES,))
            self._db.executemany("INSERT INTO config VALUES (?, ?)", rows.items())
            self._db.commit()

    @property
    def routes(self) -> int:
        """How many routes the network had when we last looked."""
        with self._quietly():
            row = self._db.execute("SELECT value FROM config WHERE name = ?", (_ROUTES,)).fetchone()
            return row[0] if row and isinstance(row[0], int) else 0
        return 0

    @routes.setter
    def routes(self, count: int) -> None:
        self._store("config", _ROUTES, count)

    # -- within --

    def _open(self) -> sqlite3.Connection:
        try:
            # The keys of babel are in it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._path.chmod(0o600)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise OSError(f"{self._path}: {error.strerror}. Choose --state.") from None
            log.warning("%s: %s: nothing new is remembered. Choose --state.", self._path, error.strerror)
            return self._copy()
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                log.warning("%s: %s: nothing new is remembered. Make room.", self._path, error)
                return self._copy()
            if code in _TROUBLE:
                raise OSError(f"{self._path}: {error}") from None
            backup = self._path.with_suffix(".bak")
            log.warning("%s is damaged (%s): it is now %s, and a new one is made", self._path, error, backup.name)
            self._path.replace(backup)
            for leftover in ("-wal", "-shm"):
                self._path.with_name(self._path.name + leftover).unlink(missing_ok=True)
            return self._open()

    def _copy(self) -> sqlite3.Connection:
        """What is in the file, as far as it can be read, in memory alone."""
        db = sqlite3.connect(":memory:")
        with contextlib.suppress(sqlite3.Error):
            source = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            with contextlib.closing(source):
                source.backup(db)
        return self._prepare(db)

    def _connect(self) -> sqlite3.Connection:
        return self._prepare(sqlite3.connect(self._path, timeout=self._patience))

    def _prepare(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Make the tables that are missing. Raises sqlite3.Error."""
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
            for name, statement in _TABLES.items():
                if name not in found:
                    db.execute(statement)
                elif " ".join(found[name].split()) != " ".join(statement.split()):
                    raise sqlite3.DatabaseError(f"table {name} is of another form")
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

    def _peers(self) -> list[tuple[str, str]]:
        try:
            return [(str(bits), str(text)) for bits, text in self._db.execute("SELECT prefix, address FROM peer")]
        except sqlite3.Error as error:
            log.warning("%s: %s", self._path, error)
            return []

    def _store(self, table: str, name: str, value: Any) -> None:
        with self._quietly():
            self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (name, value))  # noqa: S608
            self._db.commit()

    @contextlib.contextmanager
    def _quietly(self) -> Any:
        """A memory that cannot be written is a warning."""
        try:
            yield
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.rollback()
            log.warning("%s: %s", self._path, error)
