"""The registry's state, whatever stores it: what can be asked, and what can be changed.

A query is a function of `Queries`, a change is a function of `Changes`, so that things which belong together are read
at one moment, and are changed completely or not at all. Such a function does nothing else: it may run in another
thread, and may run again if two changes conflict. It returns records (records.py). If it raises an error, its changes
are undone, and the error passes through. Types and errors of a database never come out.

There are two repositories: one SQLite file (sqlite/store.py), and a database in PostgreSQL (postgresql/store.py).
Programs that work on the file itself, rather than on a registry's state, are beside it: checks and copies
(sqlite/check.py, sqlite/outline.py), and the older software's form of it (migration/older.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from cryptography import x509

from re6st.core.prefix import Prefix
from re6st.core.registry.clock import Marks
from re6st.core.registry.presence import Stay
from re6st.core.routing.babel_keys import KeyState
from re6st.registryd.records import (
    Figures,
    Issued,
    LastCall,
    ListedNode,
    ListedToken,
    NodeFilter,
    NodeName,
    NodeSelection,
    RegistryCounts,
    RevokedCertificate,
    Slot,
    StoredEvent,
    Token,
)

T = TypeVar("T")


class RepositoryError(Exception):
    """The repository cannot be used now; the text is for the log or the user."""


class RepositoryInUse(RepositoryError):
    """Another process has locked it."""


class ContentError(RepositoryError):
    """It does not belong to a registry, or its content contradicts itself."""


class NotFound(Exception):
    """There is no such certificate."""


class Conflict(Exception):
    """It exists already, or the state forbids the change."""


class Queries(Protocol):
    """What can be read; each takes some microseconds with an embedded database. Raises ContentError."""

    def config(self, name: str) -> Any:
        """A value of the configuration, as `Changes.set_config` stored it; None if there is none."""

    def registry_prefix(self) -> Prefix | None:
        """The prefix of the registry node; None before the first certificate. Raises ContentError."""

    def pem(self, prefix: Prefix) -> bytes | None:
        """The certificate of a prefix."""

    def issued(self, prefix: Prefix) -> Issued | None:
        """The certificate of a prefix with its serial and end; None also if it cannot be read."""

    def prefix_by_email(self, email: str) -> Prefix | None:
        """The prefix of the first certificate with this e-mail address."""

    def token(self, token: str, now: float = 0.0) -> Token | None:
        """What a token allows, unless it has an end of its own before `now`."""

    def crl(self) -> list[int]:
        """The revoked serials, in order."""

    def is_revoked(self, serial: int) -> bool: ...

    def count(self) -> int:
        """How many certificates there are."""

    def longest_prefix(self) -> int | None:
        """The length of the longest prefix that a node has; None if no node has one."""

    def members(self, region: Prefix, limit: int) -> list[Prefix]:
        """The nodes whose prefixes begin with that of a region, who called last first."""

    def babel_state(self) -> KeyState:
        """The keys of babel (wire.md 5.4)."""

    def first_deadline(self, grace: int) -> float | None:
        """When something is to be cleaned up next, as Unix time."""

    def newest_issue(self) -> float | None:
        """When the newest certificate was issued, as Unix time; None if there is none, or it cannot be read."""

    def events(self, limit: int) -> list[StoredEvent]:
        """The events, the oldest first; at most the last `limit`."""

    def lacking(self, extension: str, limit: int = -1) -> list[Prefix]:
        """The nodes that have called, and did not announce this extension in their last call."""

    def without(self, extension: str, now: float) -> list[Prefix]:
        """The nodes with a valid certificate that have never called, or do not announce this extension."""

    def stays(self) -> list[Stay]:
        """The nodes that are online, and since when."""

    def marks(self) -> Marks | None:
        """The stored times of the clock."""

    def name(self, prefix: Prefix) -> str | None:
        """The name of a node."""

    def named(self, name: str) -> Prefix | None:
        """The node that has a name."""

    def is_used(self, prefix: Prefix) -> bool:
        """Whether this leaf, or one that contains it, is used or reserved."""


class Changes(Queries, Protocol):
    """What a transaction can do: read everything, including its own changes, and change it."""

    def issue(
        self,
        community: Prefix,
        length: int,
        email: str | None,
        make: Callable[[Slot], x509.Certificate],
        taken: Collection[Prefix] = (),
    ) -> Issued:
        """Take a free prefix of `length` bits in a community, and store the certificate that `make` makes for it.

        A prefix that is `taken` is skipped and reserved: a node that was forgotten uses it. The very first prefix
        becomes that of the registry's own node (wire.md 4.5). Raises AllocationError.
        """

    def renew(self, old: Issued, make: Callable[[int], x509.Certificate]) -> Issued:
        """Replace a certificate by one with a new serial, which `make` makes."""

    def restore(self, prefix: Prefix, found: x509.Certificate) -> Issued:
        """Store a certificate that was forgotten: in place of an older one, or where the prefix is free.

        If its key is another one, e-mail address, name and tags are deleted: it may be somebody else's. Raises Conflict
        if somebody else has the prefix.
        """

    def revoke(self, serial: int, now: float, reason: str = "") -> Prefix:
        """Revoke a serial, unless its certificate has ended; returns whose it is. Raises Conflict, NotFound."""

    def evict(self, prefix: Prefix, now: float, reason: str = "", *, keep: bool = False) -> None:
        """Revoke the certificate of a prefix, and older ones of it that have not ended; make the prefix free.

        With `keep` nobody else ever gets it. Raises NotFound.
        """

    def revoke_superseded(self, prefix: Prefix, now: float, reason: str) -> list[int]:
        """Revoke the certificates of a prefix that were replaced and have not ended; returns their serials."""

    def revoke_unknown(self, serial: int, not_after: float) -> None:
        """Revoke a serial whose certificate is not stored here."""

    def clean_up(self, now: float, grace: int) -> bool:
        """Delete old tokens, certificates and revocations (wire.md 4.4); returns whether the list of revoked serials
        changed.

        `now` is the trusted time (core/registry/clock.py). The certificate of the registry's own node is never deleted.
        """

    def free_leaves(self) -> Iterator[Prefix]:
        """Free these prefixes, with all that belongs to them."""

    def add_token(
        self,
        token: str,
        email: str,
        length: int,
        now: float,
        expires: float | None = None,
        *,
        uses: int = 1,
        tags: Sequence[str] = (),
    ) -> None:
        """Store a token that ends with the grace period after `now`, or at `expires`. Raises Conflict if it exists."""

    def use_token(self, token: str) -> None:
        """Count a use of an existing token; it is deleted with the last one."""

    def set_tags(self, prefix: Prefix, tags: Sequence[str]) -> None:
        """Store the tags of a node, in place of those that it had. Raises NotFound."""

    def delete_token(self, token: str) -> bool:
        """Delete a token; returns whether it existed."""

    def mark_seen(self, calls: Sequence[LastCall]) -> None:
        """Store calls of nodes; those of nodes without a certificate are ignored."""

    def mark_stays(self, stays: Sequence[Stay]) -> None:
        """Store since when nodes are online or offline; those without a certificate are ignored."""

    def replace_events(self, kind: str, events: Sequence[StoredEvent]) -> None:
        """Keep these events of a kind, and no others."""

    def set_name(self, prefix: Prefix, name: str | None) -> None:
        """Give a node a name, or none. It has the name until its prefix becomes free.

        Raises Conflict if another node has the name, NotFound if the node has no certificate.
        """

    def set_marks(self, marks: Marks) -> None:
        """Store the times of the clock."""

    def set_config(self, name: str, value: str | int | float | bytes | None) -> None:
        """Store a value, or delete it with None."""

    def set_babel_state(self, state: KeyState) -> None: ...


class Lists(Queries, Protocol):
    """Longer queries, for people and for monitoring: pages that take milliseconds."""

    def nodes(self, wanted: NodeFilter, after: str, limit: int) -> list[ListedNode]:
        """Nodes in the order of their addresses, after the prefix `after` in bits."""

    def node(self, prefix: Prefix) -> ListedNode | None:
        """The node of a prefix."""

    def node_by_serial(self, serial: int) -> ListedNode | None:
        """The node whose certificate has, or had, a serial."""

    def older_serials(self, prefix: Prefix) -> list[int]:
        """The serials of a node's certificates that were replaced and have not ended."""

    def select_nodes(self, wanted: NodeSelection) -> tuple[int, list[ListedNode]]:
        """How many nodes a selection has, and the part of them that it asks for."""

    def tokens(self, grace: int, after: str, limit: int) -> list[ListedToken]:
        """Tokens in alphabetical order, after `after`."""

    def every_token(self) -> Iterator[str]:
        """All tokens."""

    def revoked(self, after: int, limit: int) -> list[RevokedCertificate]:
        """Revoked certificates in the order of their serials, after the serial `after`."""

    def names(self, limit: int) -> list[NodeName]:
        """The names of the first nodes by address."""

    def names_of(self, prefixes: Iterable[Prefix]) -> list[NodeName]:
        """The names of those of these nodes that have a certificate."""

    def counts(self, online: Iterable[Prefix], now: int, soon: int) -> RegistryCounts:
        """The numbers of the overview; a certificate that ends before `soon` is expiring."""

    def figures(self, now: float, soon: int, since: int, grace: int, seen_limit: int) -> Figures:
        """The facts for monitoring: the software of nodes that called after `since`; when nodes last called, for at
        most `seen_limit` nodes.
        """


