"""Routing planes: each has its own babeld, with its own port, table and files."""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.routing.babel_settings import PORT


@dataclass(frozen=True, slots=True)
class Plane:
    """What distinguishes one plane on a machine from another."""

    name: str
    """How the names of its files begin: NAME.conf, NAME.log and so on. It is `babeld` or
    `re6stnet-plane-WORD`: each version knows these files as those of a node.
    """
    port: int = PORT
    """The UDP port; its neighbours have the same one."""
    table: int | None = None
    """The kernel's table for its routes, and no others; None: the main table, babeld's default."""


ONLY = Plane("babeld")
"""The plane of a node that has only one."""
