"""What happened at a registry, for its operator: enrolments, renewals, refusals, mails, revocations.

The last events of each kind are kept in memory, so that a flood of refusals pushes no others out, and are written to
the database a little later. Facts that must not be lost are written at once by those who change them: certificates, and
who was revoked and why.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from re6st.core.prefix import Prefix
from re6st.registryd.records import StoredEvent
from re6st.registryd.repository import Changes, Queries, Repository, RepositoryError

logger = logging.getLogger("registry")

WRITE_INTERVAL = 10.0
SHARED_INTERVAL = 0.5
"""Where others show them too; refusals can wait."""
KEPT = 300
"""Number of events of each kind."""
TEXT_LIMIT = 200


class EventKind(StrEnum):
    """The subject of an event."""

    ENROLLED = "enrolled"
    RENEWED = "renewed"
    REVOKED = "revoked"
    REFUSED = "refused"
    MAIL = "mail"
    TOKEN = "token"  # noqa: S105 - the name of a kind
    TAGS = "tags"
    PARAMETERS = "parameters"
    ONLINE = "online"
    OFFLINE = "offline"
    CLAIM = "claim"
    NAME = "name"
    LOGIN = "login"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `time` is Unix time, of the last of `count` equal ones in a row; `cn` is the node that it is about, if
    any.
    """

    number: int
    time: float
    kind: EventKind
    cn: str | None
    text: str
    count: int = 1


