"""What a node remembers: the file of wire.md 10.2, in good days and bad."""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from re6st.core.mesh.memory import PEER_LIMIT
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint, format_addresses
from re6st.core.wire.params import Parameters
from re6st.noded.peer_cache import WRITE_EVERY, Cache
from tests.unit.damaged_database import spoil_a_name

A, B = Prefix(1, 16), Prefix(2, 16)
ONE, TWO, THREE = (Endpoint(f"192.0.2.{n}", 1194, TunnelProtocol.TCP) for n in (1, 2, 3))
PARAMETERS = Parameters(
    registry_prefix=Prefix(0, 16),
    version=b"\x05signature",
    babel_default="rtt-max 500",
    crl=frozenset({3, 1 << 70}),
    protocol=10,
    encrypt=True,
    hello=4,
    ipv4=IPv4Network("10.42.0.0/16"),
    ipv4_sublen=8,
    same_country=("FR", "JP"),
    babel_hmac_sign=b"s" * 16,
    babel_hmac_accept=b"",
    valid_until=1.7e9,
)


def never(peer: Prefix) -> bool:
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def rows(path: Path, query: str) -> list[Any]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def test_it_is_remembered_by_the_next_run(path: Path) -> None:
    first = Cache(path)
    first.learn(A, (ONE, TWO), never)
    first.learn(B, (THREE,), never)
    first.set_own((TWO,))
    first.store_parameters(PARAMETERS)
    first.routes = 77
    first.close(keep=[A, B])
    second = Cache(path)
    assert second.addresses == {A: (ONE, TWO), B: (THREE,)}
    assert second.own == (TWO,)
    assert second.load_parameters() == PARAMETERS
    assert second.routes == 77
    second.close(keep=[B])
    third = Cache(path)
    assert third.addresses == {B: (THREE,)}
    assert third.own == (TWO,), "our own addresses are no peer's"
    third.close([])


def test_the_file_is_that_of_the_older_software(path: Path) -> None:
    cache = Cache(path)
    cache.learn(A, (ONE, TWO), never)
    cache.store_parameters(PARAMETERS)
    cache.close([A])
    assert rows(path, "SELECT * FROM peer") == [("0000000000000001", "192.0.2.1,1194,tcp;192.0.2.2,1194,tcp")]
    config = dict(rows(path, "SELECT * FROM config"))
    assert config["version"] == b"\x05signature"
    assert config["encrypt"] == 1
    assert json.loads(config["crl:json"]) == [3, 1 << 70]
    assert config["babel_hmac_sign"] == b"s" * 16
    assert config["babel_hmac_accept"] == b""
    assert config["ipv4"] == "10.42.0.0/16"


