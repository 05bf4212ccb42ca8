"""How many may look at the operator's page at once, and how long it waits for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times are in seconds."""

    connections: int = 256
    share: int = 32
    """Connections of one sender; a browser has up to six."""
    reserve: int = 64
    """Those that are left to this machine, and to what comes by its proxies."""
    head: float = 15.0
    """For a request to arrive, and between two on one connection."""
    form: float = 15.0
    """For what a form has to say."""


BOUNDS = Bounds()
