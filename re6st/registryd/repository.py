"""Where the registry's state is kept, whatever keeps it: what may be asked of it, and changed in it.

A query is a function of `Queries`, a change one of `Changes`, so that what belongs together is read at one moment, and
changed wholly or not at all. Such a function does nothing else: it may run in another thread, and once more where two
changes met. What it returns are records (records.py); what it raises passes through, after its changes were undone.
A database's own types and errors never come out.

The only repository today is one SQLite file (sqlite/store.py). What works on that file itself, and not on a registry's
state, is beside it: checks and copies (sqlite/check.py, sqlite/outline.py), and the older software's form of it
(migration/older.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from cryptography import x509

from re6st.core.prefix import Prefix
from re6st.core.registry.clock import Marks
from re6st.core.routing.babel_keys import State
from re6st.registryd.records import (
    Counts,
    Figures,
    Issued,
    LastCall,
    ListedNode,
    ListedToken,
    NodeFilter,
    NodeName,
    NodeSelection,
    RevokedCertificate,
    Slot,
    StoredEvent,
    Token,
)

T = TypeVar("T")


class RepositoryError(Exception):
    """The repository cannot be used now; text for the log or the user."""


class RepositoryInUse(RepositoryError):
    """Another process has it for itself."""


class ContentError(RepositoryError):
    """It is not a registry's, or its content contradicts itself."""


class NotFound(Exception):
    """There is no such certificate."""


class Conflict(Exception):
    """It is there already, or the state forbids it."""


class Queries(Protocol):
    """What may be read; all of it takes some microseconds of an embedded database. Raises ContentError."""

    def config(self, name: str) -> Any:
        """A value of the configuration, as `Changes.set_config` stored it; None where there is none."""

    def registry_prefix(self) -> Prefix | None:
        """The prefix of the registry node; None before the first certificate. Raises ContentError."""

    def pem(self, prefix: Prefix) -> bytes | None:
        """The certificate of a prefix."""

    def issued(self, prefix: Prefix) -> Issued | None:
        """The certificate of a prefix with its serial and end; None for one that cannot be read, too."""

    def prefix_by_email(self, email: str) -> Prefix | None:
        """The prefix of the first certificate with this e-mail address."""

    def token(self, token: str, now: float = 0.0) -> Token | None:
        """What a token is good for, unless it has ended at a time of its own before `now`."""

    def crl(self) -> list[int]:
        """The serials that are revoked, in order."""

    def is_revoked(self, serial: int) -> bool: ...

    def count(self) -> int:
        """How many certificates there are."""

    def longest_prefix(self) -> int | None:
        """The length of the longest prefix that a node has; None where nobody has one."""

    def babel_state(self) -> State:
        """The keys of babel (wire.md 5.4)."""

    def first_deadline(self, grace: int) -> float | None:
        """When something is to be cleaned up next, as Unix time."""

    def newest_issue(self) -> float | None:
        """When the newest certificate was issued, as Unix time; None if there is none, or it cannot be read."""

    def events(self, limit: int) -> list[StoredEvent]:
        """What happened, the oldest first; no more than the last `limit`."""

    def lacking(self, extension: str, limit: int = -1) -> list[Prefix]:
        """The nodes that called before, and did not announce this extension when they called last."""

    def without(self, extension: str, now: float) -> list[Prefix]:
        """The nodes with a certificate that has not ended which never called, or do not announce this extension."""

    def marks(self) -> Marks | None:
        """Which time it was."""

    def is_used(self, prefix: Prefix) -> bool:
        """Whether this leaf, or one that it lies in, is used or reserved."""