def test_a_file_of_the_older_software_is_read(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE peer (\n            prefix TEXT PRIMARY KEY NOT NULL,\n            address TEXT NOT NULL)")
    db.execute("CREATE TABLE config (name TEXT PRIMARY KEY NOT NULL, value)".replace("(name", "(\n name"))
    db.executemany(
        "INSERT INTO peer VALUES (?, ?)",
        [
            ("", "192.0.2.9,1194,udp,FR"),
            ("0000000000000001", "192.0.2.1,1194,tcp"),
            ("01x", "192.0.2.1,1194,tcp"),
            ("0" * 200, "192.0.2.1,1194,tcp"),
            ("01", "nonsense"),
        ],
    )
    db.executemany(
        "INSERT INTO config VALUES (?, ?)",
        [("version", b"\x05x"), ("registry_prefix", "0" * 16), ("crl", "[5]"), ("encrypt", 1), ("unknown", "x")],
    )
    db.commit()
    db.close()
    cache = Cache(path)
    assert cache.addresses == {A: (ONE,)}
    assert cache.own == (Endpoint("192.0.2.9", 1194, TunnelProtocol.UDP, "FR"),)
    parameters = cache.load_parameters()
    assert parameters is not None
    assert (parameters.crl, parameters.encrypt) == (frozenset({5}), True)
    cache.close([A])


def test_what_the_parameters_no_longer_have_is_gone(path: Path) -> None:
    cache = Cache(path)
    cache.routes = 5
    cache.store_parameters(PARAMETERS)
    plain = Parameters(registry_prefix=Prefix(0, 16), version=b"\x06x")
    cache.store_parameters(plain)
    assert cache.load_parameters() == plain
    assert cache.routes == 5
    cache.close([])


# --- addresses ---


def test_addresses_that_worked_stay_first(path: Path) -> None:
    cache = Cache(path)
    cache.learn(A, (ONE, TWO), never)
    cache.worked(A, TWO)
    assert cache.addresses[A] == (TWO, ONE)
    cache.learn(A, (THREE, ONE, TWO), never)
    assert cache.addresses[A] == (TWO, ONE, THREE)
    cache.learn(A, (THREE, ONE), never)
    assert cache.addresses[A] == (ONE, THREE), "an address that the peer no longer has is forgotten"
    cache.worked(A, TWO)
    cache.worked(B, ONE)
    assert cache.addresses == {A: (ONE, THREE)}
    cache.forget(A)
    cache.forget(A)
    assert cache.addresses == {}
    cache.close([])
    assert rows(path, "SELECT count(*) FROM peer") == [(0,)]


def test_the_memory_is_bounded_and_who_is_not_needed_makes_room(path: Path) -> None:
    cache = Cache(path)
    peers = [Prefix(n, 16) for n in range(PEER_LIMIT + 20)]
    for peer in peers[:PEER_LIMIT]:
        cache.learn(peer, (ONE,), never)
    spare = set(peers[100:110])
    for peer in peers[PEER_LIMIT : PEER_LIMIT + 10]:
        cache.learn(peer, (ONE,), lambda p: p in spare)
    assert len(cache.addresses) == PEER_LIMIT
    assert not spare & cache.addresses.keys()
    for peer in peers[PEER_LIMIT + 10 :]:
        cache.learn(peer, (ONE,), never)
    assert len(cache.addresses) == PEER_LIMIT
    cache.learn(peers[-1], (TWO,), never)
    assert len(cache.addresses) == PEER_LIMIT
    cache.close(list(cache.addresses))
    assert rows(path, "SELECT count(*) FROM peer") == [(PEER_LIMIT,)]


# --- how often it is written ---


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("re6st.noded.peer_cache.time.monotonic", made)
    return made


def test_a_peer_that_tells_other_addresses_all_the_time_costs_a_writing_now_and_then(path: Path, clock: Clock) -> None:
    cache = Cache(path)
    before = cache._db.total_changes
    for number in range(10_000):
        clock.now += 0.001
        cache.learn(A, (Endpoint(f"192.0.2.{number % 256}", 1194, TunnelProtocol.TCP),), never)
        cache.tick()
    assert cache._db.total_changes - before <= 3
    clock.now += WRITE_EVERY
    cache.tick()
    assert rows(path, "SELECT address FROM peer") == [(format_addresses(cache.addresses[A]),)]
    cache.close([A])


def test_whoever_holds_the_file_is_not_waited_for(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(path)
    holder = sqlite3.connect(path)
    holder.execute("BEGIN IMMEDIATE")
    start = time.perf_counter()
    cache.learn(A, (ONE,), never)
    cache.store_parameters(PARAMETERS)
    for _ in range(30):
        clock.now += 1
        cache.tick()
    cache.learn(B, (TWO,), never)
    cache.forget(B)
    cache.routes = 7
    assert time.perf_counter() - start < 1, "2 s for each, once"
    assert caplog.text.count("locked") == 1
    assert cache.load_parameters() == PARAMETERS
    holder.rollback()
    holder.close()
    clock.now += WRITE_EVERY
    cache.tick()
    assert rows(path, "SELECT address FROM peer") == [(str(ONE),)]
    cache.close([A])
    again = Cache(path)
    assert (again.load_parameters(), again.routes) == (PARAMETERS, 7)
    again.close([])


# --- damage ---


@pytest.mark.parametrize(
    "content",
    [b"no database at all, but long enough to be looked at" * 20, b"SQLite format 3\0" + bytes(2000)],
    ids=["text", "zeros"],
)
def test_a_damaged_file_is_set_aside(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(content)
    cache = Cache(path)
    assert cache.addresses == {}
    cache.learn(A, (ONE,), never)
    cache.close([A])
    assert path.with_suffix(".bak").read_bytes() == content
    assert "damaged" in caplog.text


def test_a_file_of_another_form_is_set_aside(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE peer (prefix TEXT, address TEXT, more TEXT)")
    db.close()
    cache = Cache(path)
    cache.learn(A, (ONE,), never)
    cache.close([A])
    assert rows(path.with_suffix(".bak"), "SELECT * FROM peer") == []


def test_a_file_that_somebody_holds_is_not_damaged_and_keeps_no_node_down(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Cache(path)
    first.learn(A, (ONE,), never)
    first.close([A])
    holder = sqlite3.connect(path)
    holder.execute("PRAGMA journal_mode = DELETE")
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        meanwhile = Cache(path, patience=0.01)
        assert meanwhile.addresses == {A: (ONE,)}
        meanwhile.learn(B, (TWO,), never)
        meanwhile.close([A, B])
    finally:
        holder.close()
    assert "locked: nothing new is remembered. Restart re6stnet once that is mended." in caplog.text
    assert not path.with_suffix(".bak").exists()
    again = Cache(path)
    assert again.addresses == {A: (ONE,)}
    again.close([])


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EDQUOT])
def test_a_disk_that_makes_no_file_keeps_no_node_down(
    path: Path, reason: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "open", fail)
    cache = Cache(path)
    cache.learn(A, (ONE,), never)
    assert cache.addresses == {A: (ONE,)}
    cache.close([])
    assert os.strerror(reason) in caplog.text


def test_a_damaged_file_that_cannot_be_moved_keeps_no_node_down(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a directory that may only be read."""
    path.write_bytes(b"no database" * 100)

    def fail(*_: object) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "replace", fail)
    cache = Cache(path)
    cache.learn(A, (ONE,), never)
    cache.store_parameters(PARAMETERS)
    assert cache.load_parameters() is not None
    cache.close([])
    assert "and stays" in caplog.text


def test_an_address_that_is_not_text_costs_that_peer_only(path: Path) -> None:
    """SQLite's check finds nothing wrong with a row of which a byte has changed."""
    made = Cache(path)
    made.learn(A, (ONE, TWO), never)
    made.learn(B, (THREE,), never)
    made.close([A, B])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE peer SET address = CAST(? AS TEXT) WHERE prefix = ?", (b"\x8092.0.2.1,1194,tcp", A.bits))
    db.close()
    cache = Cache(path)
    assert cache.addresses == {B: (THREE,)}
    cache.close([])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_cut_anywhere_or_overwritten_anywhere_starts_a_node(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A crash of the machine, a disk that forgets: whatever is left, a node starts with it, and remembers again."""
    path = tmp_path_factory.mktemp("state") / "cache.db"
    made = Cache(path)
    made.learn(A, (ONE, TWO), never)
    made.store_parameters(PARAMETERS)
    made.close([A])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=40))
        content[at : at + len(noise)] = noise
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    if data.draw(st.booleans()):
        path.with_name("cache.db-wal").write_bytes(data.draw(st.binary(max_size=200)))
    cache = Cache(path)
    cache.load_parameters()
    cache.learn(B, (THREE,), never)
    cache.store_parameters(PARAMETERS)
    assert cache.routes >= 0
    cache.close([A, B])
    again = Cache(path)
    assert again.addresses[B] == (THREE,)
    assert again.load_parameters() == PARAMETERS
    again.close([])


def test_a_damaged_file_whose_error_is_not_in_utf_8_starts_a_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite quotes the damaged name, and Python cannot read it."""
    path = tmp_path / "cache.db"
    made = Cache(path)
    made.learn(A, (ONE, TWO), never)
    made.close([A])
    spoil_a_name(path)
    cache = Cache(path)
    cache.learn(B, (THREE,), never)
    cache.close([A, B])
    assert "is damaged" in caplog.text


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "nowhere" / "cache.db", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(OSError, match=words) as raised:
            Cache(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE config SET value = '{' WHERE name = 'crl:json'",
        f"UPDATE config SET value = '{'[' * 100_000}' WHERE name = 'crl:json'",
        "UPDATE config SET value = 5 WHERE name = 'crl:json'",
        "UPDATE config SET value = x'ff' WHERE name = 'babel_default'",
        "UPDATE config SET value = 'x' WHERE name = 'version'",
        "UPDATE config SET value = -1 WHERE name = 'hello'",
        "UPDATE config SET name = x'80' WHERE name = 'hello'",
        "UPDATE config SET value = cast(x'ff80' AS TEXT) WHERE name = 'babel_default'",
        "DELETE FROM config WHERE name = 'registry_prefix'",
        "DELETE FROM config WHERE name = 'version'",
        "DROP TABLE config",
    ],
    ids=range(11),
)
def test_damaged_parameters_are_no_parameters(path: Path, change: str) -> None:
    cache = Cache(path)
    cache.store_parameters(PARAMETERS)
    cache._db.execute(change)
    cache._db.commit()
    assert cache.load_parameters() is None
    cache.close([])


def test_a_disk_that_fails_costs_the_memory_not_the_node(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(path)
    cache.learn(A, (ONE,), never)
    cache._db.execute("PRAGMA query_only = 1")
    caplog.set_level(logging.WARNING)
    cache.learn(B, (TWO,), never)
    cache.worked(A, ONE)
    cache.forget(A)
    cache.set_own((ONE,))
    cache.store_parameters(PARAMETERS)
    cache.routes = 3
    assert cache.routes == 3
    assert cache.load_parameters() == PARAMETERS
    assert cache.addresses == {B: (TWO,)}, "what is in use goes on"
    cache.close([B])
    assert "readonly" in caplog.text
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        cache._db.execute("SELECT 1")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_what_may_only_be_read_is_remembered_and_no_more(
    path: Path, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(path)
    cache.learn(A, (ONE,), never)
    cache.close([A])
    before = path.read_bytes()

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    cache = Cache(path)
    assert cache.addresses == {A: (ONE,)}
    cache.learn(B, (TWO,), never)
    cache.store_parameters(PARAMETERS)
    assert cache.load_parameters() == PARAMETERS, "in this run"
    cache.close([B])
    assert path.read_bytes() == before
    assert len(caplog.records) == 1
    assert "nothing new is remembered. Choose another directory with --state." in caplog.text


def test_only_its_owner_reads_it(path: Path) -> None:
    """It holds the keys of babel."""
    before = os.umask(0o022)
    try:
        cache = Cache(path)
        cache.store_parameters(PARAMETERS)
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name
        cache.close([])
    finally:
        os.umask(before)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(content=bytes(100), start=b"SQLite format 3\0\x10\0\x09\x09\0@  ")
@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"SQLite format 3\0\x10\0\x02\x02\0@  "]))
def test_any_file_is_read_or_set_aside(path: Path, content: bytes, start: bytes) -> None:
    path.write_bytes(start + content)
    cache = Cache(path)
    cache.load_parameters()
    cache.close([])
    for file in path.parent.iterdir():
        file.unlink()
