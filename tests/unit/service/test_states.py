"""Where states are kept, and the move of a registry out of the directory that it shared with the node."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from re6st.cli import states as program
from re6st.cli.registry import config
from re6st.service import states
from re6st.service.states import NODE, REGISTRY, Owner, Places, StateError, move_registry
from tests.unit.killed import Killed, Killer

ME = Owner(os.geteuid(), os.getegid())


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path)
    for directory in (made.state(NODE), made.log(NODE), made.log(REGISTRY), made.options.parent, made.lock.parent):
        directory.mkdir(parents=True)
    return made


@pytest.fixture
def database(places: Places, tmp_path: Path) -> Path:
    """As of a registry that was killed: the last change is only in what SQLite keeps beside the file."""
    path = places.state(NODE) / "registry.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("CREATE TABLE t (n)")
    db.execute("INSERT INTO t VALUES (1)")
    copies = tmp_path / "copies"
    shutil.copytree(places.state(NODE), copies)
    db.close()
    shutil.rmtree(places.state(NODE))
    shutil.copytree(copies, places.state(NODE))
    assert path.with_name("registry.db-wal").stat().st_size
    return path


def rows(places: Places, name: str = "registry.db") -> int:
    """What the registry would find."""
    db = sqlite3.connect(places.state(REGISTRY) / name)
    try:
        return int(db.execute("SELECT count(*) FROM t").fetchone()[0])
    finally:
        db.close()


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir()) if directory.exists() else []


def test_a_registry_gets_a_directory_of_its_own_with_all_that_it_had(places: Places, database: Path) -> None:
    for name, text in (("cache.db", "the node's"), ("registry.db.before", "a copy"), ("babeld.state", "")):
        (places.state(NODE) / name).write_text(text)
    (places.log(NODE) / "registry.log.1.gz").write_text("old")
    (places.log(NODE) / "babeld.log").write_text("the node's")
    os.mknod(database.with_name("registry.db.sock"), stat.S_IFSOCK | 0o600)
    told = move_registry(places, ME)
    assert told == [f"the registry's database is now {places.state(REGISTRY)}/registry.db"]
    assert names(places.state(NODE)) == ["babeld.state", "cache.db"]
    assert places.state(REGISTRY).stat().st_mode & 0o777 == 0o700
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in places.state(REGISTRY).iterdir())
    assert (places.state(REGISTRY) / "registry.db.before").read_text() == "a copy"
    assert rows(places) == 1
    assert (names(places.log(NODE)), names(places.log(REGISTRY))) == (["babeld.log"], ["registry.log.1.gz"])
    assert move_registry(places, ME) == [], "once"
    assert rows(places) == 1


def test_killed_at_any_step_the_next_run_loses_nothing(
    places: Places, database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin = tmp_path / "begin"
    shutil.copytree(places.state(NODE), begin)
    killer = Killer(
        monkeypatch,
        (
            (os, "replace"),
            (os, "fsync"),
            (os, "open"),
            (Path, "unlink"),
            (shutil, "copyfileobj"),
        ),
        lambda: move_registry(places, ME),
    )
    killer.play()
    whole = killer.count
    assert whole > 10
    for step in range(1, whole + 1):
        for behind in (False, True):
            shutil.rmtree(places.state(REGISTRY))
            shutil.rmtree(places.state(NODE))
            shutil.copytree(begin, places.state(NODE))
            with pytest.raises(Killed):
                killer.play(step, behind=behind)
            move_registry(places, ME)
            assert rows(places) == 1, f"killed at step {step}"
            assert names(places.state(NODE)) == []
            assert not list(places.state(REGISTRY).glob("*.moving"))


def test_the_database_that_the_options_name_is_moved_and_found(places: Places, database: Path) -> None:
    named = database.with_name("example.db")
    for part in ("", "-wal", "-shm"):
        os.rename(f"{database}{part}", f"{named}{part}")
    places.options.write_text(f"ca ca.crt  # the CA\ndb {named}\nverbose 'unfinished\n")
    assert states.database(str(named), places) == named, "before"
    move_registry(places, ME)
    assert rows(places, "example.db") == 1
    assert states.database(str(named), places) == places.state(REGISTRY) / "example.db"
    elsewhere = places.root / "srv/registry.db"
    assert states.database(str(elsewhere), places) == elsewhere


def test_without_the_package_a_registry_goes_on_with_the_database_that_it_has(places: Places, database: Path) -> None:
    new = places.state(REGISTRY) / "registry.db"
    assert states.database(str(new), places) == database
    move_registry(places, ME)
    assert states.database(str(new), places) == states.database(str(database), places) == new
    options = config.make_parser().parse(["--ca", "a", "--key", "b", "--dh", "c"])
    assert (options.db, options.logfile) == (config.DATABASE, config.LOG_FILE)


def test_two_databases_are_for_a_person_to_choose_from(places: Places, database: Path) -> None:
    places.state(REGISTRY).mkdir()
    used = places.state(REGISTRY) / "registry.db"
    used.write_text("in use")
    (told,) = move_registry(places, ME)
    assert told == f"{used} is used. {database} is not: remove it, or put it there instead"
    assert used.read_text() == "in use"
    assert names(places.state(REGISTRY)) == ["registry.db"], "nothing is put beside it, as SQLite would read it"


def test_a_database_that_is_in_use_stays_until_the_restart(places: Places, database: Path) -> None:
    with states._unused(database), pytest.raises(StateError, match="in use by a registry"):
        move_registry(places, ME)
    assert names(places.state(REGISTRY)) == []
    move_registry(places, ME)
    assert rows(places) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
@pytest.mark.parametrize("name", ["registry.db", "registry.db-wal", "registry.db-journal"])
def test_what_somebody_else_has_put_there_is_not_given_to_the_registry(
    places: Places, database: Path, name: str
) -> None:
    """Who was in the group of before could write the directory, so that SQLite would have read what he wrote."""
    planted = places.state(NODE) / name
    planted.unlink(missing_ok=True)
    planted.write_text("planted")
    os.chown(planted, 64002, 64003)
    with pytest.raises(StateError, match=f"{name} belongs to the user 64002"):
        move_registry(places, ME)
    assert not (places.state(REGISTRY) / "registry.db").exists()
    assert planted.stat().st_uid == 64002


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
def test_a_log_that_the_node_has_put_there_does_not_keep_the_registry_from_starting(
    places: Places, database: Path, tmp_path: Path
) -> None:
    """The directory is the node's now: who has taken over the node is not to stop the registry as well."""
    if os.geteuid():
        pytest.skip("changes owners")
    secret = tmp_path / "shadow"
    secret.write_text("root's")
    for name in ("registry.log", "registry.log.1"):
        (places.log(NODE) / name).write_text("the registry's, from before")
    os.chown(places.log(NODE) / "registry.log.1", 64002, 64002)
    os.link(secret, places.log(NODE) / "registry.log.2")
    told = move_registry(places, ME)
    assert told == [f"the registry's database is now {places.state(REGISTRY)}/registry.db"]
    assert names(places.log(REGISTRY)) == ["registry.log"]
    assert secret.stat().st_nlink == 2, "it stays where it is"


