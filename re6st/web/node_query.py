"""Which part of the list of nodes a visitor of the operator's page asks for."""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.prefix import Prefix

PAGE = 50
"""Nodes of one page."""


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """What to search for, one of NODE_STATES, and one of NODE_SORTS. `online` are the nodes that have a route; None:
    unknown, and then no node is online or offline.
    """

    search: str = ""
    state: str = "all"
    sort: str = "address"
    descending: bool = False
    offset: int = 0
    online: frozenset[Prefix] | None = None
    limit: int = PAGE
