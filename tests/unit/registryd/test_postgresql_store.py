"""What is particular to the store in PostgreSQL: it goes away and comes back, and nothing it acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import queue
import resource
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import psycopg
import pytest
from cryptography import x509

from re6st import cert
from re6st.core.registry.allocator import ROOT
from re6st.registryd.postgresql.changes import PostgresChanges
from re6st.registryd.postgresql.connections import PAUSE, Connections
from re6st.registryd.postgresql.queries import PostgresQueries
from re6st.registryd.postgresql.store import LOCK, PostgresStore
from re6st.registryd.postgresql.watch import RegistryWatch
from re6st.registryd.records import Issued, Slot
from re6st.registryd.repository import Changes, Outdated, RepositoryError
from tests.postgresql_cluster import Cluster

T = TypeVar("T")

NOW = datetime(2027, 6, 1, tzinfo=UTC)
HIGH = 1100
"""A descriptor that select() refuses."""


class World:
    def __init__(self, url: str, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> None:
        self.url = url
        self.authority = authority
        self.key = nodes["1/16"].key.public_key()
        self.store = PostgresStore(url, authority.trust.network)

    def change(self, job: Callable[[PostgresChanges], T]) -> T:
        async def main() -> T:
            return await self.store.change(job)

        return asyncio.run(main())

    def read(self, query: Callable[[PostgresQueries], T]) -> T:
        async def main() -> T:
            return await self.store.read(query)

        return asyncio.run(main())

    def make(self, slot: Slot) -> x509.Certificate:
        subject = cert.subject_for(x509.Name([]), slot.number, slot.prefix)
        return self.authority.issue(subject, self.key, slot.serial, NOW)

    def issue(self) -> Issued:
        return self.change(lambda changes: changes.issue(ROOT, 16, None, self.make))


@pytest.fixture
def world(cluster: Cluster, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> Iterator[World]:
    made = World(cluster.database(), authority, nodes)
    yield made
    made.store.close()


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """One that may be stopped, and that keeps what it has acknowledged."""
    made = Cluster()
    yield made
    made.remove()


def test_what_was_acknowledged_outlives_a_crash_of_the_database(
    own_cluster: Cluster, authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> None:
    world = World(own_cluster.database(), authority, nodes)
    issued = world.issue()
    own_cluster.stop()
    for ask in (world.issue, lambda: world.read(lambda queries: queries.crl())):
        with pytest.raises(RepositoryError, match=r"^database postgresql://"):
            ask()
    own_cluster.start()
    assert _soon(lambda: world.read(lambda queries: queries.issued(issued.prefix))) == issued
    again = _soon(world.issue)
    assert again.serial > issued.serial
    assert again.prefix != issued.prefix
    world.store.close()


def _soon(ask: Callable[[], T]) -> T:
    """It is refused for a moment after the last failure."""
    for _ in range(100):
        try:
            return ask()
        except RepositoryError:
            threading.Event().wait(PAUSE / 5)
    return ask()


def test_what_may_have_been_committed_is_read_again(world: World) -> None:
    """The connection ends with the commit, so nobody knows."""
    with psycopg.connect(world.url, autocommit=True) as db:
        db.execute(
            "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
        )
        db.execute(
            "CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON config DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW WHEN (new.name = 'version') EXECUTE FUNCTION end_it()"
        )

    async def main() -> None:
        told: asyncio.Queue[object] = asyncio.Queue()
        world.store.watch(told.put_nowait)
        async with asyncio.timeout(20):
            assert await told.get() == frozenset(Outdated), "what was told while nobody listened"
            with pytest.raises(RepositoryError):
                await world.store.change(lambda changes: changes.set_config("version", b"\1"))
            assert await told.get() == {Outdated.PARAMETERS}

    asyncio.run(main())


def test_others_are_heard_with_more_descriptors_than_select_takes(world: World) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * HIGH:
        pytest.skip("the limit of open files is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * HIGH, hard))
    held: list[int] = []
    try:
        while not held or held[-1] < HIGH:
            held.append(os.open(os.devnull, os.O_RDONLY))
        told: queue.Queue[object] = queue.Queue()
        watch = RegistryWatch(Connections(world.url), "other", told.put)
        told.get(timeout=10)
        world.change(lambda changes: changes.set_config("version", b"\1"))
        assert told.get(timeout=10) == {Outdated.PARAMETERS}
        world.change(lambda changes: changes.set_config("version", b"\2"))
        assert told.get(timeout=10) == {Outdated.PARAMETERS}
        watch.close()
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_that_somebody_ended_are_made_again(world: World, cluster: Cluster) -> None:
    world.issue()
    assert world.read(lambda queries: queries.count()) == 1
    cluster.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 're6st-registry'")
    assert world.read(lambda queries: queries.count()) == 1, "a query is asked again"
    assert world.issue().serial == 2, "nothing had begun"


def test_a_change_whose_connection_ends_in_the_midst_of_it_was_not_made(world: World, cluster: Cluster) -> None:
    def interrupted(changes: Changes) -> None:
        changes.issue(ROOT, 16, None, world.make)
        cluster.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 're6st-registry'"
            " AND state LIKE 'idle in transaction%'"
        )
        changes.count()

    with pytest.raises(RepositoryError):
        world.change(interrupted)
    assert world.read(lambda queries: queries.count()) == 0
    assert world.issue().serial == 1


def test_an_error_of_the_database_undoes_one_change_alone(world: World) -> None:
    async def together() -> list[object]:
        def breaks(changes: PostgresChanges) -> None:
            changes.issue(ROOT, 16, None, world.make)
            changes.one("SELECT 1 / 0")

        def issue(changes: PostgresChanges) -> Issued:
            return changes.issue(ROOT, 16, None, world.make)

        calls = [world.store.change(job) for job in (issue, breaks, issue)]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, broken, last = asyncio.run(together())
    assert isinstance(broken, RepositoryError)
    assert "division by zero" in str(broken)
    assert isinstance(first, Issued)
    assert isinstance(last, Issued)
    assert (first.serial, last.serial) == (1, 2)


def test_a_change_waits_for_another_program_that_has_the_lock(world: World) -> None:
    with psycopg.connect(world.url) as other:
        other.execute(LOCK.encode())
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        assert world.issue().serial == 1
        timer.join()


def test_a_query_sees_one_moment(world: World, cluster: Cluster) -> None:
    world.change(lambda changes: changes.set_config("x", 1))

    def query(queries: PostgresQueries) -> tuple[object, object]:
        before = queries.config("x")
        cluster.execute("UPDATE config SET value = '2' WHERE name = 'x'", world.url)
        return before, queries.config("x")

    assert world.read(query) == (1, 1)
    assert world.read(lambda queries: queries.config("x")) == 2


def test_what_an_operator_set_less_strictly_is_set_right(cluster: Cluster) -> None:
    url = cluster.database()
    cluster.execute(f"ALTER DATABASE {url.partition('@/')[2].partition('?')[0]} SET synchronous_commit = off")
    with Connections(url).open() as db:
        assert db.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert db.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("10s",)


def test_no_statement_of_a_request_scans_a_table(world: World) -> None:
    """What a request asks stays O(log n): with many rows PostgreSQL finds each by an index."""
    for _ in range(3):
        world.issue()
    seen: list[tuple[str, int]] = []

    def traced(changes: PostgresChanges) -> None:
        changes.one("SELECT set_config('enable_seqscan', 'off', true)")
        tables = ("certificate", "superseded", "revoked", "token", "free_leaf", "free_number")
        before = {table: _scans(changes, table) for table in tables}
        changes.issue(ROOT, 16, "a@b", world.make)
        old = changes.issued(ROOT.child(0).child(0))
        assert old is None
        changes.token("x", 1.0)
        changes.prefix_by_email("a@b")
        changes.revoke(2, 0.0)
        changes.longest_prefix()
        seen.extend((table, _scans(changes, table) - before[table]) for table in tables)

    world.change(traced)
    assert [(table, number) for table, number in seen if number] == []


def _scans(changes: PostgresChanges, table: str) -> int:
    """How often this transaction has read a table from its beginning to its end."""
    statement = "SELECT coalesce(sum(pg_stat_get_xact_numscans(%s::regclass)), 0)"
    return int(changes.one(statement, table)[0])
