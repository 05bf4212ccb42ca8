"""What a registry remembers of what happened."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from ipaddress import IPv6Network
from pathlib import Path

from re6st.core.prefix import Prefix
from re6st.registryd.events import KEPT, TEXT_LIMIT, EventKind, Events, StoredEvents, stored_events
from re6st.registryd.sqlite.store import Store

A, B = Prefix(0, 16), Prefix(1, 16)


def make() -> tuple[Events, list[float]]:
    now = [100.0]
    return Events(lambda: now[0]), now


def test_newest_first_and_by_kind_or_node() -> None:
    events, now = make()
    events.note(EventKind.ENROLLED, "certificate 1", A)
    now[0] = 101
    events.note(EventKind.MAIL, "sent")
    events.note(EventKind.REVOKED, "stolen", A)
    assert [event.kind for event in events.newest(9)] == [EventKind.REVOKED, EventKind.MAIL, EventKind.ENROLLED]
    assert [event.time for event in events.newest(1, EventKind.ENROLLED)] == [100]
    assert [event.text for event in events.newest(9, cn="0/16")] == ["stolen", "certificate 1"]
    assert events.newest(9, cn=B.cn) == []


def test_equal_ones_in_a_row_are_counted() -> None:
    events, now = make()
    for now[0] in (1.0, 2.0, 3.0):
        events.note(EventKind.REFUSED, "wrong")
    (event,) = events.newest(9)
    assert (event.count, event.time) == (3, 3.0)


def test_a_flood_of_refusals_pushes_nothing_else_out() -> None:
    events, _ = make()
    events.note(EventKind.REVOKED, "stolen", A)
    for number in range(3 * KEPT):
        events.note(EventKind.REFUSED, f"wrong {number}")
    assert len(events.newest(10 * KEPT)) == KEPT + 1


def test_a_flood_of_refusals_pushes_out_nothing_that_is_not_written_yet() -> None:
    events, _ = make()
    events.note(EventKind.REVOKED, "stolen", A)
    for number in range(3 * KEPT):
        events.note(EventKind.REFUSED, f"wrong {number}")
    ours = events.take_ours()
    assert (ours[0].text, len(ours)) == ("stolen", KEPT + 1)
    events.note(EventKind.REFUSED, "the last")
    events.put_back(ours)
    again = events.take_ours()
    assert (again[0].text, again[-1].text, len(again)) == ("stolen", "the last", KEPT + 1)


def test_text_from_outside_is_cut_and_made_printable() -> None:
    events, _ = make()
    events.note(EventKind.REFUSED, "a\x1b[2J\n" + "b" * 1000)
    (event,) = events.newest(1)
    assert event.text.startswith("a?[2J?b")
    assert len(event.text) == TEXT_LIMIT


def test_they_survive_the_registry(tmp_path: Path) -> None:
    network = IPv6Network("2001:db8:42::/48")

    async def life(notes: list[tuple[EventKind, str]]) -> list[tuple[str, int]]:
        store = Store(tmp_path / "registry.db", network)
        try:
            events = Events(lambda: 100.0, await store.read(stored_events))
            log = StoredEvents(events, store)
            for kind, text in notes:
                events.note(kind, text, A if kind is EventKind.REVOKED else None)
            await log.try_flush()
            assert not events.unwritten
            return [(event.text, event.count) for event in events.newest(9)]
        finally:
            store.close()

    assert asyncio.run(
        life([(EventKind.REVOKED, "stolen"), (EventKind.REFUSED, "wrong"), (EventKind.REFUSED, "wrong")])
    )
    after = [("wrong", 3), ("sent", 1), ("stolen", 1)]
    assert asyncio.run(life([(EventKind.MAIL, "sent"), (EventKind.REFUSED, "wrong")])) == after
    assert asyncio.run(life([])) == after
    asyncio.run(life([(EventKind.REFUSED, f"wrong {number}") for number in range(3 * KEPT)]))
    with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as db:
        assert db.execute("SELECT count(*) FROM re6st_event").fetchone() == (KEPT + 2,)
        db.execute("INSERT INTO re6st_event VALUES (1000000, 1, 'of a later version', NULL, '', 1)")
    assert asyncio.run(life([(EventKind.ENROLLED, "newest")]))[0] == ("newest", 1)


def test_listeners_hear_of_what_changes_something() -> None:
    events, _ = make()
    heard: list[int] = []
    events.listeners.add(lambda: heard.append(1))
    events.note(EventKind.REFUSED, "wrong")
    assert not heard
    events.note(EventKind.RENEWED, "1 became 2", A)
    assert heard == [1]
