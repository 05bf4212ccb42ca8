"""The state of a registry is moved to another store, and back, with nothing lost."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import ROOT
from re6st.core.registry.clock import Marks
from re6st.core.registry.presence import Stay
from re6st.core.routing.babel_keys import KeyState
from re6st.registryd.moving import Row, StateTable, move
from re6st.registryd.postgresql.connections import Connections
from re6st.registryd.postgresql.store import PostgresStore
from re6st.registryd.postgresql.transfer import server_end
from re6st.registryd.postgresql.watch import RegistryWatch
from re6st.registryd.records import Issued, LastCall, Slot, StoredEvent
from re6st.registryd.repository import Changes, Repository, RepositoryError
from re6st.registryd.sqlite.check import check
from re6st.registryd.sqlite.store import Store
from re6st.registryd.sqlite.transfer import FileEnd, file_end
from tests.postgresql_cluster import Cluster

NOW = datetime(2027, 6, 1, tzinfo=UTC)
MOMENT = NOW.timestamp()


class World:
    """A registry's state in a file, with something of everything."""

    def __init__(self, path: Path, authority: cert.Authority, key: rsa.RSAPublicKey) -> None:
        self.path = path
        self.authority = authority
        self.key = key
        self.network = authority.trust.network

    def make(self, slot: Slot) -> x509.Certificate:
        subject = cert.subject_for(x509.Name([]), slot.number, slot.prefix)
        return self.authority.issue(subject, self.key, slot.serial, NOW)

    def fill(self, changes: Changes) -> None:
        issued = [changes.issue(ROOT, 16, email, self.make) for email in ("b@é", "a@b", "a@b", None, "c@d", "c@d")]
        changes.renew(issued[1], lambda serial: self.make(Slot(issued[1].prefix, 1, serial)))
        changes.revoke(issued[2].serial, MOMENT, "lost")
        changes.evict(issued[3].prefix, MOMENT, "stolen")
        changes.evict(issued[4].prefix, MOMENT, keep=True)
        changes.revoke_unknown(900, MOMENT + 86400)
        changes.add_token("plain", "t@b", 16, MOMENT)
        changes.add_token("several", "", 8, MOMENT, MOMENT + 50, uses=7, tags=("web", "db"))
        changes.set_tags(issued[0].prefix, ("core",))
        changes.set_name(issued[0].prefix, "web1")
        changes.mark_seen([LastCall(issued[0].prefix, 100, 10, "1.0, Linux", "a b")])
        changes.mark_seen([LastCall(issued[1].prefix, 90, 7, "", "")])
        changes.mark_stays([Stay(issued[0].prefix, True, 50), Stay(issued[1].prefix, False, 60)])
        changes.replace_events("mail", [StoredEvent(1, 5, "mail", None, "sent", 3)])
        changes.set_marks(Marks(5, 7))
        changes.set_babel_state(KeyState((b"\0\xff", b"b", None), 12.5, None))
        changes.set_config("version", b"\x20")

    def issue(self, store: Repository) -> Issued:
        async def main() -> Issued:
            return await store.change(lambda changes: changes.issue(ROOT, 16, None, self.make))

        try:
            return asyncio.run(main())
        finally:
            store.close()

    def rows(self, path: Path) -> list[Row]:
        with file_end(path, self.network) as end:
            return list(end.rows())


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    made = World(tmp_path / "registry.db", authority, nodes["1/16"].key.public_key())

    async def main() -> None:
        store = Store(made.path, made.network)
        await store.change(made.fill)
        store.close()

    asyncio.run(main())
    return made


def to_server(world: World, url: str) -> None:
    with file_end(world.path, world.network) as old, server_end(url, world.network) as new:
        move(old, new)


def test_all_comes_back_as_it_was(world: World, cluster: Cluster, tmp_path: Path) -> None:
    url, back = cluster.database(), tmp_path / "back.db"
    to_server(world, url)
    with server_end(url, world.network) as old, file_end(back, world.network) as new:
        counts = move(old, new)
    assert set(counts) == set(StateTable), "the test has something of everything"
    assert world.rows(back) == world.rows(world.path)
    assert check(back, world.authority.trust).problems == check(world.path, world.authority.trust).problems


