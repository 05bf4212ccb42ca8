"""The free prefixes and node numbers of a network: rows of the table `cert`, and also in memory, so that they are found
at once.

If a transaction fails, its changes in memory are undone, too (`_take_back`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from ipaddress import IPv6Network

from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import Allocator, Edits, Numbers
from re6st.registryd.sqlite.certificate_table import RESERVED
from re6st.registryd.sqlite.notes import Notes


class Space(Notes):
    """Gives prefixes and numbers, and takes them back."""

    def __init__(self, db: sqlite3.Connection, network: IPv6Network) -> None:
        super().__init__(db)
        self.allocator = Allocator(network.prefixlen)
        self.numbers = Numbers()
        self._undo: list[Callable[[], None]] = []

    def free_leaves(self) -> Iterator[Prefix]:
        """The prefixes that are free."""
        return iter(self.allocator)

    def _allocate(self, community: Prefix, length: int) -> Prefix:
        prefix, edits = self.allocator.allocate(community, length)
        self._apply(edits)
        return prefix

    def _free(self, prefix: Prefix, *, keep: bool = False) -> None:
        number = self._one("SELECT number FROM re6st_issued WHERE prefix = ?", prefix.bits)
        self._db.execute("DELETE FROM cert WHERE prefix = ?", (prefix.bits,))
        self._db.execute("DELETE FROM re6st_superseded WHERE prefix = ?", (prefix.bits,))
        if keep or prefix == self.registry_prefix():
            # All nodes take a route to this prefix as proof that they are connected: nobody else may ever have it
            # (4.5).
            self._reserve(prefix)
        else:
            self._apply(self.allocator.release(prefix))
        self._release_number(number and number[0])

    def _take_number(self) -> int:
        number = self.numbers.take()
        self._undo.append(lambda: self.numbers.release(number))
        return number

    def _release_number(self, number: int | None) -> None:
        if number is not None and not self._one("SELECT 1 FROM re6st_issued WHERE number = ?", number):
            self.numbers.release(number)
            self._undo.append(lambda: self.numbers.remove(number))

    def _reserve(self, prefix: Prefix) -> None:
        self._db.execute("INSERT INTO cert VALUES (?, NULL, ?)", (prefix.bits, RESERVED))

    def _apply(self, edits: Edits) -> None:
        """Write the allocator's changes, and remember how to undo them."""
        self._undo.append(lambda: self.allocator.undo(edits))
        self._db.executemany("DELETE FROM cert WHERE prefix = ?", [(prefix.bits,) for prefix in edits.removed])
        self._db.executemany(
            "INSERT INTO cert VALUES (?, NULL, ?)",
            [(prefix.bits, None) for prefix in edits.added] + [(prefix.bits, RESERVED) for prefix in edits.reserved],
        )

    def _take_back(self, mark: int) -> None:
        while len(self._undo) > mark:
            self._undo.pop()()

    def _free_rows(self) -> Iterator[Prefix]:
        for (bits,) in self._db.execute("SELECT prefix FROM cert WHERE cert IS NULL"):
            yield Prefix.from_bits(bits)
