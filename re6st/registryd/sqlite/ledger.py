"""The rows of the registry's database: what it may read and write (wire.md section 4).

The four tables of the deployed registry are kept to the letter, so that it can open the file again. Beside them are
tables of ours: `re6st_issued` knows serial, node number and end of each stored certificate, so that nothing ever reads
all certificates; triggers on `cert` drop what another program made stale, and the next start reads only those again.

`Rows` reads. `Ledger` also writes, and holds the free leaves and numbers; it belongs to one thread (store.py).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import astuple
from ipaddress import IPv6Network
from typing import Any, TypeVar

from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.registry.allocator import AllocationError, Allocator, Edits, Numbers
from re6st.core.registry.clock import Marks
from re6st.core.routing.babel_keys import State
from re6st.keys import pki
from re6st.registryd.records import Issued, LastCall, Slot, StoredEvent, Token
from re6st.registryd.repository import Conflict, ContentError, NotFound
from re6st.registryd.sqlite.certificate_table import RESERVED, pem_of, read_new
from re6st.registryd.sqlite.schema import OUR_SCHEMA, SCHEMA, create_statement
from re6st.registryd.sqlite.token_index import TokenIndex

logger = logging.getLogger("store")

T = TypeVar("T")

CLEAN_UP_LIMIT = 1000

TAKEN_LIMIT = 100
"""Prefixes passed over for one certificate."""

SWITCH_TIME = "re6st_switch_time"
"""Our own row of `config`: when nodes change to the babel key that signs."""


class Rows:
    """Reads rows over one connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def close(self) -> None:
        self._db.close()

    def config(self, name: str) -> Any:
        row = self._one("SELECT value FROM config WHERE name = ?", name)
        return row and row[0]

    def registry_prefix(self) -> Prefix | None:
        """The prefix of the registry node; None before the first certificate. Raises ContentError."""
        bits = self.config("prefix")
        try:
            return None if bits is None else Prefix.from_bits(bits)
        except (PrefixError, TypeError, AttributeError) as error:
            raise ContentError(f"configuration 'prefix' of the database: {error}") from None

    def pem(self, prefix: Prefix) -> bytes | None:
        """The certificate of a prefix."""
        row = self._one("SELECT cert FROM cert WHERE prefix = ?", prefix.bits)
        return pem_of(row[0]) if row else None

    def issued(self, prefix: Prefix) -> Issued | None:
        """The certificate of a prefix with its serial and end; None for one that cannot be read, too."""
        row = self._one(
            "SELECT cert, serial, not_after FROM re6st_issued JOIN cert USING (prefix) WHERE prefix = ?", prefix.bits
        )
        pem = pem_of(row[0]) if row else None
        return None if pem is None else Issued(prefix, pem, row[1], row[2])

    def prefix_by_serial(self, serial: int) -> Prefix | None:
        row = self._one("SELECT prefix FROM re6st_issued WHERE serial = ?", serial)
        return Prefix.from_bits(row[0]) if row else None

    def prefix_by_email(self, email: str) -> Prefix | None:
        """The prefix of the first certificate with this e-mail address."""
        row = self._one("SELECT prefix FROM cert WHERE email = ? AND cert IS NOT NULL ORDER BY rowid LIMIT 1", email)
        return Prefix.from_bits(row[0]) if row else None

    def token(self, token: str, now: float = 0.0) -> Token | None:
        """What a token is good for, unless it has ended at a time of its own before `now`."""
        row = self._one(
            "SELECT email, prefix_len FROM token LEFT JOIN re6st_token USING (token)"
            " WHERE token = ? AND (expires IS NULL OR expires > ?)",
            *(token, now),
        )
        return None if row is None else Token(*row)

    def crl(self) -> list[int]:
        return [row[0] for row in self._db.execute("SELECT serial FROM crl ORDER BY serial")]

    def is_revoked(self, serial: int) -> bool:
        return self._one("SELECT 1 FROM crl WHERE serial = ?", serial) is not None

    def count(self) -> int:
        """How many certificates there are."""
        found: int = self._one("SELECT count(*) FROM re6st_issued")[0]
        return found

    def longest_prefix(self) -> int | None:
        """The length of the longest prefix that a node has; None where nobody has one."""
        found: int | None = self._one("SELECT max(length(prefix)) FROM re6st_issued")[0]
        return found

    def babel_state(self) -> State:
        """The keys of babel (wire.md 5.4)."""
        keys = (self.config("babel_hmac0"), self.config("babel_hmac1"), self.config("babel_hmac2"))
        return State(keys, self.config("valid_until"), self.config(SWITCH_TIME))

    def first_deadline(self, grace: int) -> float | None:
        """When something is to be cleaned up next, as Unix time."""
        row = self._one(
            "SELECT min(date) FROM (SELECT min(ifnull(expires, date + ?1)) AS date FROM token"
            " LEFT JOIN re6st_token USING (token) UNION ALL"
            " SELECT * FROM (SELECT not_after + ?1 FROM re6st_issued WHERE prefix IS NOT"
            " (SELECT value FROM config WHERE name = 'prefix') ORDER BY not_after LIMIT 1)"
            " UNION ALL SELECT min(date) FROM crl)",
            grace,
        )
        deadline: float | None = row[0]
        return deadline

    def newest_issue(self) -> float | None:
        """When the newest certificate was issued, as Unix time; None if there is none, or it cannot be read."""
        row = self._one("SELECT cert FROM re6st_issued JOIN cert USING (prefix) ORDER BY serial DESC LIMIT 1")
        pem = pem_of(row[0]) if row else None
        try:
            return None if pem is None else pki.begin_of(cert.load_pem(pem)).timestamp()
        except cert.CertError as error:
            logger.warning("the newest certificate in the database: %s", error)
            return None

    def events(self, limit: int) -> list[StoredEvent]:
        """What happened, the oldest first; no more than the last `limit`."""
        rows = self._db.execute("SELECT * FROM re6st_event ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [StoredEvent(*row) for row in reversed(rows)]

    def lacking(self, extension: str, limit: int = -1) -> list[Prefix]:
        """The nodes that called before, and did not announce this extension when they called last."""
        found = self._db.execute(
            "SELECT s.prefix FROM re6st_seen AS s LEFT JOIN re6st_extensions AS e USING (prefix, date)"
            " WHERE NOT instr(' ' || ifnull(e.names, '') || ' ', ' ' || ? || ' ') ORDER BY s.prefix LIMIT ?",
            (extension, limit),
        )
        return [Prefix.from_bits(row[0]) for row in found]

    def without(self, extension: str, now: float) -> list[Prefix]:
        """The nodes with a certificate that has not ended which never called, or do not announce this extension."""
        found = self._db.execute(
            "SELECT i.prefix FROM re6st_issued AS i LEFT JOIN re6st_seen AS s USING (prefix)"
            " LEFT JOIN re6st_extensions AS e ON e.prefix = s.prefix AND e.date = s.date WHERE i.not_after > ?"
            " AND NOT instr(' ' || ifnull(e.names, '') || ' ', ' ' || ? || ' ') ORDER BY i.prefix",
            (now, extension),
        )
        return [Prefix.from_bits(row[0]) for row in found]

    def marks(self) -> Marks | None:
        """Which time it was."""
        row = self._one("SELECT trusted, seen FROM re6st_clock")
        return row and Marks(*row)

    def is_used(self, prefix: Prefix) -> bool:
        """Whether this leaf, or one that it lies in, is used or reserved."""
        above = [(prefix.bits[:length],) for length in range(prefix.length + 1)]
        return any(self._one("SELECT 1 FROM cert WHERE prefix = ? AND cert IS NOT NULL", *bits) for bits in above)

    def _one(self, statement: str, *values: Any) -> Any:
        return self._db.execute(statement, values).fetchone()


class Ledger(Rows):
    """Writes rows. Every change is part of a transaction; what a failed one did to the free leaves is undone."""

    def __init__(self, db: sqlite3.Connection, network: IPv6Network) -> None:
        """Opens or makes the tables. Raises ContentError, sqlite3.Error."""
        super().__init__(db)
        self.allocator = Allocator(network.prefixlen)
        self.numbers = Numbers()
        self._tokens = TokenIndex(db)
        self._blobs = False
        self._undo: list[Callable[[], None]] = []
        self._data_version = self._found_version = -1
        self.begin(loading=False)
        self._make_tables()
        self._load()
        self.commit()

    # --- transactions ---

    def begin(self, *, loading: bool = True) -> None:
        """Begin one. If another program changed the database, read it again."""
        self._db.execute("BEGIN IMMEDIATE")
        version = self._one("PRAGMA data_version")[0]
        if loading and version != self._data_version:
            logger.warning("another program changed the database: reading it again")
            self._load()
        self._found_version = version

    def attempt(self, job: Callable[[Ledger], T]) -> T:
        """Run one job of a transaction. What it raises passes through, and only its own changes are undone.

        Raises sqlite3.Error when the whole transaction is lost.
        """
        mark = len(self._undo)
        self._db.execute("SAVEPOINT job")
        try:
            result = job(self)
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it
                self._db.execute("ROLLBACK TO job")
                self._db.execute("RELEASE job")
                self._take_back(mark)
            raise
        self._db.execute("RELEASE job")
        return result

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def commit(self) -> None:
        self._db.execute("COMMIT")
        self._undo.clear()
        self._data_version = self._found_version

    def rollback(self) -> None:
        """Undo the transaction, as far as SQLite has not done so itself."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        finally:
            self._take_back(0)

    def _take_back(self, mark: int) -> None:
        while len(self._undo) > mark:
            self._undo.pop()()

    # --- certificates ---

    def issue(
        self,
        community: Prefix,
        length: int,
        email: str | None,
        make: Callable[[Slot], x509.Certificate],
        taken: Collection[Prefix] = (),
    ) -> Issued:
        """Take a free prefix of `length` bits in a community, and store the certificate that `make` makes for it.

        Not one that is `taken`, by somebody who was forgotten: that is reserved. The prefix of the very first one
        becomes the registry's (wire.md 4.5). Raises AllocationError.
        """
        prefix = self._allocate(community, length)
        tries = TAKEN_LIMIT
        while any(each.contains(prefix) or prefix.contains(each) for each in taken):
            logger.warning("%s is in use by a node that is not known here: it is kept from others", prefix)
            self._db.execute("INSERT INTO cert VALUES (?, NULL, ?)", (prefix.bits, RESERVED))
            if not (tries := tries - 1):
                raise AllocationError(f"no free prefix of {length} bits that nobody uses, at {TAKEN_LIMIT} tries")
            prefix = self._allocate(community, length)
        number = self.numbers.take()
        self._undo.append(lambda: self.numbers.release(number))
        new = make(Slot(prefix, number, self._next_serial()))
        self._db.execute("INSERT INTO cert VALUES (?, ?, NULL)", (prefix.bits, email))
        if self.registry_prefix() is None:
            self.set_config("prefix", prefix.bits)
        return self._write(prefix, number, new)

    def free_leaves(self) -> Iterator[Prefix]:
        """The prefixes that are free, with all that is behind them."""
        return iter(self.allocator)

    def _allocate(self, community: Prefix, length: int) -> Prefix:
        prefix, edits = self.allocator.allocate(community, length)
        self._apply(edits)
        return prefix

    def renew(self, old: Issued, make: Callable[[int], x509.Certificate]) -> Issued:
        """Store the certificate that `make` makes with a new serial in the place of an older one."""
        number = self._supersede(old)
        return self._write(old.prefix, number, make(self._next_serial()))

    def _supersede(self, old: Issued) -> int | None:
        """Another certificate comes into its place; returns its number."""
        row = (old.serial, old.prefix.bits, old.not_after)
        self._db.execute("INSERT OR REPLACE INTO re6st_superseded VALUES (?, ?, ?)", row)
        number: int | None = self._one("SELECT number FROM re6st_issued WHERE prefix = ?", old.prefix.bits)[0]
        return number

    def _write(self, prefix: Prefix, number: int | None, new: x509.Certificate) -> Issued:
        issued = Issued(prefix, cert.to_pem(new), new.serial_number, int(pki.end_of(new).timestamp()))
        stored = issued.pem if self._blobs else issued.pem.decode("ascii")
        self._db.execute("UPDATE cert SET cert = ? WHERE prefix = ?", (stored, prefix.bits))
        self._db.execute(
            "INSERT INTO re6st_issued VALUES (?, ?, ?, ?)", (prefix.bits, issued.serial, number, issued.not_after)
        )
        return issued

    def _next_serial(self) -> int:
        serial = int(self.config("serial") or 0) + 1
        self.set_config("serial", serial)
        return serial

    def revoke(self, serial: int, now: float, reason: str = "") -> Prefix:
        """Put a serial on the list of revoked ones, unless it has ended; whose it is. Raises Conflict, NotFound."""
        if self.is_revoked(serial):
            raise Conflict(f"serial {serial} is revoked already")
        found = self._one(
            "SELECT prefix, not_after FROM re6st_issued WHERE serial = ?1"
            " UNION ALL SELECT prefix, not_after FROM re6st_superseded WHERE serial = ?1 LIMIT 1",
            serial,
        )
        if found is None:
            raise NotFound(f"no certificate has the serial {serial}")
        prefix, not_after = Prefix.from_bits(found[0]), found[1]
        if not_after > now:
            self._db.execute("INSERT INTO crl VALUES (?, ?)", (serial, not_after))
            self._explain(prefix, [serial], now, reason)
        return prefix

    def evict(self, prefix: Prefix, now: float, reason: str = "", *, keep: bool = False) -> None:
        """Revoke the certificate of a prefix, and older ones of it that have not ended; make the prefix free.

        With `keep` nobody else is ever given it. Raises NotFound.
        """
        issued = self.issued(prefix)
        if issued is None:
            raise NotFound(f"no certificate for {prefix}")
        added = self._db.execute(
            "INSERT OR IGNORE INTO crl SELECT serial, not_after FROM re6st_superseded WHERE prefix = ?1"
            " AND not_after > ?2 UNION SELECT serial, not_after FROM re6st_issued WHERE prefix = ?1 AND not_after > ?2"
            " RETURNING serial",
            (prefix.bits, int(now)),
        ).fetchall()
        self._explain(prefix, [row[0] for row in added], now, reason)
        self._free(prefix, keep=keep)

    def revoke_superseded(self, prefix: Prefix, now: float, reason: str) -> list[int]:
        """Revoke the certificates of a prefix that were replaced and have not ended; returns their serials."""
        added = self._db.execute(
            "INSERT OR IGNORE INTO crl SELECT serial, not_after FROM re6st_superseded WHERE prefix = ?"
            " AND not_after > ? RETURNING serial",
            (prefix.bits, int(now)),
        )
        serials = [row[0] for row in added.fetchall()]
        self._explain(prefix, serials, now, reason)
        return serials

    def revoke_unknown(self, serial: int, not_after: float) -> None:
        """Put a serial on the list of revoked ones whose certificate is not here."""
        self._db.execute("INSERT OR IGNORE INTO crl VALUES (?, ?)", (serial, int(not_after)))

    def restore(self, prefix: Prefix, found: x509.Certificate) -> Issued:
        """Store a certificate that was forgotten: in the place of an older one, or where nobody is.

        One of another key keeps no e-mail address: it may be somebody else's. Raises Conflict where somebody else is.
        """
        old = self.issued(prefix)
        if old is not None:
            before, same = self._supersede(old), pki.same_key(cert.load_pem(old.pem).public_key(), found.public_key())
            row = (RESERVED, same, prefix.bits)
            self._db.execute("UPDATE cert SET cert = ?, email = iif(?, email, NULL) WHERE prefix = ?", row)
            self._release_number(before)
        elif self._one("SELECT cert FROM cert WHERE prefix = ?", prefix.bits) != (RESERVED,):
            edits = self.allocator.reserve(prefix)
            if not edits.reserved:
                raise Conflict(f"{prefix} is not free")
            self._apply(edits)
        number = cert.number_of_cert(found)
        if number is not None and not self._one("SELECT 1 FROM re6st_issued WHERE number = ?", number):
            self.numbers.remove(number)
            self._undo.append(lambda: self.numbers.release(number))
        return self._write(prefix, number, found)

    def _explain(self, prefix: Prefix, serials: list[int], now: float, reason: str) -> None:
        """Remember, for the operator, whose the revoked certificates were."""
        self._db.executemany(
            "INSERT OR REPLACE INTO re6st_revoked SELECT ?2, prefix, email, ?3, ?4 FROM cert WHERE prefix = ?1",
            [(prefix.bits, serial, int(now), reason) for serial in serials],
        )

    def clean_up(self, now: float, grace: int) -> bool:
        """Drop old tokens, certificates and revocations (wire.md 4.4); whether the list of revoked ones changed.

        `now` is the trusted time (core/registry/clock.py). The registry's own certificate stays, whatever happens. At
        most CLEAN_UP_LIMIT certificates go at once, so that nobody waits long.
        """
        limit = int(now) - grace
        self._db.execute(
            "DELETE FROM token WHERE token IN (SELECT token FROM token LEFT JOIN re6st_token USING (token)"
            " WHERE ifnull(expires, date + ?) <= ?)",
            (grace, int(now)),
        )
        self._db.execute("DELETE FROM re6st_superseded WHERE not_after <= ?", (int(now),))
        due = self._db.execute(
            "SELECT prefix, serial FROM re6st_issued WHERE not_after <= ? AND prefix IS NOT ?"
            " ORDER BY not_after LIMIT ?",
            (limit, self.config("prefix"), CLEAN_UP_LIMIT),
        )
        for bits, serial in due.fetchall():
            logger.info("certificate %d of %s ended %d s ago: its prefix is free again", serial, bits, grace)
            self._free(Prefix.from_bits(bits))
        return self._db.execute("DELETE FROM crl WHERE date <= ?", (int(now),)).rowcount > 0

    def set_marks(self, marks: Marks) -> None:
        self._db.execute("INSERT OR REPLACE INTO re6st_clock VALUES (0, ?, ?)", (int(marks.trusted), int(marks.seen)))

    def _free(self, prefix: Prefix, *, keep: bool = False) -> None:
        number = self._one("SELECT number FROM re6st_issued WHERE prefix = ?", prefix.bits)
        self._db.execute("DELETE FROM cert WHERE prefix = ?", (prefix.bits,))
        self._db.execute("DELETE FROM re6st_superseded WHERE prefix = ?", (prefix.bits,))
        if keep or prefix == self.registry_prefix():
            # All nodes take the route of this prefix as proof of being connected: nobody else may ever have it (4.5).
            self._db.execute("INSERT INTO cert VALUES (?, NULL, ?)", (prefix.bits, RESERVED))
        else:
            self._apply(self.allocator.release(prefix))
        self._release_number(number and number[0])

    def _release_number(self, number: int | None) -> None:
        if number is not None and not self._one("SELECT 1 FROM re6st_issued WHERE number = ?", number):
            self.numbers.release(number)
            self._undo.append(lambda: self.numbers.remove(number))

    def _apply(self, edits: Edits) -> None:
        """Write what the allocator did, and remember how to undo it."""
        self._undo.append(lambda: self.allocator.undo(edits))
        self._db.executemany("DELETE FROM cert WHERE prefix = ?", [(prefix.bits,) for prefix in edits.removed])
        self._db.executemany(
            "INSERT INTO cert VALUES (?, NULL, ?)",
            [(prefix.bits, None) for prefix in edits.added] + [(prefix.bits, RESERVED) for prefix in edits.reserved],
        )

    # --- tokens and configuration ---

    def token(self, token: str, now: float = 0.0) -> Token | None:
        """Like Rows.token, in a time that tells nothing about the tokens there are."""
        found = self._tokens.find(token)
        return None if found is None else super().token(found, now)

    def add_token(self, token: str, email: str, length: int, now: float, expires: float | None = None) -> None:
        """A token that ends with the grace period after `now`, or at `expires`. Raises Conflict if it exists."""
        try:
            self._db.execute("INSERT INTO token VALUES (?, ?, ?, ?)", (token, email, length, int(now)))
        except sqlite3.IntegrityError:
            raise Conflict("this token exists already") from None
        if expires is not None:
            self._db.execute("INSERT OR REPLACE INTO re6st_token VALUES (?, ?)", (token, int(expires)))

    def delete_token(self, token: str) -> bool:
        """Whether there was one."""
        return self._db.execute("DELETE FROM token WHERE token = ?", (token,)).rowcount > 0

    def mark_seen(self, calls: Sequence[LastCall]) -> None:
        """Remember calls of nodes; not those of nodes without certificate."""
        known = " WHERE EXISTS (SELECT 1 FROM re6st_issued WHERE prefix = ?1)"
        self._db.executemany(
            "INSERT OR REPLACE INTO re6st_seen SELECT ?1, ?2, ?3, ?4" + known,
            ((call.prefix.bits, call.date, call.protocol, call.software) for call in calls),
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO re6st_extensions SELECT ?1, ?2, ?3" + known,
            ((call.prefix.bits, call.date, call.extensions) for call in calls if call.extensions),
        )

    def replace_events(self, kind: str, events: Sequence[StoredEvent]) -> None:
        """Keep these of a kind, and no others."""
        self._db.execute("DELETE FROM re6st_event WHERE kind = ?", (kind,))
        self._db.executemany("INSERT OR REPLACE INTO re6st_event VALUES (?, ?, ?, ?, ?, ?)", map(astuple, events))

    def set_config(self, name: str, value: str | int | float | bytes | None) -> None:
        """Store a value, or delete it with None."""
        if value is None:
            self._db.execute("DELETE FROM config WHERE name = ?", (name,))
        else:
            self._db.execute("INSERT OR REPLACE INTO config VALUES (?, ?)", (name, value))

    def set_babel_state(self, state: State) -> None:
        for number, key in enumerate(state.keys):
            self.set_config(f"babel_hmac{number}", key)
        self.set_config("valid_until", state.valid_until)
        self.set_config(SWITCH_TIME, state.switch_time)

    # --- opening ---

    def _make_tables(self) -> None:
        for table, columns in SCHEMA.items():
            found = [row[1] for row in self._db.execute(f"PRAGMA table_info({table})")]
            if not found:
                self._db.execute(create_statement(table))
                if table == "cert":
                    self._db.execute("INSERT INTO cert VALUES ('', NULL, NULL)")
            elif found != [column.split()[0] for column in columns]:
                raise ContentError(f"table {table} is not a registry's: it has the columns {', '.join(found)}")
        for statement in OUR_SCHEMA:
            self._db.execute(statement)

    def _load(self) -> None:
        """Read what another program wrote, and the free leaves and numbers. Raises ContentError."""
        self._tokens.load()
        read_new(self._db)
        try:
            self.allocator.load(self._free_rows())
        except PrefixError as error:
            raise ContentError(f"table cert: {error}") from None
        self._apply(self.allocator.merge())
        own = self.registry_prefix()
        if own is not None:
            self._apply(self.allocator.reserve(own))
        used = self._db.execute("SELECT DISTINCT number FROM re6st_issued WHERE number >= 0 ORDER BY number")
        self.numbers = Numbers(row[0] for row in used)
        # As the program that wrote the newest certificate: its releases read only one kind (wire.md 4.6).
        kind = self._one("SELECT typeof(cert) FROM re6st_issued JOIN cert USING (prefix) ORDER BY serial DESC LIMIT 1")
        self._blobs = kind == ("blob",)

    def _free_rows(self) -> Iterator[Prefix]:
        for (bits,) in self._db.execute("SELECT prefix FROM cert WHERE cert IS NULL"):
            yield Prefix.from_bits(bits)
