"""What the rows of both databases say, for the lists of nodes, tokens and revocations: their columns are the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from re6st.core.prefix import Prefix
from re6st.core.registry.presence import Stay
from re6st.registryd.records import ListedNode, ListedToken, NodeName, RevokedCertificate

TOP_SOFTWARE = 20
"""Number of programs in the overview."""


def node_of(row: tuple[Any, ...], pem: bytes | None) -> ListedNode:
    """A node, with its certificate; the third column is the certificate as it is stored."""
    bits, email, _, serial, number, not_after, revoked, seen, protocol, software, names, tags, online, since, name = row
    prefix = Prefix.from_bits(bits)
    return ListedNode(
        prefix,
        email,
        pem,
        serial,
        number,
        not_after,
        bool(revoked),
        *(seen, protocol, software),
        tuple((names or "").split()),
        tuple((tags or "").split()),
        None if online is None else Stay(prefix, bool(online), since),
        name,
    )


def token_of(row: tuple[Any, ...]) -> ListedToken:
    """A token."""
    token, email, length, created, expires, uses, tags = row
    return ListedToken(token, email, length, created, expires, uses, tuple(tags.split()))


def names_of(rows: Iterable[tuple[Any, ...]]) -> list[NodeName]:
    """The names of nodes."""
    return [NodeName(Prefix.from_bits(bits), *rest) for bits, *rest in rows]


def revoked_of(rows: Iterable[tuple[Any, ...]]) -> list[RevokedCertificate]:
    """Certificates that were revoked."""
    return [
        RevokedCertificate(serial, None if bits is None else Prefix.from_bits(bits), *rest)
        for serial, bits, *rest in rows
    ]


def like(text: str) -> str:
    """A pattern of LIKE for what contains a text, where a backslash escapes."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
