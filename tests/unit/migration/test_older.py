"""What the older software finds when it takes our place, and we when we come back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from re6st.cli import states as program
from re6st.cli.node import options as node_options
from re6st.cli.options import OptionParser
from re6st.cli.registry import config
from re6st.core import older_options
from re6st.migration import older
from re6st.registryd.sqlite.schema import OUR_SCHEMA, SCHEMA, create_statement
from re6st.service import states
from re6st.service.states import NODE, REGISTRY, Owner, Places, StateError
from tests.unit.damaged_database import spoil_a_name
from tests.unit.killed import Killed, Killer

ME = Owner(os.geteuid(), os.getegid())
OLDER = {
    "re6stnet": "version ip registry log run state verbose interface main-interface multicast up daemon test console"
    " country default table gateway ovpnlog pp dh ca cert key client-count max-clients remote-gateway disable-proto"
    " client neighbour",
    "re6st-registry": "version port db dh ca key mailhost smtp-user smtp-pwd smtp-starttls prefix-length"
    " anonymous-prefix-length ipv4 logfile run verbose min-protocol authorized-origin community grace-period hello"
    " encrypt client-count max-clients tunnel-refresh same-country",
}
"""wire.md 11.2 and 11.3."""
CONF = """\
# Our network
ca ca.crt
  web 127.0.0.1:8326
grace-period 1000
hello 4
metrics=127.0.0.1:9100
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path / "root")
    for directory in (*map(made.state, (NODE, REGISTRY)), *map(made.log, (NODE, REGISTRY)), made.lock.parent):
        directory.mkdir(parents=True)
    made.options.parent.mkdir(parents=True)
    made.options.write_text(CONF)
    return made


