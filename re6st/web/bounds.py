"""Limits of the operator's page: how many clients are served at once, and how long it waits for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PageBounds:
    """Times are in seconds."""

    connections: int = 256
    share: int = 32
    """Connections of one sender; a browser has up to six."""
    reserve: int = 64
    """Connections that are reserved for this machine, and for clients of its proxies."""
    head: float = 15.0
    """For a request to arrive, and between two requests on one connection."""
    form: float = 15.0
    """For the content of a form to arrive."""


BOUNDS = PageBounds()
