"""Writes what is stored besides certificates: the configuration, the times of the clock, calls of nodes, events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from re6st.core.prefix import Prefix
from re6st.core.registry.clock import Marks
from re6st.core.registry.presence import Stay
from re6st.core.routing.babel_keys import KeyState
from re6st.registryd.records import LastCall, StoredEvent
from re6st.registryd.repository import Conflict, NotFound
from re6st.registryd.sqlite.sql_queries import SqlQueries
from re6st.registryd.stored_configuration import SWITCH_TIME


class Notes(SqlQueries):
    """Writes everything except certificates and tokens."""

    def set_config(self, name: str, value: str | int | float | bytes | None) -> None:
        """Store a value, or delete it with None."""
        if value is None:
            self._db.execute("DELETE FROM config WHERE name = ?", (name,))
        else:
            self._db.execute("INSERT OR REPLACE INTO config VALUES (?, ?)", (name, value))

    def set_babel_state(self, state: KeyState) -> None:
        for number, key in enumerate(state.keys):
            self.set_config(f"babel_hmac{number}", key)
        self.set_config("valid_until", state.valid_until)
        self.set_config(SWITCH_TIME, state.switch_time)

    def set_marks(self, marks: Marks) -> None:
        self._db.execute("INSERT OR REPLACE INTO re6st_clock VALUES (0, ?, ?)", (int(marks.trusted), int(marks.seen)))

    def set_name(self, prefix: Prefix, name: str | None) -> None:
        """Give a node a name, or none. Raises Conflict, NotFound."""
        if self.pem(prefix) is None:
            raise NotFound(f"no certificate for {prefix}")
        self._db.execute("DELETE FROM re6st_name WHERE prefix = ?", (prefix.bits,))
        if name is None:
            return
        if (other := self.named(name)) is not None:
            raise Conflict(f"{other} has the name {name} already")
        self._db.execute("INSERT INTO re6st_name VALUES (?, ?)", (prefix.bits, name))

    def mark_seen(self, calls: Sequence[LastCall]) -> None:
        """Store calls of nodes; those of nodes without a certificate are ignored."""
        known = " WHERE EXISTS (SELECT 1 FROM re6st_issued WHERE prefix = ?1)"
        self._db.executemany(
            "INSERT OR REPLACE INTO re6st_seen SELECT ?1, ?2, ?3, ?4" + known,
            ((call.prefix.bits, call.date, call.protocol, call.software) for call in calls),
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO re6st_extensions SELECT ?1, ?2, ?3" + known,
            ((call.prefix.bits, call.date, call.extensions) for call in calls if call.extensions),
        )

    def mark_stays(self, stays: Sequence[Stay]) -> None:
        """Store since when nodes are online or offline; those without a certificate are ignored."""
        self._db.executemany(
            "INSERT OR REPLACE INTO re6st_stay SELECT ?1, ?2, ?3"
            " WHERE EXISTS (SELECT 1 FROM re6st_issued WHERE prefix = ?1)",
            ((stay.prefix.bits, stay.online, stay.since) for stay in stays),
        )

    def set_tags(self, prefix: Prefix, tags: Sequence[str]) -> None:
        """Store the tags of a node, in place of those that it had. Raises NotFound."""
        if self.pem(prefix) is None and tags:
            raise NotFound(f"no certificate for {prefix}")
        self._db.execute("DELETE FROM re6st_tags WHERE prefix = ?", (prefix.bits,))
        if tags:
            self._db.execute("INSERT INTO re6st_tags VALUES (?, ?)", (prefix.bits, " ".join(tags)))

    def replace_events(self, kind: str, events: Sequence[StoredEvent]) -> None:
        """Keep these events of a kind, and no others."""
        self._db.execute("DELETE FROM re6st_event WHERE kind = ?", (kind,))
        self._db.executemany("INSERT OR REPLACE INTO re6st_event VALUES (?, ?, ?, ?, ?, ?)", map(astuple, events))