class Events:
    """Each of the `listeners` is called after every event that changes something; a refusal changes nothing."""

    def __init__(self, clock: Callable[[], float], stored: Iterable[StoredEvent] = ()) -> None:
        """Begins with the events that are `stored`, the oldest first. Those of a later version may be left out."""
        self.listeners: set[Callable[[], None]] = set()
        self.totals: Counter[EventKind] = Counter()
        """The number of events of each kind since the start."""
        self._clock = clock
        self._number = 0
        self._events: dict[EventKind, deque[Event]] = _no_events()
        self.unwritten: set[EventKind] = set()
        """Kinds that have events which are not in the repository yet."""
        self._ours: dict[EventKind, deque[Event]] = _no_events()
        self._load(stored)

    def to_store(self, kind: EventKind) -> list[StoredEvent]:
        """The events of a kind, the oldest first."""
        return [StoredEvent(e.number, int(e.time), e.kind.value, e.cn, e.text, e.count) for e in self._events[kind]]

    def note(self, kind: EventKind, text: str, prefix: Prefix | None = None) -> None:
        """Something happened now. `text` may come from outside."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in text[:TEXT_LIMIT])
        cn = None if prefix is None else prefix.cn
        self._number += 1
        self.totals[kind] += 1
        event = Event(self._number, self._clock(), kind, cn, shown)
        self._ours[kind].append(event)
        self._add(event)
        self.unwritten.add(kind)
        if kind is not EventKind.REFUSED:
            for listener in tuple(self.listeners):
                listener()

    def take_ours(self) -> list[Event]:
        """The events that were noted here since the last call of this, at most KEPT of each kind, to write them
        beside those of others.
        """
        ours, self._ours = self._all_ours(), _no_events()
        self.unwritten.clear()
        return ours

    def put_back(self, ours: Iterable[Event]) -> None:
        """They could not be written."""
        later, self._ours = self._all_ours(), _no_events()
        for event in (*ours, *later):
            self._ours[event.kind].append(event)
            self.unwritten.add(event.kind)

    def read_again(self, stored: Iterable[StoredEvent]) -> None:
        """These are stored by now, and have those of others among them; ours that are not written stay."""
        self._load(stored)
        for event in self._all_ours():
            self._number += 1
            self._add(replace(event, number=self._number))
        for listener in tuple(self.listeners):
            listener()

    def _all_ours(self) -> list[Event]:
        return sorted((event for events in self._ours.values() for event in events), key=lambda event: event.number)

    def _load(self, stored: Iterable[StoredEvent]) -> None:
        known = {each.value for each in EventKind}
        for events in self._events.values():
            events.clear()
        for old in stored:
            self._number = max(self._number, old.number)
            if old.kind in known:
                kind = EventKind(old.kind)
                self._events[kind].append(Event(old.number, old.time, kind, old.cn, old.text, old.count))

    def _add(self, event: Event) -> None:
        events = self._events[event.kind]
        if events and (events[-1].text, events[-1].cn) == (event.text, event.cn):
            event = replace(event, count=events.pop().count + event.count)
        events.append(event)

    def newest(self, limit: int, kind: EventKind | None = None, cn: str | None = None) -> list[Event]:
        """The last events, the newest first: all, of one kind, or about one node."""
        chosen = self._events.values() if kind is None else [self._events[kind]]
        found = [event for events in chosen for event in events if cn is None or event.cn == cn]
        return sorted(found, key=lambda event: -event.number)[:limit]


def _no_events() -> dict[EventKind, deque[Event]]:
    return {kind: deque(maxlen=KEPT) for kind in EventKind}


def stored_events(queries: Queries) -> list[StoredEvent]:
    """The events with which a registry begins, the oldest first."""
    return queries.events(KEPT * len(EventKind))


def with_ours(stored: Sequence[StoredEvent], ours: Iterable[Event]) -> list[StoredEvent]:
    """What is to be stored, the oldest first, when events of ours come to those that are."""
    found = [*stored]
    number = max((event.number for event in stored), default=0)
    for event in ours:
        number += 1
        same = next((at for at in range(len(found) - 1, -1, -1) if found[at].kind == event.kind.value), None)
        count = event.count
        if same is not None and (found[same].text, found[same].cn) == (event.text, event.cn):
            count += found.pop(same).count
        found.append(StoredEvent(number, int(event.time), event.kind.value, event.cn, event.text, count))
    return found


class StoredEvents:
    """Keeps the events in the repository, so that they outlive the registry, and others on the same state see them."""

    def __init__(self, events: Events, repository: Repository) -> None:
        self._events = events
        self._repository = repository

    async def run(self) -> None:
        """Write new events from time to time, for ever: soon, if others want to see them."""
        waited = 0.0
        while True:
            interval = WRITE_INTERVAL if self._repository.shared is None else SHARED_INTERVAL
            await asyncio.sleep(interval)
            waited += interval
            if waited >= WRITE_INTERVAL or self._events.unwritten - {EventKind.REFUSED}:
                waited = 0.0
                await self.try_flush()

    async def try_flush(self) -> None:
        """Write new events, or log why that failed."""
        try:
            if self._repository.shared is None:
                await self._write_all()
            else:
                await self._write_beside_others()
        except RepositoryError as error:
            logger.warning("cannot write events: %s", error)

    async def read_again(self) -> None:
        """Others have written events. Raises RepositoryError."""
        self._events.read_again(await self._repository.read(stored_events))

    async def _write_all(self) -> None:
        events = self._events
        kinds, events.unwritten = events.unwritten, set()
        found = {kind: events.to_store(kind) for kind in kinds}

        def job(changes: Changes) -> None:
            for kind, stored in found.items():
                changes.replace_events(kind.value, stored)

        try:
            if found:
                await self._repository.change(job)
        except RepositoryError:
            events.unwritten |= kinds
            raise

    async def _write_beside_others(self) -> None:
        ours = self._events.take_ours()

        def job(changes: Changes) -> list[StoredEvent]:
            found = with_ours(stored_events(changes), ours)
            for kind in {event.kind.value for event in ours}:
                changes.replace_events(kind, [event for event in found if event.kind == kind][-KEPT:])
            return found

        try:
            if ours:
                self._events.read_again(await self._repository.change(job))
        except RepositoryError:
            self._events.put_back(ours)
            raise
