"""The metrics of the registry: what it counts, and what its database says, as a page for Prometheus (docs/metrics.md).

The database is read over a connection of its own, in a thread, and not more often than FRESH says, however often
somebody asks: at 100,000 nodes a look takes some tenths of a second.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from re6st import PROTOCOL, __version__
from re6st.core.prefix import Prefix
from re6st.core.telemetry.metrics import REGISTRY, Durations, Page
from re6st.core.wire.params import version_number
from re6st.registry import Registry
from re6st.registryd.events import Kind
from re6st.registryd.listings import reading
from re6st.registryd.own_node import own_node
from re6st.registryd.sqlite.ledger import LedgerError, NotFound
from re6st.registryd.sqlite.store import Store, StoreError
from re6st.service.exposition import exposition

FRESH = 10.0
"""Seconds for which figures from the database are good."""
EXPIRING = 14 * 86400
ACTIVE = 30 * 86400
"""Seconds since the last call of a node that counts."""
VERSIONS_LIMIT = 50
NODES_LIMIT = 10_000
"""Nodes with a series of their own (--metrics-per-node)."""
ROUTES_TIME = 3.0

_ISSUED = {"enrolment": Kind.ENROLLED, "renewal": Kind.RENEWED}


@dataclass(frozen=True, slots=True)
class Figures:
    """What the database says at one moment."""

    certificates: dict[str, int]
    earliest: int | None
    tokens: dict[str, int]
    free: dict[int, int]
    """How many free prefixes, by their length."""
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    seen: list[tuple[str, int]] = field(default_factory=list)


class RegistryMetrics:
    """Counts calls, and makes the page. `clock` gives Unix time; `grace` is that of tokens, in seconds."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        ca_until: Callable[[], float],
        *,
        grace: int,
        per_node: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._store = store
        self._ca_until = ca_until
        self._grace = grace
        self._per_node = per_node
        self._clock = clock
        self._requests: Counter[tuple[str, int]] = Counter()
        self._durations: dict[str, Durations] = {}
        self._figures: tuple[float, Figures] | None = None
        self._write = exposition()

    def observed(self, method: str, status: int, seconds: float) -> None:
        """A call was answered. Methods that do not exist are `request`."""
        self._requests[method, status] += 1
        self._durations.setdefault(method, Durations()).add(seconds)

    async def render(self) -> bytes:
        """The page. Raises sqlite3.Error."""
        page = Page(REGISTRY)
        page.add("re6st_registry_build_info", 1, __version__, PROTOCOL)
        for (method, status), count in self._requests.items():
            page.add("re6st_registry_http_requests_total", count, method, status)
        for method, durations in self._durations.items():
            page.add("re6st_registry_http_request_duration_seconds", durations, method)
        self._add_figures(page, await self._read())
        totals = self._registry.events.totals
        page.add_all(
            "re6st_registry_certificates_issued_total", [(name, totals[kind]) for name, kind in _ISSUED.items()]
        )
        page.add_all("re6st_registry_events_total", [(kind.value, totals[kind]) for kind in Kind])
        page.add("re6st_registry_ca_not_after_timestamp_seconds", self._ca_until())
        page.add("re6st_registry_nodes_online", await self._online())
        with suppress(LedgerError):
            own = own_node(self._store.rows)
            page.add("re6st_registry_own_node_certified", None if own is None else int(own.certified))
        keys = self._store.rows.babel_state().keys
        page.add("re6st_registry_hmac_rotation_step", sum(key is not None for key in keys))
        with suppress(NotFound, LedgerError, StoreError):
            page.add("re6st_registry_parameters_version", version_number(self._registry.upkeep.parameters.version))
        page.add("re6st_registry_database_bytes", _size(self._store.path))
        return self._write(page)

    def _add_figures(self, page: Page, figures: Figures) -> None:
        page.add_all("re6st_registry_certificates", figures.certificates.items())
        page.add("re6st_registry_certificate_earliest_not_after_timestamp_seconds", figures.earliest)
        page.add_all("re6st_registry_tokens", figures.tokens.items())
        page.add_all("re6st_registry_prefixes_free", figures.free.items())
        ratio = sum(count / 2**length for length, count in figures.free.items())
        page.add("re6st_registry_prefixes_free_ratio", ratio)
        for (version, protocol), count in figures.versions.items():
            page.add("re6st_registry_nodes_by_version", count, version, protocol)
        for cn, seen in figures.seen:
            page.add("re6st_registry_node_last_seen_timestamp_seconds", seen, cn)

    async def _read(self) -> Figures:
        now = time.monotonic()
        if self._figures is None or now - self._figures[0] > FRESH:
            await self._registry.seen.try_flush()
            figures = await asyncio.to_thread(read, self._store.path, self._clock(), self._grace, self._per_node)
            self._figures = now, figures
        return self._figures[1]

    async def _online(self) -> int | None:
        """How many nodes are routed, with the registry's own; None where no babeld answers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ROUTES_TIME):
                routes = await self._registry.node.routes()
                return None if routes is None else len(routes) + 1
        return None


def read(path: Path, now: float, grace: int, per_node: bool) -> Figures:
    """The figures of a database. Raises sqlite3.Error."""
    with reading(path) as db:
        valid, expiring, ended = db.execute(
            "SELECT total(not_after >= ?2), total(not_after BETWEEN ?1 AND ?2 - 1), total(not_after < ?1)"
            " FROM re6st_issued WHERE serial NOT IN (SELECT serial FROM crl)",
            (int(now), int(now) + EXPIRING),
        ).fetchone()
        (revoked,) = db.execute("SELECT count(*) FROM crl").fetchone()
        unused, expired = db.execute(
            "SELECT total(ifnull(expires, date + ?1) > ?2), total(ifnull(expires, date + ?1) <= ?2)"
            " FROM token LEFT JOIN re6st_token USING (token)",
            (grace, now),
        ).fetchone()
        (earliest,) = db.execute("SELECT min(not_after) FROM re6st_issued WHERE not_after > ?", (int(now),)).fetchone()
        free = db.execute("SELECT length(prefix), count(*) FROM cert WHERE cert IS NULL GROUP BY 1 ORDER BY 1")
        return Figures(
            certificates={"valid": int(valid), "expiring": int(expiring), "grace": int(ended), "revoked": revoked},
            earliest=earliest,
            tokens={"unused": int(unused), "expired": int(expired)},
            free=dict(free.fetchall()),
            versions=_versions(db, now),
            seen=_seen(db) if per_node else [],
        )


def _versions(db: sqlite3.Connection, now: float) -> dict[tuple[str, str], int]:
    """Nodes by what they run. The text comes from them, so only the most frequent ones are named."""
    rows = db.execute(
        "SELECT software, protocol, count(*) AS n FROM re6st_seen WHERE date > ? GROUP BY 1, 2 ORDER BY n DESC",
        (int(now) - ACTIVE,),
    )
    found: Counter[tuple[str, str]] = Counter()
    for software, protocol, count in rows:
        kind = (software.partition(",")[0] or "older", str(protocol))
        found[kind if kind in found or len(found) < VERSIONS_LIMIT else ("other", "other")] += count
    return dict(found)


def _seen(db: sqlite3.Connection) -> list[tuple[str, int]]:
    rows = db.execute("SELECT prefix, date FROM re6st_seen ORDER BY prefix LIMIT ?", (NODES_LIMIT,))
    return [(Prefix.from_bits(bits).cn, date) for bits, date in rows]


def _size(path: Path) -> int:
    """Bytes on the disk, with what was written lately."""
    total = 0
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(OSError):
            total += os.stat(each).st_size
    return total
