"""The rows of the registry's database: what it can read and write (wire.md section 4).

The four tables of the deployed registry are kept exactly, so that it can open the file again. Beside them are our own
tables: `re6st_issued` has serial, node number and end of each stored certificate, so that nothing ever reads all
certificates. Triggers on `cert` delete its rows when another program changes a certificate, and the next start reads
only these certificates again. `SqlQueries` reads. `Ledger` also writes, and has the free leaves and numbers; it belongs
to one thread (store.py). This module has its transactions and its opening; the modules beside it have its changes, by
subject.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from ipaddress import IPv6Network
from typing import TypeVar

from re6st.core.prefix import PrefixError
from re6st.core.registry.allocator import Numbers
from re6st.registryd.repository import ContentError
from re6st.registryd.sqlite.certificate_table import read_new
from re6st.registryd.sqlite.certificates import Certificates
from re6st.registryd.sqlite.revocations import Revocations
from re6st.registryd.sqlite.schema import OUR_SCHEMA, SCHEMA, create_statement
from re6st.registryd.sqlite.token_index import TokenIndex
from re6st.registryd.sqlite.tokens import Tokens

logger = logging.getLogger("store")

T = TypeVar("T")


class Ledger(Certificates, Revocations, Tokens):
    """Writes rows. Every change is part of a transaction; if a transaction fails, its changes to the free leaves are
    undone.
    """

    def __init__(self, db: sqlite3.Connection, network: IPv6Network) -> None:
        """Open or make the tables. Raises ContentError, sqlite3.Error."""
        super().__init__(db, network)
        self._tokens = TokenIndex(db)
        self._blobs = False
        self._data_version = self._found_version = -1
        self.begin(loading=False)
        self._make_tables()
        self._load()
        self.commit()

    # --- transactions ---

    def begin(self, *, loading: bool = True) -> None:
        """Begin a transaction. If another program changed the database, read it again."""
        self._db.execute("BEGIN IMMEDIATE")
        version = self._one("PRAGMA data_version")[0]
        if loading and version != self._data_version:
            logger.warning("another program changed the database: reading it again")
            self._load()
        self._found_version = version

    def attempt(self, job: Callable[[Ledger], T]) -> T:
        """Run one job of a transaction. Any error passes through, and only the job's own changes are undone.

        Raises sqlite3.Error if the whole transaction is lost.
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
        """Undo the transaction, if SQLite has not done so itself."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        finally:
            self._take_back(0)

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
        # In the form of the program that wrote the newest certificate: each of its releases reads only one form
        # (wire.md 4.6).
        kind = self._one("SELECT typeof(cert) FROM re6st_issued JOIN cert USING (prefix) ORDER BY serial DESC LIMIT 1")
        self._blobs = kind == ("blob",)
