"""Since when each route is as it is: which neighbour carries a destination now, and which one did before.

`RouteHistory` looks at babel's table each time it has changed. The operator can ask for it (docs/control.md, `why`).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Network

from re6st.core.routing.babel_lines import INFINITY, NextHop, Table

GONE_LIMIT = 1000
"""Number of unreachable destinations that are remembered."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """How a destination is reached since a Unix time; `via` None: not at all. `before` is the previous neighbour."""

    via: NextHop | None
    since: float
    before: NextHop | None = None


class RouteHistory:
    """The routes to all destinations. Those of the first look have existed for longer than we know."""

    def __init__(self) -> None:
        self._ways: dict[IPv6Network, RouteState] = {}

    def __getitem__(self, destination: IPv6Network) -> RouteState | None:
        return self._ways.get(destination)

    def note(self, table: Table, now: float) -> None:
        """The table changed, at the Unix time `now`. This takes time proportional to the number of routes."""
        used = set()
        for route in table.routes.values():
            if not route.installed or route.metric >= INFINITY or route.source.prefixlen:
                continue
            destination, via = route.destination, route.via
            used.add(destination)
            known = self._ways.get(destination)
            if known is None or (known.via is not via and known.via != via):
                self._ways[destination] = RouteState(via, now, known.via or known.before if known else None)
        if len(used) == len(self._ways):
            return
        gone = [destination for destination, way in self._ways.items() if destination not in used]
        for destination in gone[: max(0, len(gone) - GONE_LIMIT)]:
            del self._ways[destination]
        for destination in gone[-GONE_LIMIT:]:
            way = self._ways[destination]
            if way.via is not None:
                self._ways[destination] = RouteState(None, now, way.via)