class Outdated(StrEnum):
    """What another registry on the same state has changed, so that what we remember of it is old."""

    PARAMETERS = "parameters"
    EVENTS = "events"


class SharedState(Protocol):
    """What several registries need that serve one state. Each coroutine raises RepositoryError."""

    @property
    def leads(self) -> bool:
        """Whether we do what one of them has to do: each second one of them leads, or none."""

    def watch(self, told: Callable[[frozenset[Outdated]], None]) -> None:
        """Call `told`, in this event loop, when others have changed something, when that may have been missed, and
        when nobody knows whether a change of ours was made.
        """

    async def change_sessions(self, prefix: Prefix, change: Callable[[bytes | None], tuple[bytes | None, T]]) -> T:
        """Replace what is kept of a client's sessions; `change` returns that (None: nothing) and the result.

        One change of a client comes after the other. It may be forgotten, as when the database starts anew.
        """


class Repository(Protocol):
    """An open repository. Each method raises RepositoryError if it cannot be used now."""

    @property
    def shared(self) -> SharedState | None:
        """None: nobody else uses this state."""

    async def read(self, query: Callable[[Queries], T]) -> T:
        """The result of a query, which sees what was committed when it began."""

    async def browse(self, query: Callable[[Lists], T]) -> T:
        """The result of a longer query, for which others need not wait; one page at a time."""

    async def change(self, change: Callable[[Changes], T]) -> T:
        """Carry out a change, and return its result once the change is on the disk."""

    async def size(self) -> int:
        """Its size on the disk in bytes."""

    def close(self) -> None:
        """Finish the changes that wait. Nothing may be asked afterwards."""
