"""The metrics of the registry, from its counters and its database, as a page for Prometheus (docs/metrics.md).

The database is read in a thread, and no more often than FRESH says, however often somebody asks: with 100,000 nodes,
this takes some tenths of a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from re6st import PROTOCOL, __version__
from re6st.core.prefix import Prefix
from re6st.core.telemetry.metrics import REGISTRY, Durations, MetricsPage
from re6st.core.wire.params import version_number
from re6st.keys import pki
from re6st.registry import Registry
from re6st.registryd.events import EventKind
from re6st.registryd.own_node import own_node
from re6st.registryd.records import Figures
from re6st.registryd.repository import ContentError, Lists, NotFound, RepositoryError
from re6st.service.exposition import exposition

FRESH = 10.0
"""Seconds for which figures from the database can be used again."""
EXPIRING = 14 * 86400
ACTIVE = 30 * 86400
"""A node counts if its last call was so many seconds ago or less."""
VERSIONS_LIMIT = 50
NODES_LIMIT = 10_000
"""Number of nodes with their own series (--metrics-per-node)."""
ROUTES_TIME = 3.0

_ISSUED = {"enrolment": EventKind.ENROLLED, "renewal": EventKind.RENEWED}


class RegistryMetrics:
    """Counts calls, and makes the page; with `per_node` there are series for each node."""

    def __init__(self, registry: Registry, *, per_node: bool = False) -> None:
        self._registry = registry
        self._trust = registry.resources.authority.trust
        self._repository = registry.resources.repository
        self._grace = registry.resources.settings.grace
        self._per_node = per_node
        self._clock = registry.resources.clocks.wall
        self._requests: Counter[tuple[str, int]] = Counter()
        self._durations: dict[str, Durations] = {}
        self._figures: tuple[float, Figures] | None = None
        self._write = exposition()

    def observed(self, method: str, status: int, seconds: float) -> None:
        """A call was answered. A method that does not exist counts as `request`."""
        self._requests[method, status] += 1
        self._durations.setdefault(method, Durations()).add(seconds)

    async def render(self) -> bytes:
        """The page. Raises RepositoryError."""
        page = MetricsPage(REGISTRY)
        page.add("re6st_registry_build_info", 1, __version__, PROTOCOL)
        for (method, status), count in self._requests.items():
            page.add("re6st_registry_http_requests_total", count, method, status)
        for method, durations in self._durations.items():
            page.add("re6st_registry_http_request_duration_seconds", durations, method)
        online = await self._online()
        self._add_figures(page, await self._read(), online)
        totals = self._registry.events.totals
        page.add_all(
            "re6st_registry_certificates_issued_total", [(name, totals[kind]) for name, kind in _ISSUED.items()]
        )
        page.add_all("re6st_registry_events_total", [(kind.value, totals[kind]) for kind in EventKind])
        page.add("re6st_registry_ca_not_after_timestamp_seconds", pki.end_of(self._trust.ca).timestamp())
        page.add("re6st_registry_nodes_online", None if online is None else len(online))
        with suppress(ContentError):
            own = await self._repository.read(own_node)
            page.add("re6st_registry_own_node_certified", None if own is None else int(own.certified))
        keys = (await self._repository.read(lambda queries: queries.babel_state())).keys
        page.add("re6st_registry_hmac_rotation_step", sum(key is not None for key in keys))
        with suppress(NotFound, RepositoryError):
            parameters = await self._registry.parameter_service.parameters()
            page.add("re6st_registry_parameters_version", version_number(parameters.version))
        page.add("re6st_registry_database_bytes", await self._repository.size())
        return self._write(page)

    def _add_figures(self, page: MetricsPage, figures: Figures, online: frozenset[Prefix] | None) -> None:
        page.add_all("re6st_registry_certificates", figures.certificates.items())
        page.add("re6st_registry_certificate_earliest_not_after_timestamp_seconds", figures.earliest)
        page.add_all("re6st_registry_tokens", figures.tokens.items())
        page.add_all("re6st_registry_prefixes_free", figures.free.items())
        ratio = sum(count / 2**length for length, count in figures.free.items())
        page.add("re6st_registry_prefixes_free_ratio", ratio)
        for (version, protocol), count in by_version(figures.software).items():
            page.add("re6st_registry_nodes_by_version", count, version, protocol)
        for prefix, seen in figures.seen:
            page.add("re6st_registry_node_last_seen_timestamp_seconds", seen, prefix.cn)
            page.add("re6st_registry_node_online", None if online is None else int(prefix in online), prefix.cn)
        page.add("re6st_registry_nodes_gone", None if online is None else figures.gone)

    async def _read(self) -> Figures:
        now = time.monotonic()
        if self._figures is None or now - self._figures[0] > FRESH:
            await self._registry.seen.try_flush()
            await self._registry.presence.try_flush()
            figures = await self._repository.browse(self._look)
            self._figures = now, figures
        return self._figures[1]

    def _look(self, lists: Lists) -> Figures:
        now = self._clock()
        seen_limit = NODES_LIMIT if self._per_node else 0
        return lists.figures(now, int(now) + EXPIRING, int(now) - ACTIVE, self._grace, seen_limit)

    async def _online(self) -> frozenset[Prefix] | None:
        """The nodes that are online, with the registry's own; None if no babeld answers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ROUTES_TIME):
                return (await self._registry.presence.fresh()).online
        return None


def by_version(software: Mapping[tuple[str, int], int]) -> dict[tuple[str, str], int]:
    """Nodes by their software. The text comes from the nodes, so only the most frequent ones are named."""
    found: Counter[tuple[str, str]] = Counter()
    for (name, protocol), count in software.items():
        kind = (name.partition(",")[0] or "older", str(protocol))
        found[kind if kind in found or len(found) < VERSIONS_LIMIT else ("other", "other")] += count
    return dict(found)
