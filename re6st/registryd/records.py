"""What the registry's state consists of, as its repository hands it out: plain records, of no database."""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.prefix import Prefix


@dataclass(frozen=True, slots=True)
class Slot:
    """What a new certificate is given."""

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
    """What a token is good for: a prefix of this length, for the owner of this e-mail address (empty: anybody)."""

    email: str
    prefix_length: int


@dataclass(frozen=True, slots=True)
class LastCall:
    """The last call of a node: when (Unix time), in which protocol, with which software and extensions."""

    prefix: Prefix
    date: int
    protocol: int
    software: str
    extensions: str


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as events.py has it; its kind may be one of a later version."""

    number: int
    time: int
    kind: str
    cn: str | None
    text: str
    count: int


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node with a certificate, and its last call: without one, `seen`, `protocol` and `software` are None.

    Times are Unix times. `pem` is None where what is stored cannot be read.
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


@dataclass(frozen=True, slots=True)
class ListedToken:
    """A token that was not used; times are Unix times."""

    token: str
    email: str | None
    prefix_length: int
    created: int
    expires: int


@dataclass(frozen=True, slots=True)
class RevokedCertificate:
    """One of the list of revoked ones, which it leaves at `listed_until`; the rest as far as it is known."""

    serial: int
    prefix: Prefix | None
    email: str | None
    revoked: int | None
    reason: str | None
    listed_until: int


@dataclass(frozen=True, slots=True)
class NodeName:
    """What a node is called in a drawing."""

    prefix: Prefix
    email: str | None
    software: str | None


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """Which nodes to list; times in Unix seconds."""

    email: str | None = None
    ends_before: int | None = None
    unseen_since: int | None = None


NODE_SORTS = ("address", "email", "seen", "expires", "version", "serial")
"""What a list of nodes can be sorted by."""
NODE_STATES = ("all", "online", "offline", "expiring", "revoked", "older")
"""Which part of the nodes a list can have; `older` are those that need long hellos of the whole network."""


@dataclass(frozen=True, slots=True)
class NodeSearch:
    """What a node is looked for by: its serial, a prefix of several, or a part of its e-mail address or version."""

    serial: int | None = None
    prefixes: tuple[Prefix, ...] | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class NodeSelection:
    """A part of a sorted list of nodes. `online` are those with a route; None: unknown, and then no node is online or
    offline. `ends_before` is when the certificate of an expiring node ends, as Unix time.
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
    """How many nodes run a software; None, where they never called."""

    software: str | None
    protocol: int | None
    older: bool
    nodes: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is of each, at one moment; `routed` of the nodes have a route, the most frequent software first."""

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
    """What monitoring is told of the state at one moment."""

    certificates: dict[str, int]
    earliest: int | None
    tokens: dict[str, int]
    free: dict[int, int]
    """How many free prefixes, by their length."""
    software: dict[tuple[str, int], int]
    """How many nodes that called lately have a software and a protocol, the most frequent first."""
    seen: tuple[tuple[Prefix, int], ...]
    """When nodes called last, by their address."""
