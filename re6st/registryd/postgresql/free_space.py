"""Free prefixes and node numbers as rows: whichever process asks, it sees what the others have taken.

What is taken and given back follows the same rules as in memory (core/registry/allocator.py). A failed transaction
undoes all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import Allocator

_FIRST_IN = """SELECT leaf.prefix FROM generate_series(%(longest)s::integer, %(shortest)s::integer, -1) AS lengths(each)
CROSS JOIN LATERAL (SELECT prefix FROM free_leaf WHERE length = each AND prefix >= %(community)s
  AND prefix < %(community)s || '2' ORDER BY prefix LIMIT 1) AS leaf
ORDER BY each DESC LIMIT 1"""


class StoredAllocator(Allocator):
    """The free leaves of the table `free_leaf`."""

    def __init__(self, db: psycopg.Connection[Any], network_length: int) -> None:
        super().__init__(network_length)
        self._db = db

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Prefix]:
        for (bits,) in self._db.execute("SELECT prefix FROM free_leaf ORDER BY length, prefix"):
            yield Prefix.from_bits(bits)

    def is_free(self, prefix: Prefix) -> bool:
        return self._db.execute("SELECT 1 FROM free_leaf WHERE prefix = %s", (prefix.bits,)).fetchone() is not None

    def _first_in(self, community: Prefix, longest: int) -> Prefix | None:
        values = {"community": community.bits, "longest": longest, "shortest": community.length}
        return _leaf(self._db.execute(_FIRST_IN, values).fetchone())

    def _leaf_above(self, prefix: Prefix) -> Prefix | None:
        above = [prefix.bits[:length] for length in range(prefix.length + 1)]
        row = self._db.execute(
            "SELECT prefix FROM free_leaf WHERE prefix = ANY(%s) ORDER BY length DESC LIMIT 1", (above,)
        )
        return _leaf(row.fetchone())

    def _add(self, leaf: Prefix) -> None:
        self._db.execute("INSERT INTO free_leaf (prefix) VALUES (%s)", (leaf.bits,))

    def _discard(self, leaf: Prefix) -> None:
        self._db.execute("DELETE FROM free_leaf WHERE prefix = %s", (leaf.bits,))


class StoredNumbers:
    """The free numbers of the table `free_number`, as intervals."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self._db = db

    def take(self) -> int:
        """Take the smallest free number."""
        row = self._db.execute("SELECT first, past FROM free_number ORDER BY first LIMIT 1").fetchone()
        first, past = row or (0, None)
        self._replace(first, first + 1, past)
        return int(first)

    def remove(self, number: int) -> None:
        """Take this number, if it is free."""
        row = self._before(number)
        if row is None or (row[1] is not None and row[1] <= number):
            return
        first, past = row
        self._replace(first, number + 1, past)
        if first < number:
            self._db.execute("INSERT INTO free_number VALUES (%s, %s)", (first, number))

    def release(self, number: int) -> None:
        """The number becomes free. It may be free already."""
        before = self._before(number)
        if before is not None and (before[1] is None or number < before[1]):
            return
        first, past = number, number + 1
        if before is not None and before[1] == number:
            first = before[0]
        after = self._db.execute("DELETE FROM free_number WHERE first = %s RETURNING past", (past,)).fetchone()
        self._replace(first, first, past if after is None else after[0])

    def _before(self, number: int) -> tuple[int, int | None] | None:
        """The last interval that does not begin after a number."""
        return self._db.execute(
            "SELECT first, past FROM free_number WHERE first <= %s ORDER BY first DESC LIMIT 1", (number,)
        ).fetchone()

    def _replace(self, old: int, first: int, past: int | None) -> None:
        """An interval, if there is one that begins with `old`, becomes one from `first` on, or ends."""
        self._db.execute("DELETE FROM free_number WHERE first = %s", (old,))
        if past is None or first < past:
            self._db.execute("INSERT INTO free_number VALUES (%s, %s)", (first, past))


def _leaf(row: tuple[Any, ...] | None) -> Prefix | None:
    return None if row is None else Prefix.from_bits(row[0])
