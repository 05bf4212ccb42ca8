"""Routing planes: each is a babeld of its own beside the others, with a port, a table and files of its own."""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.routing.babel_settings import PORT


@dataclass(frozen=True, slots=True)
class Plane:
    """What tells one plane from another on a machine."""

    name: str
    """How its files begin: NAME.conf, NAME.log and so on."""
    port: int = PORT
    """UDP, that its neighbours have too."""
    table: int | None = None
    """Of the kernel, with its routes and no others; None: the main table, as babeld does of itself."""


ONLY = Plane("babeld")
"""The plane of a node that has one."""
