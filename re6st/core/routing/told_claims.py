"""What a node tells others about who claims what (core/routing/claims.py), as the registry beside it reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from re6st.core.prefix import Prefix

MOST = 100
"""So many names of one kind are read: they keep an operator busy enough."""
NAME_LIMIT = 100


@dataclass(frozen=True, slots=True)
class ToldClaims:
    """As `claims` in docs/control.md."""

    refused: tuple[Prefix, ...] = ()
    """Who announced a subnet that is not its own, so that the node has refused it for a while."""
    own_subnet_from: tuple[str, ...] = ()
    """From whom the node hears its own subnet: CNs, and addresses of neighbours without a name."""
    doubled: tuple[Prefix, ...] = ()
    """Certificates that two machines use at the same time."""


def read_claims(fields: object) -> ToldClaims:
    """Read the object. A node that does not have it claims nothing about anybody. Raises ValueError."""
    if fields is None:
        return ToldClaims()
    if not isinstance(fields, Mapping):
        raise ValueError("claims is not an object")
    return ToldClaims(
        tuple(Prefix.from_cn(text) for text in _texts(fields, "refused")),
        _texts(fields, "own_subnet_from"),
        tuple(Prefix.from_cn(text) for text in _texts(fields, "doubled")),
    )


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = fields.get(name, [])
    if not isinstance(found, list):
        raise ValueError(f"{name} is not a list")
    texts = found[:MOST]
    if not all(isinstance(text, str) and len(text) <= NAME_LIMIT and text.isprintable() for text in texts):
        raise ValueError(f"{name} contains something other than names")
    return tuple(texts)
