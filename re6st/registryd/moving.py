"""Moves the state of a registry from one store to another: all rows in one transaction, which are read again and
compared before it ends. So a move that was interrupted has changed nothing, and is begun again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, Protocol

from re6st.registryd.repository import RepositoryError


class StateTable(Enum):
    """What a state has, whatever stores it; in this order it is stored."""

    CONFIG = "config"
    FREE = "free"
    RESERVED = "reserved"
    CERTIFICATE = "certificate"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"
    TOKEN = "token"  # noqa: S105 - the name of a table
    SEEN = "seen"
    CLOCK = "clock"
    EVENT = "event"
    TAGS = "tags"
    STAY = "stay"
    NAME = "name"


Row = tuple[StateTable, tuple[Any, ...]]


class MoveEnd(Protocol):
    """A store, from which a state is moved or to which."""

    def rows(self) -> Iterator[Row]:
        """All rows, in an order that is the same for all stores."""

    def has_unreadable(self) -> bool:
        """Whether there is something that `rows` leaves out."""

    def is_empty(self) -> bool:
        """Whether no registry has used it."""

    def fill(self, rows: Iterable[Row]) -> None: ...


def move(source: MoveEnd, target: MoveEnd) -> Counter[StateTable]:
    """Fill an empty store with the state of another one; returns how many rows there are. Raises RepositoryError."""
    if source.has_unreadable():
        raise RepositoryError("it has certificates that cannot be read: re6st-registry check names them")
    if not target.is_empty():
        raise RepositoryError("a registry has used the database to which to move: give an empty one")
    read, written = _Seal(), _Seal()
    target.fill(read.through(source.rows()))
    for _ in written.through(target.rows()):
        pass
    if read.digest() != written.digest():
        raise RepositoryError("what was written is not what was read: please report it; nothing was changed")
    return read.counts


class _Seal:
    """A digest of rows that pass."""

    def __init__(self) -> None:
        self.counts: Counter[StateTable] = Counter()
        self._hash = hashlib.sha256()

    def through(self, rows: Iterable[Row]) -> Iterator[Row]:
        for table, values in rows:
            self.counts[table] += 1
            self._hash.update(repr((table.value, *values)).encode("utf-8", "surrogatepass"))
            yield table, values

    def digest(self) -> bytes:
        return self._hash.digest()