class Changes(Queries, Protocol):
    """What a transaction may do: everything that is read, with what this transaction changed, and the changes."""

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

    def renew(self, old: Issued, make: Callable[[int], x509.Certificate]) -> Issued:
        """Store the certificate that `make` makes with a new serial in the place of an older one."""

    def restore(self, prefix: Prefix, found: x509.Certificate) -> Issued:
        """Store a certificate that was forgotten: in the place of an older one, or where nobody is.

        One of another key keeps no e-mail address: it may be somebody else's. Raises Conflict where somebody else is.
        """

    def revoke(self, serial: int, now: float, reason: str = "") -> Prefix:
        """Put a serial on the list of revoked ones, unless it has ended; whose it is. Raises Conflict, NotFound."""

    def evict(self, prefix: Prefix, now: float, reason: str = "", *, keep: bool = False) -> None:
        """Revoke the certificate of a prefix, and older ones of it that have not ended; make the prefix free.

        With `keep` nobody else is ever given it. Raises NotFound.
        """

    def revoke_superseded(self, prefix: Prefix, now: float, reason: str) -> list[int]:
        """Revoke the certificates of a prefix that were replaced and have not ended; returns their serials."""

    def revoke_unknown(self, serial: int, not_after: float) -> None:
        """Put a serial on the list of revoked ones whose certificate is not here."""

    def clean_up(self, now: float, grace: int) -> bool:
        """Drop old tokens, certificates and revocations (wire.md 4.4); whether the list of revoked ones changed.

        `now` is the trusted time (core/registry/clock.py). The registry's own certificate stays, whatever happens.
        """

    def free_leaves(self) -> Iterator[Prefix]:
        """The prefixes that are free, with all that is behind them."""

    def add_token(self, token: str, email: str, length: int, now: float, expires: float | None = None) -> None:
        """A token that ends with the grace period after `now`, or at `expires`. Raises Conflict if it exists."""

    def delete_token(self, token: str) -> bool:
        """Whether there was one."""

    def mark_seen(self, calls: Sequence[LastCall]) -> None:
        """Remember calls of nodes; not those of nodes without certificate."""

    def replace_events(self, kind: str, events: Sequence[StoredEvent]) -> None:
        """Keep these of a kind, and no others."""

    def set_marks(self, marks: Marks) -> None:
        """Remember which time it is."""

    def set_config(self, name: str, value: str | int | float | bytes | None) -> None:
        """Store a value, or delete it with None."""

    def set_babel_state(self, state: State) -> None: ...


class Lists(Queries, Protocol):
    """What is read for people and for monitoring: pages that take milliseconds."""

    def nodes(self, wanted: NodeFilter, after: str, limit: int) -> list[ListedNode]:
        """Nodes by their address, those behind the prefix `after` in bits."""

    def node(self, prefix: Prefix) -> ListedNode | None:
        """The node of a prefix."""

    def node_by_serial(self, serial: int) -> ListedNode | None:
        """The node whose certificate has, or had, a serial."""

    def older_serials(self, prefix: Prefix) -> list[int]:
        """Of the certificates of a node that were replaced and have not ended."""

    def select_nodes(self, wanted: NodeSelection) -> tuple[int, list[ListedNode]]:
        """How many nodes there are of a selection, and its part of them."""

    def tokens(self, grace: int, after: str, limit: int) -> list[ListedToken]:
        """Tokens in the order of the alphabet, those behind `after`."""

    def every_token(self) -> Iterator[str]:
        """All tokens."""

    def revoked(self, after: int, limit: int) -> list[RevokedCertificate]:
        """The list of revoked certificates by their serial, those behind the serial `after`."""

    def names(self, limit: int) -> list[NodeName]:
        """Those of the first nodes by address."""

    def names_of(self, prefixes: Iterable[Prefix]) -> list[NodeName]:
        """Those of the nodes among these that have a certificate."""

    def counts(self, online: Iterable[Prefix], now: int, soon: int) -> Counts:
        """What the overview counts; a certificate that ends before `soon` is expiring."""

    def figures(self, now: float, soon: int, since: int, grace: int, seen_limit: int) -> Figures:
        """What monitoring is told; of nodes that called after `since`, their software; when nodes called last, of no
        more than `seen_limit`.
        """


class Repository(Protocol):
    """An open one. Each method raises RepositoryError when it cannot be used now."""

    async def read(self, query: Callable[[Queries], T]) -> T:
        """What a query returns, of what was committed when it began."""

    async def browse(self, query: Callable[[Lists], T]) -> T:
        """What a longer query returns, while others need not wait; a page at a time."""

    async def change(self, change: Callable[[Changes], T]) -> T:
        """Carry out a change, and return what it returned once that is on the disk."""

    async def size(self) -> int:
        """Bytes that it takes on the disk."""

    def close(self) -> None:
        """Finish the changes that wait. Nothing may be asked afterwards."""