@pytest.fixture
def database(places: Places, tmp_path: Path) -> Path:
    """As a registry of ours left it that was killed: what it acknowledged last is only in SQLite's journal."""
    path = places.state(REGISTRY) / "registry.db"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with closing(sqlite3.connect(scratch / "registry.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        for table in SCHEMA:
            db.execute(create_statement(table))
        for statement in OUR_SCHEMA:
            db.execute(statement)
        db.execute("INSERT INTO token VALUES ('short', 'a', 16, 50000), ('usual', 'a', 16, 50000)")
        db.execute("INSERT INTO re6st_token VALUES ('short', 50300)")
        db.execute("INSERT INTO cert VALUES ('0', 'a', 'PEM'), ('10', NULL, NULL), ('11', NULL, 'reserved')")
        db.execute("INSERT INTO crl VALUES (3, 90000)")
        db.execute("INSERT INTO re6st_revoked VALUES (3, '1', 'b', 1, 'lost')")
        db.execute("INSERT INTO config VALUES ('serial', 3)")
        shutil.copytree(scratch, path.parent, dirs_exist_ok=True)
    assert path.with_name("registry.db-wal").stat().st_size
    return path


def hand_over(places: Places) -> list[str]:
    return older.hand_over(places, ME, ME, ME)


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def rows(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


def test_the_database_goes_where_the_older_registry_looks_whole_and_in_one_file(places: Places, database: Path) -> None:
    told = hand_over(places)
    there = places.state(NODE) / "registry.db"
    content = "1 certificates, the last serial is 3, 1 revoked, 2 tokens"
    assert told[0] == f"the registry's database is now {there}: {content}"
    assert (names(places.state(NODE)), names(places.state(REGISTRY))) == (["registry.db"], [])
    assert rows(there, "PRAGMA journal_mode") == [("delete",)]
    assert there.stat().st_mode & 0o777 == 0o600
    tables = dict(rows(there, "SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    assert all(tables[table] == create_statement(table) for table in SCHEMA)
    # What the older one has no place for is still there when we come back.
    states.move_registry(places, ME)
    assert rows(database, "SELECT * FROM re6st_revoked") == [(3, "1", "b", 1, "lost")]


def test_the_directory_that_a_purge_of_the_older_package_took_is_made_again(places: Places, database: Path) -> None:
    places.state(NODE).rmdir()
    hand_over(places)
    assert names(places.state(NODE)) == ["registry.db"]


@pytest.mark.parametrize("line", ["database postgresql://db/re6st", "database-file=/etc/re6stnet/database"])
def test_a_registry_in_postgresql_is_not_handed_over_with_a_file_of_before(
    places: Places, database: Path, line: str
) -> None:
    places.options.write_text(f"{CONF}{line}\n")
    with pytest.raises(StateError, match="re6st-registry migrate"):
        hand_over(places)
    assert database.exists()
    assert places.options.read_text() == f"{CONF}{line}\n"


def test_a_token_ends_under_the_older_registry_when_it_was_said_to(places: Places, database: Path) -> None:
    """Which lets tokens live for the grace period after their date."""
    hand_over(places)
    there = places.state(NODE) / "registry.db"
    assert rows(there, "SELECT token, date + 1000 FROM token ORDER BY 1") == [("short", 50300), ("usual", 51000)]


def test_what_the_older_one_does_not_know_of_options_is_a_comment_until_we_are_back(places: Places) -> None:
    places.options.chmod(0o640)
    told = hand_over(places)
    assert [line.partition(" is not known")[0] for line in told] == [
        f"{places.options}:{n}" for n in ("3: web", "6: metrics")
    ]
    lines = places.options.read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["ca ca.crt", "grace-period 1000", "hello 4"]
    assert hand_over(places) == [], "once"
    assert places.options.stat().st_mode & 0o777 == 0o640
    older.take_back(places)
    assert places.options.read_text() == CONF


def parser_options(parser: OptionParser) -> set[str]:
    return {name[2:] for name in parser._option_string_actions if name.startswith("--")} - {"help"}


def test_every_option_is_known_as_ours_or_as_the_older_ones() -> None:
    for name, parser, ours in (
        ("re6stnet", node_options.parser(), older_options.NODE),
        ("re6st-registry", config.make_parser(), older_options.REGISTRY),
    ):
        assert parser_options(parser) - set(OLDER[name].split()) == ours


def test_killed_at_any_step_the_next_run_loses_nothing_in_either_direction(
    places: Places, database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin = tmp_path / "begin"
    shutil.copytree(places.root, begin)
    killer = Killer(
        monkeypatch,
        (
            (os, "replace"),
            (os, "rename"),
            (os, "fsync"),
            (os, "open"),
            (os, "fchmod"),
            (Path, "unlink"),
            (shutil, "copyfileobj"),
            (sqlite3, "connect"),
        ),
        lambda: hand_over(places),
    )
    killer.play()
    whole = killer.count
    assert whole > 15
    for step in range(1, whole + 1):
        for behind in (False, True):
            for there in (True, False):
                shutil.rmtree(places.root)
                shutil.copytree(begin, places.root)
                with pytest.raises(Killed):
                    killer.play(step, behind=behind)
                if there:
                    hand_over(places)
                else:  # the machine was started again, with our package on it
                    states.move_registry(places, ME)
                    older.take_back(places)
                    assert places.options.read_text() == CONF
                full, empty = places.state(NODE if there else REGISTRY), places.state(REGISTRY if there else NODE)
                assert rows(full / "registry.db", "SELECT count(*) FROM cert, token") == [(6,)], f"step {step}"
                assert [name for name in names(empty) if not name.endswith(".moving")] == []


def test_a_database_that_is_there_already_is_set_aside_and_its_journal_is_not_ours(
    places: Places, database: Path
) -> None:
    """The directory was the node's, which might have put one there for root to read."""
    there = places.state(NODE) / "registry.db"
    for end in ("", "-wal", "-journal"):
        there.with_name(f"registry.db{end}").write_text("another")
    told = hand_over(places)
    assert told[0] == f"{there}, which was not used, is now {there}.unused"
    assert names(places.state(NODE)) == ["registry.db", "registry.db.unused"]
    assert rows(there, "SELECT count(*) FROM cert") == [(3,)]


def test_a_database_with_a_damaged_name_is_named_in_a_line(
    places: Places, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(states, "owner", lambda name: ME)
    spoil_a_name(database)
    assert program.main(["older"], places) == 1
    assert "it is damaged: a name in it is not in UTF-8" in capsys.readouterr().err


def test_a_damaged_or_foreign_database_is_not_handed_over(
    places: Places, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(states, "owner", lambda name: ME)
    for content in (b"", b"no database at all" * 100):
        for path in database.parent.iterdir():
            path.unlink()
        database.write_bytes(content)
        assert program.main(["older"], places) == 1
        assert capsys.readouterr().err.count("\n") == 1
        assert database.read_bytes() == content
    with states._unused(database), pytest.raises(StateError, match="in use by a registry"):
        hand_over(places)


def test_a_machine_without_registry_and_without_our_users_hands_over_nothing(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Owner:
        raise KeyError(name)

    monkeypatch.setattr(states, "owner", missing)
    places.options.unlink()
    assert program.main(["older"], places) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
def test_root_gets_what_was_the_services_and_nothing_else(places: Places, tmp_path: Path) -> None:
    etc, node, registry = places.options.parent, Owner(64001, 64001), Owner(64002, 64002)
    secret = tmp_path / "shadow"
    secret.write_text("somebody's")
    os.chown(secret, 64001, 64001)
    for name, owner in (("cert.key", node), ("ca.key", registry), ("notes", Owner(64003, 64003))):
        (etc / name).write_text("x")
        (etc / name).chmod(0o600)
        os.chown(etc / name, owner.user, owner.group)
    (etc / "link").symlink_to(secret)
    os.link(secret, etc / "second-name")
    etc.chmod(0o1775)
    os.chown(places.state(NODE), 64001, 64001)
    older.hand_over(places, node, registry, states.ROOT)
    found = {path.name: path.lstat().st_uid for path in etc.iterdir()}
    assert (found["cert.key"], found["ca.key"], found["notes"]) == (0, 0, 64003)
    assert secret.stat().st_uid == 64001
    assert (etc / "cert.key").stat().st_mode & 0o777 == 0o600
    assert (etc.stat().st_mode & 0o7777, places.state(NODE).stat().st_uid) == (0o755, 0)


def test_a_change_of_key_that_was_begun_is_named(places: Places) -> None:
    (places.options.parent / "cert.key.next").write_text("x")
    assert "cert.key.next is of a change of key that was begun" in hand_over(places)[-1]


def test_a_directory_that_somebody_has_put_elsewhere_does_not_keep_the_package(places: Places, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    places.state(NODE).rmdir()
    places.state(NODE).symlink_to(tmp_path / "disk")
    assert len(hand_over(places)) == 2, "options only"