def test_root_gives_to_a_service_only_what_root_has_made(places: Places, tmp_path: Path) -> None:
    state, service = places.state(NODE), Owner(64001, 64001)
    secret = tmp_path / "shadow"
    secret.write_text("secret")
    (state / "cache.db").write_text("made by root")
    (state / "link").symlink_to(secret)
    os.link(secret, state / "second-name")
    (state / "foreign").write_text("")
    os.chown(state / "foreign", 64002, 64002)
    os.mkfifo(state / "pipe")
    states.adopt(state, service, 0o600)
    assert ((state / "cache.db").stat().st_uid, (state / "cache.db").stat().st_mode & 0o777) == (64001, 0o600)
    assert (secret.stat().st_uid, (state / "foreign").stat().st_uid, (state / "pipe").stat().st_uid) == (0, 64002, 0)


def test_what_goes_wrong_is_said_in_one_line_and_keeps_the_registry_from_an_empty_database(
    places: Places, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(states, "owner", lambda name: ME)
    with states._unused(database):
        assert program.main([], places) == 1
    assert capsys.readouterr().err.count("\n") == 1

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(database))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        assert program.main([], places) == 1
    assert capsys.readouterr().err == f"prepare-states: {database}: No space left on device\n"
    assert program.main([], places) == 0
    assert rows(places) == 1

    def missing(name: str) -> Owner:
        raise KeyError(f"no user {name}")

    monkeypatch.setattr(states, "owner", missing)
    assert program.main([], places) == 1
    assert "systemd-sysusers" in capsys.readouterr().err
