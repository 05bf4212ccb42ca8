"""The figures of a registry: of its database at a known time, and of calls."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from re6st import cert
from re6st.api.metrics import ACTIVE, EXPIRING, VERSIONS_LIMIT, RegistryMetrics, by_version
from re6st.keys import pki
from re6st.registryd.records import Figures
from re6st.registryd.repository import Repository
from tests.unit.core.telemetry.test_metrics import Values, value
from tests.unit.registry_world import DAY, START, World
from tests.unit.repositories import CountedRepository


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


def metrics(world: World, *, per_node: bool = False) -> RegistryMetrics:
    return RegistryMetrics(world.registry, per_node=per_node)


async def figures(world: World, now: float) -> Figures:
    moments = now, int(now) + EXPIRING, int(now) - ACTIVE
    found: Figures = await world.store.browse(lambda lists: lists.figures(*moments, 100 * 86400, 0))
    return found


async def page(made: RegistryMetrics) -> Values:
    families = text_string_to_metric_families((await made.render()).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for each in families for s in each.samples}


def test_an_empty_registry(world: World) -> None:
    async def test(world: World) -> None:
        values = await page(metrics(world))
        assert value(values, "re6st_registry_certificates", state="valid") == 0
        assert value(values, "re6st_registry_prefixes_free_ratio") == 1
        assert value(values, "re6st_registry_hmac_rotation_step") == 1
        assert (
            value(values, "re6st_registry_ca_not_after_timestamp_seconds")
            == pki.end_of(world.authority.trust.ca).timestamp()
        )
        assert value(values, "re6st_registry_database_bytes") > 4096
        names = {name for name, _ in values}
        assert "re6st_registry_certificate_earliest_not_after_timestamp_seconds" not in names
        assert "re6st_registry_nodes_online" not in names, "no babeld answers"
        assert "re6st_registry_own_node_certified" not in names, "there is none yet"

    world.run(test)


def test_a_registry_that_has_lost_its_own_node(world: World) -> None:
    async def test(world: World) -> None:
        first = await world.enrol()
        await world.store.change(lambda ledger: ledger.evict(cert.prefix_of_cert(first), START))
        assert value(await page(metrics(world)), "re6st_registry_own_node_certified") == 0

    world.run(test)


def test_certificates_tokens_and_prefixes(world: World) -> None:
    async def test(world: World) -> None:
        certificates = [await world.enrol() for _ in range(3)]
        token = await world.registry.tokens.new("a@example.org", 16, START + 10 * DAY)
        await world.registry.tokens.new("b@example.org", 16, START + DAY)
        await world.call("revoke", cn_or_serial=str(certificates[2].serial_number))
        made = metrics(world)
        values = await page(made)
        assert {
            state: value(values, "re6st_registry_certificates", state=state)
            for state in ("valid", "expiring", "grace", "revoked")
        } == {"valid": 2, "expiring": 0, "grace": 0, "revoked": 1}
        assert value(values, "re6st_registry_certificates_issued_total", kind="enrolment") == 3
        assert value(values, "re6st_registry_tokens", state="unused") == 2
        assert value(values, "re6st_registry_own_node_certified") == 1
        assert value(values, "re6st_registry_prefixes_free", length="2") == 1
        assert value(values, "re6st_registry_prefixes_free_ratio") == pytest.approx(1 - 3 / 65536, abs=2 / 65536)
        first_end = min(pki.end_of(each).timestamp() for each in certificates)
        name = "re6st_registry_certificate_earliest_not_after_timestamp_seconds"
        assert value(values, name) == first_end
        assert token not in (await made.render()).decode()
        later = await figures(world, first_end - 10 * DAY)
        assert later.certificates == {"valid": 0, "expiring": 2, "grace": 0, "revoked": 1}
        assert (await figures(world, first_end + 2)).certificates["grace"] >= 1
        assert (await figures(world, START + 2 * DAY)).tokens == {"unused": 1, "expired": 1}

    world.run(test)


def test_nodes_by_version_and_when_they_were_seen(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        await world.parameters()
        values = await page(metrics(world))
        assert value(values, "re6st_registry_nodes_by_version", version="older", protocol="10") == 1
        assert "re6st_registry_node_last_seen_timestamp_seconds" not in {name for name, _ in values}
        values = await page(metrics(world, per_node=True))
        assert value(values, "re6st_registry_node_last_seen_timestamp_seconds", cn="0/16") == START

    world.run(test)


def test_versions_that_nodes_make_up_are_bounded(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        with closing(sqlite3.connect(world.store.path)) as db, db:
            db.executemany(
                "INSERT INTO re6st_seen VALUES (?, ?, 11, ?)",
                [(format(n, "016b"), int(START), f"1.{n}, Linux") for n in range(1, 3 * VERSIONS_LIMIT)],
            )
        db.close()
        found = by_version((await figures(world, START)).software)
        assert len(found) == VERSIONS_LIMIT + 1
        assert sum(found.values()) == 3 * VERSIONS_LIMIT - 1

    world.run(test)


def test_the_database_is_not_read_for_each_who_asks(world: World) -> None:
    counted: list[CountedRepository] = []

    def wrap(repository: Repository) -> Repository:
        counted.append(CountedRepository(repository))
        return counted[0]

    async def test(world: World) -> None:
        made = metrics(world)
        await page(made)
        await world.enrol()
        values = await page(made)
        assert [repository.browsed for repository in counted] == [1]
        assert value(values, "re6st_registry_events_total", kind="enrolled") == 1

    world.wrap = wrap
    world.run(test)


def test_calls_are_counted(world: World) -> None:
    async def test(world: World) -> None:
        made = metrics(world)
        for status, seconds in ((200, 0.002), (200, 0.02), (403, 0.001)):
            made.observed("getCa", status, seconds)
        values = await page(made)
        name = "re6st_registry_http_requests_total"
        assert [value(values, name, method="getCa", code=code) for code in ("200", "403")] == [2, 1]
        assert value(values, "re6st_registry_http_request_duration_seconds_count", method="getCa") == 3

    world.run(test)
