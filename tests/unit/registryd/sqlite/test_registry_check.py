"""The check of a registry's database finds what is wrong with it, and a copy is whole."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import ROOT
from re6st.registryd.records import Issued, Slot
from re6st.registryd.repository import RepositoryError
from re6st.registryd.sqlite.check import FINDINGS_LIMIT, BackupError, backup, check, partition_problems
from re6st.registryd.sqlite.ledger import Ledger
from re6st.registryd.sqlite.store import Store
from tests.unit.damaged_database import spoil_a_name

NOW = datetime(2027, 6, 1, tzinfo=UTC)


@pytest.fixture
def trust(authority: cert.Authority) -> cert.Trust:
    return authority.trust


@pytest.fixture
def issue(authority: cert.Authority, nodes: dict[str, cert.Identity]) -> Callable[[Ledger], Issued]:
    key = nodes["0/16"].key.public_key()

    def make(slot: Slot) -> x509.Certificate:
        return authority.issue(cert.subject_for(x509.Name([]), slot.number, slot.prefix), key, slot.serial, NOW)

    return lambda ledger: ledger.issue(ROOT, 16, None, make)


@pytest.fixture
def database(tmp_path: Path, trust: cert.Trust, issue: Callable[[Ledger], Issued]) -> Path:
    """With the nodes 0/16 to 4/16, of which 2/16 is evicted and 3/16 revoked."""
    path = tmp_path / "registry.db"

    async def fill() -> None:
        store = Store(path, trust.network)
        for _ in range(5):
            await store.change(issue)
        await store.change(lambda ledger: ledger.evict(Prefix(2, 16), NOW.timestamp(), "stolen"))
        await store.change(lambda ledger: ledger.revoke(issued(ledger, 3).serial, NOW.timestamp()))
        await store.change(lambda ledger: ledger.add_token("abcdefgh", "a@b", 16, NOW.timestamp(), NOW.timestamp() + 9))
        store.close()

    asyncio.run(fill())
    return path


def issued(ledger: Ledger, value: int) -> Issued:
    found = ledger.issued(Prefix(value, 16))
    assert found is not None
    return found


def sql(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            db.execute(statement)
    finally:
        db.close()


def files(directory: Path) -> list[str]:
    """But for what SQLite puts beside a database that somebody reads."""
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("registry.db-"))


def bits(value: int) -> str:
    return Prefix(value, 16).bits


def test_a_good_database(database: Path, trust: cert.Trust) -> None:
    report = check(database, trust)
    assert report.findings == []
    assert (report.used, report.reserved, report.tokens, report.revoked) == (4, 0, 1, 2)
    assert report.free == 16


def test_one_that_only_the_deployed_registry_has_written(database: Path, trust: cert.Trust) -> None:
    triggers = ("cert_insert", "cert_update", "cert_delete", "seen_delete", "seen_free", "token_delete")
    sql(database, *(f"DROP TRIGGER re6st_{name}" for name in (*triggers, "revoked_delete")))
    sql(database, *(f"DROP TABLE re6st_{name}" for name in ("issued", "superseded", "seen", "token", "revoked")))
    assert check(database, trust).findings == []


@pytest.mark.parametrize(
    ("statements", "table", "key", "problem"),
    [
        ((f"DELETE FROM cert WHERE prefix = '{bits(2)}'",), "cert", bits(3), "no row has the space before it"),
        ((f"INSERT INTO cert VALUES ('{bits(1)}0', NULL, NULL)",), "cert", bits(1) + "0", "overlaps with"),
        (("DELETE FROM cert WHERE prefix = '1'",), "cert", "01", "no row has the space after it"),
        (("INSERT INTO cert VALUES ('', NULL, NULL)",), "cert", bits(0), "overlaps with the whole network"),
        (("INSERT INTO cert VALUES ('abc', NULL, NULL)",), "cert", "abc", "not a string of bits"),
        ((f"UPDATE cert SET cert = 'x' WHERE prefix = '{bits(1)}'",), "cert", bits(1), "certificate"),
        (
            (f"UPDATE cert SET cert = (SELECT cert FROM cert WHERE prefix = '{bits(1)}') WHERE prefix = '{bits(4)}'",),
            *("cert", bits(4), "its certificate has the CN 1/16, not 4/16"),
        ),
        (("UPDATE config SET value = 3 WHERE name = 'serial'",), "config", "serial", "with the serial 5"),
        (("DELETE FROM config WHERE name = 'prefix'",), "config", "prefix", "is missing"),
        ((f"UPDATE config SET value = '{bits(2)}' WHERE name = 'prefix'",), "config", "prefix", "free for anybody"),
        (("INSERT INTO config VALUES ('version', x'0102')",), "config", "version", "not signed"),
        (("INSERT OR REPLACE INTO config VALUES ('babel_hmac0', x'01')",), "config", "babel_hmac0", "not a key"),
        ((f"UPDATE re6st_issued SET serial = 77 WHERE prefix = '{bits(1)}'",), "re6st_issued", bits(1), "otherwise"),
        (("INSERT INTO re6st_issued VALUES ('1', 9, 9, 9)",), "re6st_issued", "1", "no such certificate"),
        (("INSERT INTO re6st_seen VALUES ('1', 9, 9, '')",), "re6st_seen", "1", "belongs to nothing"),
        (("INSERT INTO re6st_token VALUES ('secretly', 9)",), "re6st_token", "a token", "belongs to nothing"),
        (("INSERT INTO re6st_revoked VALUES (99, '1', '', 9, '')",), "re6st_revoked", "99", "belongs to nothing"),
        (("DROP TABLE crl",), "crl", "", "is missing"),
    ],
)
def test_what_is_wrong_is_found(
    database: Path, trust: cert.Trust, statements: tuple[str, ...], table: str, key: str, problem: str
) -> None:
    sql(database, *statements)
    findings = check(database, trust).findings
    assert any((f.table, f.key) == (table, key) and problem in f.problem for f in findings), findings


def test_a_certificate_of_another_ca(database: Path, nodes: dict[str, cert.Identity]) -> None:
    other = cert.new_ca(nodes["0/16"].key, nodes["0/16"].trust.network, "other", "a@b", NOW)
    problems = {finding.problem for finding in check(database, cert.Trust(other)).findings}
    assert "its certificate was not signed by the CA" in problems


def test_a_damaged_file(database: Path, trust: cert.Trust) -> None:
    data = bytearray(database.read_bytes())
    data[4096:12288] = bytes(8192)
    database.write_bytes(data)
    try:
        assert check(database, trust).problems
    except RepositoryError:
        pass  # so damaged that SQLite refuses it: the user is told that


def test_a_damaged_name_that_is_not_in_utf_8_is_told_as_damage(database: Path, trust: cert.Trust) -> None:
    spoil_a_name(database)
    with pytest.raises(RepositoryError, match="damaged: a name in it is not in UTF-8"):
        check(database, trust)
    with pytest.raises(RepositoryError, match="damaged: a name in it is not in UTF-8"):
        Store(database, trust.network)


def test_findings_are_counted_and_not_all_told(database: Path, trust: cert.Trust) -> None:
    sql(database, *(f"INSERT INTO re6st_seen VALUES ('x{n}', 0, 0, '')" for n in range(FINDINGS_LIMIT + 5)))
    report = check(database, trust)
    assert (len(report.findings), report.problems) == (FINDINGS_LIMIT, FINDINGS_LIMIT + 5)


# --- the partition ---


@st.composite
def partitions(draw: st.DrawFn) -> list[Prefix]:
    """A complete partition of 8 bits, sorted."""
    leaves = [ROOT]
    for _ in range(draw(st.integers(0, 30))):
        leaf = leaves.pop(draw(st.integers(0, len(leaves) - 1)))
        leaves += [leaf.child(0), leaf.child(1)] if leaf.length < 8 else [leaf]
    return sorted(leaves)


@given(partitions(), st.data())
def test_a_partition_is_told_from_what_is_none(leaves: list[Prefix], data: st.DataObject) -> None:
    assert list(partition_problems(leaves, 8)) == []
    at = data.draw(st.integers(0, len(leaves) - 1))
    assert list(partition_problems(leaves[:at] + leaves[at + 1 :], 8))
    assert list(partition_problems(sorted([*leaves, leaves[at]]), 8))
    assert list(partition_problems(sorted([*leaves, Prefix(1, 9)]), 8))


# --- copies ---


def test_a_copy_is_whole(database: Path, tmp_path: Path, trust: cert.Trust) -> None:
    copy = tmp_path / "copy.db"
    assert backup(database, copy, trust) == check(copy, trust) == check(database, trust)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    store = Store(copy, trust.network)
    assert store.rows.issued(Prefix(1, 16)) is not None
    store.close()
    assert files(tmp_path) == ["copy.db", "registry.db"]


def test_a_copy_replaces_nothing(database: Path, tmp_path: Path, trust: cert.Trust) -> None:
    copy = tmp_path / "copy.db"
    copy.write_text("precious")
    with pytest.raises(BackupError, match="exists already"):
        backup(database, copy, trust)
    assert copy.read_text() == "precious"
    backup(database, copy, trust, force=True)
    assert check(copy, trust).findings == []
    with pytest.raises(BackupError, match="exists already"):
        backup(database, database, trust, force=True)
    assert check(database, trust).findings == []


def test_no_copy_of_what_does_not_verify(database: Path, tmp_path: Path, trust: cert.Trust) -> None:
    sql(database, f"DELETE FROM cert WHERE prefix = '{bits(2)}'")
    with pytest.raises(BackupError, match="does not verify"):
        backup(database, tmp_path / "copy.db", trust)
    with pytest.raises(BackupError, match="No such file"):
        backup(database, tmp_path / "nowhere" / "copy.db", trust)
    assert files(tmp_path) == ["registry.db"]


def test_copies_while_it_is_written(
    database: Path, tmp_path: Path, trust: cert.Trust, issue: Callable[[Ledger], Issued]
) -> None:
    stop = threading.Event()

    async def write() -> int:
        store = Store(database, trust.network)
        count = 0
        while not stop.is_set():
            await store.change(issue)
            count += 1
        store.close()
        return count

    written: list[int] = []
    writer = threading.Thread(target=lambda: written.append(asyncio.run(write())))
    writer.start()
    try:
        held = [backup(database, tmp_path / f"copy{n}.db", trust) for n in range(5)]
    finally:
        stop.set()
        writer.join()
    assert [report.problems for report in held] == [0] * 5
    assert check(database, trust).used == written[0] + 4
