"""What other registries on the same database do: they tell what they have changed, and one of them leads.

Who leads has an advisory lock, as long as its connection lasts: a process that is killed loses it at once, and one
whose machine is gone when the server has noticed (connections.py). So two may believe for some seconds that they lead;
what the leader does has to bear that.
"""

from __future__ import annotations

import contextlib
import logging
import select
import threading
from collections.abc import Callable, Iterable

import psycopg

from re6st.registryd.postgresql.connections import Connections, in_one_line
from re6st.registryd.postgresql.queries import Connection
from re6st.registryd.repository import Outdated

logger = logging.getLogger("store")

INTERVAL = 0.5
"""Seconds between two looks whether there is a leader, and whether the connection lasts."""
_CHANNEL = "'re6st_' || 'certificate'::regclass::oid"
"""The name of the channel of the tables that the connection sees."""
_LEAD = "SELECT pg_try_advisory_lock('certificate'::regclass::oid::integer, 1)"
NOBODY_LEADS = "SELECT pg_try_advisory_xact_lock('certificate'::regclass::oid::integer, 1)"
"""Whether no registry leads; if so, none does before this transaction ends."""


def tell(db: Connection, name: str, news: Iterable[Outdated]) -> None:
    """Tell others with the commit of this transaction. `name` is ours. Raises psycopg.Error."""
    for each in sorted(news):
        db.execute(f"SELECT pg_notify({_CHANNEL}, %s)".encode(), (f"{name} {each.value}",))


class RegistryWatch:
    """Watches in a thread. `told` is called there, with what others have changed, or may have changed."""

    def __init__(self, connections: Connections, name: str, told: Callable[[frozenset[Outdated]], None]) -> None:
        self.leads = False
        self._connections = connections
        self._name = name
        self._told = told
        self._heard: set[Outdated] = set()
        self._listens = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except Exception as error:  # whatever happens, the thread goes on
                if self._listens and not self._stop.is_set():
                    logger.warning("database %s: %s: connecting again", self._connections.name, in_one_line(error))
            finally:
                self.leads = self._listens = False
            self._stop.wait(INTERVAL)

    def _watch(self) -> None:
        """Until the connection ends, or we do. Raises psycopg.Error."""
        with contextlib.closing(self._connections.open()) as db:
            row = db.execute(f"SELECT {_CHANNEL}".encode()).fetchone()
            db.add_notify_handler(self._hear)
            db.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(str(row and row[0]))))
            self._listens = True
            ready = select.poll()  # unlike select(), it takes any descriptor
            ready.register(db.fileno(), select.POLLIN)
            self._told(frozenset(Outdated))  # what was told while nobody listened
            while not self._stop.is_set():
                if not self.leads:
                    self.leads = db.execute(_LEAD).fetchone() == (True,)
                    if self.leads:
                        logger.info("this registry leads: it cleans up the database %s", self._connections.name)
                else:
                    db.execute("SELECT 1")  # whether the connection lasts; and it brings what was told
                if self._heard:
                    heard, self._heard = frozenset(self._heard), set()
                    self._told(heard)
                ready.poll(INTERVAL * 1000)

    def _hear(self, notification: psycopg.Notify) -> None:
        name, _, what = notification.payload.partition(" ")
        if name != self._name and what in {each.value for each in Outdated}:
            self._heard.add(Outdated(what))
