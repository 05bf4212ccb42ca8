"""The registry's state as its repository returns it: plain records that know no database."""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.prefix import Prefix
from re6st.core.registry.presence import Stay

GONE_AFTER, GONE_UNTIL = 600, 86400
"""A node is gone if it is offline for so many seconds, but not for longer than so many."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The properties of a new certificate."""

    prefix: Prefix
    number: int
    serial: int


@dataclass(frozen=True, slots=True)
class Issued:
    """A stored certificate; `not_after` is Unix time."""

    prefix: Prefix
    pem: bytes
    serial: int
    not_after: int


@dataclass(frozen=True, slots=True)
class Token:
    """What a token allows: a prefix of this length, for the owner of this e-mail address (empty: anybody), as often as
    `uses` says. Its nodes get the tags.
    """

    email: str
    prefix_length: int
    uses: int = 1
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LastCall:
    """The last call of a node: when (Unix time), and with which protocol, software and extensions."""

    prefix: Prefix
    date: int
    protocol: int
    software: str
    extensions: str


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as in events.py; its kind may be one of a later version."""

    number: int
    time: int
    kind: str
    cn: str | None
    text: str
    count: int


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node with a certificate, and its last call: if it has never called, `seen`, `protocol` and `software` are None.

    Times are Unix times. `pem` is None if the stored certificate cannot be read.
    """

    prefix: Prefix
    email: str | None
    pem: bytes | None
    serial: int
    number: int | None
    not_after: int
    revoked: bool
    seen: int | None
    protocol: int | None
    software: str | None
    extensions: tuple[str, ...]
    tags: tuple[str, ...]
    stay: Stay | None = None
    """Since when it is online or offline, as it was written last; None: it was never there."""
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ListedToken:
    """A token that can be used as often as `uses` says; times are Unix times."""

    token: str
    email: str | None
    prefix_length: int
    created: int
    expires: int
    uses: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RevokedCertificate:
    """A revoked certificate. It leaves the list at `listed_until`; the other fields are filled in as far as they are
    known.
    """

    serial: int
    prefix: Prefix | None
    email: str | None
    revoked: int | None
    reason: str | None
    listed_until: int


@dataclass(frozen=True, slots=True)
class NodeName:
    """How a drawing names a node."""

    prefix: Prefix
    email: str | None
    software: str | None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """Which nodes to list; times are in Unix seconds."""

    email: str | None = None
    ends_before: int | None = None
    unseen_since: int | None = None


NODE_SORTS = ("address", "email", "seen", "expires", "version", "serial")
"""The fields by which a list of nodes can be sorted."""
NODE_STATES = ("all", "online", "offline", "expiring", "revoked", "older")
"""The selections of a list of nodes; `older` are those for which the whole network needs long hellos."""


@dataclass(frozen=True, slots=True)
class NodeSearch:
    """What to search nodes for: a serial, one of several prefixes, or a part of the name, e-mail address or version."""

    serial: int | None = None
    prefixes: tuple[Prefix, ...] | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class NodeSelection:
    """A part of a sorted list of nodes. `online` are those to which there is a route; None: unknown, and then no node
    is online or offline. `ends_before` is the Unix time before which an expiring node's certificate ends.
    """

    search: NodeSearch
    state: str
    sort: str
    descending: bool
    offset: int
    limit: int
    online: frozenset[Prefix] | None
    ends_before: int


@dataclass(frozen=True, slots=True)
class SoftwareCount:
    """How many nodes run a software; None for those that have never called."""

    software: str | None
    protocol: int | None
    older: bool
    nodes: int


@dataclass(frozen=True, slots=True)
class RegistryCounts:
    """The number of each at one moment; `routed` of the nodes have a route, the most frequent software comes first."""

    nodes: int
    routed: int
    expiring: int
    expired: int
    never_seen: int
    tokens: int
    revoked: int
    software: tuple[SoftwareCount, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """The facts for monitoring at one moment."""

    certificates: dict[str, int]
    earliest: int | None
    tokens: dict[str, int]
    free: dict[int, int]
    """How many prefixes are free, by their length."""
    software: dict[tuple[str, int], int]
    """How many nodes that called lately have a software and a protocol, the most frequent first."""
    seen: tuple[tuple[Prefix, int], ...]
    """When nodes last called, in the order of their addresses."""
    gone: int
    """How many nodes went offline within the last day, and are away for ten minutes (GONE_AFTER, GONE_UNTIL)."""
