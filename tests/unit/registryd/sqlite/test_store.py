"""The registry's database: its form, what it promises when something fails, and that nothing grows with its size."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import ROOT, AllocationError
from re6st.registryd.records import Issued, Slot, Token
from re6st.registryd.repository import Conflict, NotFound, RepositoryError
from re6st.registryd.sqlite.ledger import Ledger
from re6st.registryd.sqlite.sql_queries import SqlQueries
from re6st.registryd.sqlite.store import PATIENCE, Patience, Store

T = TypeVar("T")

NOW = datetime(2027, 6, 1, tzinfo=UTC)
GRACE = 100 * 86400


class World:
    """A store, and certificates to put into it."""

    def __init__(self, path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> None:
        self.path = path
        self.authority = authority
        self.key = nodes["1/16"].key.public_key()
        self.store = self.open()

    def open(self, patience: Patience = PATIENCE) -> Store:
        return Store(self.path, self.authority.trust.network, patience)

    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    def make(self, days: int = 365) -> Callable[[Slot], x509.Certificate]:
        def certificate(slot: Slot) -> x509.Certificate:
            subject = cert.subject_for(x509.Name([]), slot.number, slot.prefix)
            return self.authority.issue(subject, self.key, slot.serial, NOW, NOW + timedelta(days=days))

        return certificate

    def call(self, job: Callable[[Ledger], T]) -> T:
        return asyncio.run(_await(self.store.change(job)))

    def issue(self, length: int = 16, email: str | None = None, days: int = 365) -> Issued:
        return self.call(lambda ledger: ledger.issue(ROOT, length, email, self.make(days)))

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """What another program does to the database."""
        other = sqlite3.connect(self.path, isolation_level=None)
        try:
            return other.execute(statement).fetchall()
        finally:
            other.close()

    def number(self, prefix: Prefix) -> int | None:
        pem = self.store.rows.pem(prefix)
        assert pem is not None
        return cert.number_of_cert(cert.load_pem(pem))


async def _await(result: Awaitable[T]) -> T:
    return await result


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> Iterator[World]:
    made = World(tmp_path / "registry.db", authority, nodes)
    yield made
    made.store.close()


def test_the_tables_are_those_of_the_deployed_registry(world: World) -> None:
    texts = dict(world.sql("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 're6st%'"))
    assert texts == {
        "config": "CREATE TABLE config (\n  name TEXT PRIMARY KEY NOT NULL,\n  value)",
        "token": "CREATE TABLE token (\n  token TEXT PRIMARY KEY NOT NULL,\n  email TEXT NOT NULL,\n"
        "  prefix_len INTEGER NOT NULL,\n  date INTEGER NOT NULL)",
        "cert": "CREATE TABLE cert (\n  prefix TEXT PRIMARY KEY NOT NULL,\n  email TEXT,\n  cert TEXT)",
        "crl": "CREATE TABLE crl (\n  serial INTEGER PRIMARY KEY NOT NULL,\n  date INTEGER NOT NULL)",
    }
    assert world.sql("SELECT * FROM cert") == [("", None, None)]
    assert world.path.stat().st_mode & 0o777 == 0o600


def test_certificates_get_prefix_number_and_serial_in_turn(world: World) -> None:
    issued = [world.issue() for _ in range(3)]
    assert [each.prefix.cn for each in issued] == ["0/16", "1/16", "2/16"]
    assert [each.serial for each in issued] == [1, 2, 3]
    assert [world.number(each.prefix) for each in issued] == [0, 1, 2]
    assert world.store.rows.registry_prefix() == Prefix(0, 16)
    assert world.store.rows.prefix_by_serial(2) == Prefix(1, 16)


def test_what_was_answered_is_there_after_a_crash(world: World) -> None:
    issued = world.issue()
    # Not closed: another connection sees what a crash would leave.
    assert world.sql("SELECT prefix FROM cert WHERE cert IS NOT NULL") == [(issued.prefix.bits,)]


def test_a_freed_number_and_prefix_are_given_again(world: World) -> None:
    for _ in range(4):
        world.issue()
    world.call(lambda ledger: ledger.evict(Prefix(2, 16), NOW.timestamp()))
    assert world.store.rows.crl() == [3]
    again = world.issue()
    assert (again.prefix.cn, again.serial, world.number(again.prefix)) == ("2/16", 5, 2)
    assert world.number(world.issue().prefix) == 4


def test_all_is_the_same_after_a_restart(world: World) -> None:
    for _ in range(4):
        world.issue()
    world.call(lambda ledger: ledger.evict(Prefix(1, 16), NOW.timestamp()))
    world.reopen()
    assert [world.issue().prefix.cn for _ in range(2)] == ["1/16", "4/16"]
    assert [world.number(Prefix(n, 16)) for n in (1, 4)] == [1, 4]


def test_the_first_prefix_is_never_given_again(world: World) -> None:
    world.issue()
    world.call(lambda ledger: ledger.evict(Prefix(0, 16), NOW.timestamp()))
    assert world.issue().prefix.cn == "1/16"
    world.reopen()
    assert world.issue().prefix.cn == "2/16"
    assert world.store.rows.pem(Prefix(0, 16)) is None


def test_the_first_prefix_stays_ours_though_another_program_freed_it(world: World) -> None:
    world.issue()
    world.store.close()
    world.sql("DELETE FROM cert")
    world.sql("INSERT INTO cert VALUES ('', NULL, NULL)")
    world.store = world.open()
    assert world.issue().prefix.cn == "1/16"


def test_a_failing_job_undoes_itself_alone(world: World) -> None:
    def fails(ledger: Ledger) -> None:
        ledger.issue(ROOT, 16, None, world.make())
        raise NotFound("after the change")

    async def together() -> list[object]:
        def issue(ledger: Ledger) -> Issued:
            return ledger.issue(ROOT, 16, None, world.make())

        calls = [world.store.change(job) for job in (issue, fails, issue, fails, issue)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(together())
    assert [each.prefix.cn if isinstance(each, Issued) else type(each) for each in results] == [
        "0/16",
        NotFound,
        "1/16",
        NotFound,
        "2/16",
    ]
    assert [world.number(Prefix(n, 16)) for n in range(3)] == [0, 1, 2]
    assert world.sql("SELECT value FROM config WHERE name = 'serial'") == [(3,)]


def test_no_space_is_an_error_that_changes_nothing(world: World) -> None:
    before = world.sql("SELECT * FROM cert")
    with pytest.raises(AllocationError):
        world.issue(length=81)
    assert world.sql("SELECT * FROM cert") == before


def test_a_locked_database_is_an_error_then_work_goes_on(world: World) -> None:
    world.store.close()
    world.store = world.open(Patience(busy=0.01))
    world.issue()
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RepositoryError, match="locked"):
        world.issue()
    assert world.store.rows.pem(Prefix(0, 16)) is not None, "reading is still possible"
    other.execute("ROLLBACK")
    other.close()
    assert world.issue().prefix.cn == "1/16"


def test_a_full_disk_is_an_error_then_work_goes_on(world: World) -> None:
    world.issue()
    world.call(lambda ledger: ledger._db.execute("PRAGMA max_page_count = 1").fetchall())
    with pytest.raises(RepositoryError, match="full"):
        list(map(world.issue, [16] * 100))
    count = len(world.sql("SELECT * FROM cert WHERE cert IS NOT NULL"))
    world.call(lambda ledger: ledger._db.execute("PRAGMA max_page_count = 1000000").fetchall())
    assert world.issue().prefix == Prefix(count, 16)
    assert world.number(Prefix(count, 16)) == count


def test_a_read_only_disk_is_an_error_then_work_goes_on(world: World) -> None:
    world.issue()
    world.call(lambda ledger: ledger._db.execute("PRAGMA query_only = ON").fetchall())
    with pytest.raises(RepositoryError, match=r"readonly database. Make it, its directory and the disk writable"):
        world.issue()
    assert world.store.rows.pem(Prefix(0, 16)) is not None
    # As when the disk can be written to again: nothing of ours reads it.
    world.store._ledger._db.execute("PRAGMA query_only = OFF")
    assert [world.issue().prefix.cn for _ in range(2)] == ["1/16", "2/16"]
    assert world.number(Prefix(1, 16)) == 1


def test_too_many_waiting_jobs_are_refused(world: World) -> None:
    world.store.close()
    world.store = world.open(Patience(jobs=2))

    async def crowd() -> list[object]:
        calls = [world.store.change(lambda ledger: ledger.config("serial")) for _ in range(50)]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    results: list[object] = asyncio.run(crowd())
    assert any(isinstance(each, RepositoryError) for each in results)
    assert any(each is None for each in results)


def test_a_second_registry_cannot_open_it(world: World) -> None:
    with pytest.raises(RepositoryError, match="in use by another registry"):
        world.open()
    world.issue()


def test_what_another_program_wrote_is_seen(world: World) -> None:
    for _ in range(2):
        world.issue()
    # The deployed registry frees 1/16 and gives 2/16 to somebody, without knowing of our tables.
    pem = world.authority.issue(
        cert.subject_for(x509.Name([]), 0, Prefix(2, 16)), world.key, 77, NOW, NOW + timedelta(days=1)
    )
    world.sql("UPDATE cert SET cert = NULL, email = NULL WHERE prefix = '0000000000000001'")
    world.sql("DELETE FROM cert WHERE prefix = '00000000000000' || '1'")
    world.sql("INSERT INTO cert VALUES ('0000000000000011', NULL, NULL)")
    world.sql(f"INSERT INTO cert VALUES ('0000000000000010', 'a@b', CAST('{cert.to_pem(pem).decode()}' AS BLOB))")
    new = world.issue()
    assert new.prefix.cn in ("1/16", "3/16")
    assert world.number(new.prefix) == 1
    assert world.store.rows.prefix_by_serial(77) == Prefix(2, 16)
    assert world.store.rows.prefix_by_email("a@b") == Prefix(2, 16)
    assert world.store.rows.prefix_by_serial(2) is None


def test_a_database_of_the_deployed_registry_opens(
    tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE cert (\n  prefix TEXT PRIMARY KEY NOT NULL,\n  email TEXT,\n  cert TEXT)")
    rows = [(node.prefix.bits, None, cert.to_pem(node.cert)) for node in nodes.values()]
    rest = [("0" * (15 - n) + "1", None, None) for n in range(1, 16)]
    old.executemany("INSERT INTO cert VALUES (?, ?, ?)", [*rows, *rest])
    old.execute("INSERT INTO cert VALUES ('broken', NULL, 'no certificate')")
    old.commit()
    old.close()
    world = World(path, authority, nodes)
    assert world.issue().prefix.cn == "2/16"
    world.store.close()


def test_certificates_are_stored_as_those_before(world: World) -> None:
    """As text or as blobs: releases of the deployed registry read only one of them, so that it can take over again."""
    world.issue()
    assert world.sql("SELECT typeof(cert) FROM cert WHERE cert IS NOT NULL") == [("text",)]
    world.sql("UPDATE cert SET cert = CAST(cert AS BLOB) WHERE cert IS NOT NULL")
    for _ in range(2):
        world.issue()
    world.reopen()
    world.issue()
    assert world.sql("SELECT typeof(cert) FROM cert WHERE cert IS NOT NULL") == [("blob",)] * 4


def test_files_that_are_no_database_of_ours_are_refused(tmp_path: Path, authority: cert.Authority) -> None:
    path = tmp_path / "x.db"
    path.write_text("this is no database, only text, and it is long enough to look at" * 20)
    with pytest.raises(RepositoryError, match="not a database"):
        Store(path, authority.trust.network)
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE cert (a, b)")
    other.close()
    with pytest.raises(RepositoryError, match="table cert"):
        Store(path, authority.trust.network)
    with pytest.raises(RepositoryError, match=r"Is a directory|Not a directory"):
        Store(tmp_path, authority.trust.network)


def test_clean_up_frees_what_ended_long_ago(world: World) -> None:
    world.issue(days=3650)
    world.issue(days=1)
    world.call(lambda ledger: ledger.add_token("abcdefgh", "a@b", 16, NOW.timestamp()))
    later = NOW.timestamp() + 86400 + GRACE
    assert world.store.rows.first_deadline(GRACE) == NOW.timestamp() + GRACE
    world.call(lambda ledger: ledger.clean_up(later - 1, GRACE))
    assert world.store.rows.token("abcdefgh") is None
    assert world.store.rows.pem(Prefix(1, 16)) is not None
    assert world.store.rows.first_deadline(GRACE) == later
    world.call(lambda ledger: ledger.clean_up(later, GRACE))
    assert world.store.rows.pem(Prefix(1, 16)) is None
    assert world.issue().prefix.cn == "1/16"


def test_clean_up_never_drops_the_registry_node(world: World) -> None:
    world.issue()
    world.issue()
    world.call(lambda ledger: ledger.clean_up(NOW.timestamp() + 10 * 365 * 86400, GRACE))
    assert world.store.rows.pem(Prefix(0, 16)) is not None
    assert world.store.rows.pem(Prefix(1, 16)) is None
    assert world.store.rows.first_deadline(GRACE) is None


def test_clean_up_goes_on_where_it_stopped(world: World) -> None:
    for _ in range(5):
        world.issue()
    left = []
    for _ in range(3):
        world.call(lambda ledger: ledger.clean_up(NOW.timestamp() + 10 * 365 * 86400, GRACE, most=2))
        left.append(world.sql("SELECT count(*) FROM cert WHERE cert IS NOT NULL")[0][0])
    assert left == [3, 1, 1]
    leaves = {bits for (bits,) in world.sql("SELECT prefix FROM cert")}
    assert leaves == {"0" * 16, *("0" * n + "1" for n in range(16))}, "merged"


def test_revocations_end_with_their_certificates(world: World) -> None:
    world.issue(days=3650)
    issued = world.issue(days=1)
    world.call(lambda ledger: ledger.revoke(issued.serial, NOW.timestamp()))
    with pytest.raises(Conflict):
        world.call(lambda ledger: ledger.revoke(issued.serial, NOW.timestamp()))
    assert world.store.rows.crl() == [2]
    assert not world.call(lambda ledger: ledger.clean_up(NOW.timestamp(), GRACE))
    assert world.call(lambda ledger: ledger.clean_up(NOW.timestamp() + 86401, GRACE))
    assert world.store.rows.crl() == []


def test_eviction_revokes_the_renewed_certificate_too(world: World) -> None:
    world.issue()
    old = world.issue()

    def renew(ledger: Ledger) -> Issued:
        return ledger.renew(old, lambda serial: world.make()(Slot(old.prefix, 1, serial)))

    new = world.call(renew)
    assert new.serial == 3
    assert world.store.rows.issued(old.prefix) == new
    world.call(lambda ledger: ledger.evict(old.prefix, NOW.timestamp()))
    assert world.store.rows.crl() == [2, 3]
    with pytest.raises(NotFound):
        world.call(lambda ledger: ledger.evict(old.prefix, NOW.timestamp()))


def test_tokens_are_unique(world: World) -> None:
    world.call(lambda ledger: ledger.add_token("t", "a@b", 16, 1.0))
    with pytest.raises(Conflict):
        world.call(lambda ledger: ledger.add_token("t", "c@d", 16, 1.0))
    assert world.store.rows.token("t") == Token("a@b", 16)
    world.call(lambda ledger: ledger.delete_token("t"))
    assert world.store.rows.token("t") is None


def test_no_statement_of_a_request_scans_a_table(world: World) -> None:
    """What a request asks stays O(log n): SQLite searches by an index everywhere."""
    statements: list[str] = []
    world.issue()

    def traced(ledger: Ledger) -> None:
        ledger._db.set_trace_callback(statements.append)
        ledger.issue(ROOT, 16, "a@b", world.make())
        old = ledger.issued(Prefix(1, 16))
        assert old is not None
        new = ledger.renew(old, lambda serial: world.make()(Slot(old.prefix, 1, serial)))
        ledger.prefix_by_serial(new.serial)
        ledger.prefix_by_email("a@b")
        ledger.revoke(new.serial, 0.0)
        ledger.evict(Prefix(1, 16), 0.0)
        ledger._db.set_trace_callback(None)

    world.call(traced)
    assert len(statements) > 20
    for statement in statements:
        if statement.startswith(("--", "SAVEPOINT", "RELEASE")):
            continue
        for row in world.sql(f"EXPLAIN QUERY PLAN {statement}"):
            assert not str(row[3]).startswith("SCAN re6st") or "USING" in str(row[3]), (statement, row)
            assert not str(row[3]).startswith(("SCAN cert", "SCAN crl", "SCAN token", "SCAN config")), (statement, row)


def test_a_query_sees_one_moment(world: World) -> None:
    """Of a network's parameters, the key of one state and the date of the next would be worse than either."""
    world.call(lambda ledger: ledger.set_config("x", 1))

    def query(rows: SqlQueries) -> tuple[object, object]:
        before = rows.config("x")
        world.sql("UPDATE config SET value = 2 WHERE name = 'x'")
        return before, rows.config("x")

    assert asyncio.run(world.store.read(query)) == (1, 1)
    assert world.store.rows.config("x") == 2
    world.sql("UPDATE config SET value = 1 WHERE name = 'x'")
    assert asyncio.run(world.store.browse(query)) == (1, 1)


def test_a_query_that_fails_is_no_end_of_the_others(world: World) -> None:
    def fails(rows: SqlQueries) -> None:
        rows.config("x")
        raise NotFound("nobody")

    for _ in range(2):
        with pytest.raises(NotFound):
            asyncio.run(world.store.read(fails))
        with pytest.raises(NotFound):
            asyncio.run(world.store.browse(fails))
    world.call(lambda ledger: ledger.set_config("x", 1))
    assert asyncio.run(world.store.read(lambda rows: rows.config("x"))) == 1


def test_an_error_of_the_database_has_its_name_and_no_type_of_it(world: World) -> None:
    world.sql("DROP TABLE crl")
    for ask in (world.store.read, world.store.browse):
        with pytest.raises(RepositoryError, match=f"^database {world.path}: no such table: crl"):
            asyncio.run(ask(lambda rows: rows.crl()))