def test_no_table_of_either_store_is_forgotten(world: World, cluster: Cluster) -> None:
    """Who adds a table has to add it to both transfer.py, and here."""
    url = cluster.database()
    to_server(world, url)
    with closing(sqlite3.connect(world.path)) as db:
        file = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    server = {name for (name,) in cluster.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", url)}
    both = {"clock", "event", "name", "revoked", "seen", "stay", "superseded", "tags", "token"}
    assert file == {"cert", "config", "crl", "token"} | {
        f"re6st_{name}" for name in both | {"extensions", "issued", "reusable"}
    }
    # Free numbers are worked out again, sessions end, and what made the tables is known.
    left = {"free_number", "session", "migration"}
    assert server == both | {"certificate", "config", "free_leaf", "reserved"} | left


def test_the_next_certificate_is_the_same_in_each_store(world: World, cluster: Cluster, tmp_path: Path) -> None:
    url, back = cluster.database(), tmp_path / "back.db"
    to_server(world, url)
    with server_end(url, world.network) as old, file_end(back, world.network) as new:
        move(old, new)
    stores = (Store(world.path, world.network), PostgresStore(url, world.network), Store(back, world.network))
    found = [world.issue(store) for store in stores]
    slots = {(each.prefix, each.serial, cert.number_of_cert(cert.load_pem(each.pem))) for each in found}
    assert slots == {(Prefix(3, 16), 8, 3)}


def test_a_token_can_be_used_after_the_move(world: World, cluster: Cluster) -> None:
    url = cluster.database()
    to_server(world, url)

    async def main() -> None:
        store = PostgresStore(url, world.network)
        found = await store.read(lambda queries: queries.token("several", MOMENT))
        assert found is not None
        assert found.prefix_length == 8
        assert await store.change(lambda changes: changes.delete_token("plain"))
        store.close()

    asyncio.run(main())


class Torn(FileEnd):
    """Its machine stops in the midst of it, or it writes something else."""

    def fill(self, rows: Iterable[Row]) -> None:
        super().fill(row for row in rows if row[0] is not StateTable.REVOKED)


def test_what_is_written_wrongly_is_found_and_undone(world: World, tmp_path: Path) -> None:
    back = tmp_path / "back.db"
    with (
        pytest.raises(RepositoryError, match="nothing was changed"),
        file_end(world.path, world.network) as old,
        file_end(back, world.network) as new,
    ):
        move(old, Torn(new._db))
    with file_end(back, world.network) as new:
        assert new.is_empty()


def test_a_move_that_was_interrupted_is_begun_again(world: World, cluster: Cluster) -> None:
    url = cluster.database()

    def stopping(rows: Iterator[Row]) -> Iterator[Row]:
        for number, row in enumerate(rows):
            if number == 20:
                raise KeyboardInterrupt
            yield row

    with (
        pytest.raises(KeyboardInterrupt),
        file_end(world.path, world.network) as old,
        server_end(url, world.network) as new,
    ):
        new.fill(stopping(old.rows()))
    to_server(world, url)
    with pytest.raises(RepositoryError, match="give an empty one"):
        to_server(world, url)


def test_a_registry_that_runs_in_postgresql_is_refused(world: World, cluster: Cluster, tmp_path: Path) -> None:
    url, back = cluster.database(), tmp_path / "back.db"
    to_server(world, url)
    watch = RegistryWatch(Connections(url), "another", lambda news: None)
    for _ in range(500):
        if not watch.leads:
            threading.Event().wait(0.02)
    assert watch.leads
    with (
        pytest.raises(RepositoryError, match="in use by a registry"),
        server_end(url, world.network) as old,
        file_end(back, world.network) as new,
    ):
        move(old, new)
    watch.close()


def test_a_registry_that_runs_and_certificates_that_nobody_can_read_are_refused(world: World, cluster: Cluster) -> None:
    url = cluster.database()
    store = Store(world.path, world.network)
    with pytest.raises(RepositoryError, match="in use by another registry"):
        to_server(world, url)
    store.close()
    with closing(sqlite3.connect(world.path, isolation_level=None)) as db:
        db.execute("INSERT INTO cert VALUES ('broken', NULL, 'no certificate')")
    with pytest.raises(RepositoryError, match="re6st-registry check"):
        to_server(world, url)
