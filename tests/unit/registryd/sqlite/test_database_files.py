"""A database that somebody else could have written to is not believed."""

from __future__ import annotations

import os
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from re6st.registryd.repository import RepositoryError
from re6st.registryd.sqlite.database_files import fault
from re6st.registryd.sqlite.store import Store

NETWORK = IPv6Network("2001:db8:42::/48")
SOMEBODY, OTHER = 64001, 64002
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir(mode=0o755)
    path = directory / "registry.db"
    Store(path, NETWORK).close()
    return path


def test_a_database_of_its_own_is_good(database: Path) -> None:
    assert fault(database) is None
    database.parent.chmod(0o700)
    Store(database, NETWORK).close()


@pytest.mark.parametrize("mode", [0o757, 0o1777])
def test_others_that_may_write_in_the_directory_could_replace_it(database: Path, mode: int) -> None:
    database.parent.chmod(mode)
    with pytest.raises(
        RepositoryError, match=f"cannot be trusted: .*others may write in.*chmod go-w {database.parent}"
    ):
        Store(database, NETWORK)


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_a_file_that_others_may_write_to_is_not_believed(database: Path, end: str) -> None:
    path = database.with_name(database.name + end)
    path.touch()
    path.chmod(0o666)
    with pytest.raises(RepositoryError, match=f"cannot be trusted: others may write to {path}. Run chmod 600"):
        Store(database, NETWORK)


def test_a_link_that_somebody_planted_is_not_followed(database: Path, tmp_path: Path) -> None:
    database.with_name("registry.db-wal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RepositoryError, match=r"registry\.db-wal is not a file"):
        Store(database, NETWORK)


@as_root
def test_a_write_ahead_log_of_somebody_else_is_not_replayed(database: Path) -> None:
    wal = database.with_name("registry.db-wal")
    wal.write_bytes(b"planted")
    os.chown(wal, OTHER, OTHER)
    with pytest.raises(RepositoryError, match=f"registry.db-wal belongs to the user {OTHER}"):
        Store(database, NETWORK)


@as_root
def test_root_works_on_the_database_of_the_services_user(database: Path) -> None:
    for each in (database.parent, *database.parent.iterdir()):
        os.chown(each, SOMEBODY, SOMEBODY)
    assert fault(database) is None
    os.chown(database.parent, SOMEBODY, OTHER)
    database.parent.chmod(0o770)
    assert "others may write in" in str(fault(database))
    os.chown(database.parent, SOMEBODY, SOMEBODY)
    assert fault(database) is None, "a group of that user alone"


@as_root
def test_a_directory_of_root_is_no_better_where_a_group_may_write(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(database.parent, 0, OTHER)
    database.parent.chmod(0o770)
    assert f"others may write in its directory {database.parent}" in str(fault(database))
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    monkeypatch.setattr(os, "getegid", lambda: SOMEBODY)
    moved = f"the group {OTHER} may replace it in its directory {database.parent}. Move it to a directory of its own"
    assert fault(database) == moved
    os.chown(database.parent, 0, SOMEBODY)
    assert fault(database) is None, "a group of the registry's user alone"
