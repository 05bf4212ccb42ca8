"""Where the metrics are served (--metrics), without what serves them: most nodes do not."""

from __future__ import annotations

from dataclasses import dataclass


class MetricsError(Exception):
    """The metrics cannot be served; the text is for the user."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to serve. Without a host: on the loopback interface, IPv4 and IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
