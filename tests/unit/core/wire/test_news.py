"""Who is told what is new, how often, and for how long."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest

from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Code
from re6st.core.wire.news import (
    AUDIENCE_LIMIT,
    LOOK_EVERY,
    PATIENCE,
    TELLINGS,
    TELLINGS_FIRST,
    TOLD_AT_ONCE,
    Audience,
    VersionNews,
)
from re6st.core.wire.peer_table import Peer
from re6st.core.wire.sessions import Sessions

PEERS = [Prefix(number, 16) for number in range(1000)]
A, B, C = PEERS[:3]


def always(_peer: Prefix) -> bool:
    return True


def never(_peer: Prefix) -> bool:
    return False


def test_everybody_is_told_a_few_at_a_time() -> None:
    audience = Audience()
    audience.start(PEERS, 0)
    told: list[Prefix] = []
    for second in range(400):
        batch = audience.next(always, always, second)
        assert len(batch) <= TOLD_AT_ONCE
        told += batch
    assert told[:TOLD_AT_ONCE] == PEERS[:TOLD_AT_ONCE]
    assert Counter(told) == dict.fromkeys(PEERS[:AUDIENCE_LIMIT], TELLINGS_FIRST)


def test_whoever_is_out_of_reach_is_told_later_but_not_for_ever() -> None:
    audience = Audience()
    audience.start(PEERS[:2], 0)
    assert audience.next(lambda peer: peer is PEERS[0], always, 1) == [PEERS[0]]
    assert PEERS[1] in audience.next(always, always, PATIENCE - 1)
    audience.start(PEERS[:2], 0)
    assert audience.next(always, always, PATIENCE + 1) == []


def test_whoever_does_not_answer_is_told_more_often() -> None:
    audience = Audience()
    audience.start(PEERS[:2], 0)
    told = [peer for second in range(100) for peer in audience.next(always, lambda peer: peer is PEERS[0], second)]
    assert told.count(PEERS[0]) == TELLINGS_FIRST
    assert told.count(PEERS[1]) == TELLINGS
    audience.start(PEERS[:1], 100)
    assert audience.next(always, never, 100) == PEERS[:1]
    audience.start((), 101)
    assert audience.next(always, never, 150) == []


def test_news_while_telling_begins_again() -> None:
    audience = Audience()
    audience.start(PEERS[:15], 0)
    audience.next(always, always, 0)
    audience.start(PEERS[:3], 1)
    assert audience.next(always, always, 1) == PEERS[:3]
    assert audience.next(always, always, 2) == []


def test_whoever_comes_near_while_the_news_is_new_is_told_once() -> None:
    audience = Audience()
    audience.join(PEERS[:1], 0)
    assert audience.next(always, always, 0) == [], "there is no news"
    audience.start(PEERS[:1], 1)
    audience.join(PEERS[:2], 2)
    told = [peer for second in range(2, 100) for peer in audience.next(always, always, second)]
    assert Counter(told) == dict.fromkeys(PEERS[:2], TELLINGS_FIRST)
    audience.join(PEERS[:2], 100)
    assert audience.next(always, always, 101) == []
    audience.join(PEERS, 102)
    later = {peer for second in range(102, 400) for peer in audience.next(always, always, second)}
    assert len(later) == AUDIENCE_LIMIT - 2
    audience.join(PEERS[-1:], 1 + PATIENCE + 1)
    assert audience.next(always, always, 2 + PATIENCE + 1) == []


# --- the version of the network's parameters ---


class PlaySessions:
    """What is known of peers; everybody has answered."""

    def __init__(self) -> None:
        self.version = b"\2"
        self.known: dict[Prefix, Peer] = {}
        self.doubted: list[Prefix] = []

    def doubt(self, prefix: Prefix) -> None:
        self.doubted.append(prefix)

    def peer(self, prefix: Prefix) -> Peer | None:
        return self.known.get(prefix)

    def answered(self, _prefix: Prefix) -> bool:
        return True

    def knows(self, prefix: Prefix, version: bytes) -> None:
        self.known[prefix] = peer = Peer(prefix)
        peer.version = version

    def opened(self, prefix: Prefix) -> None:
        self.known[prefix].session = cast(Any, object())


class Place:
    """A node with its neighbours, and whom it told."""

    def __init__(self) -> None:
        self.sessions = PlaySessions()
        self.near: set[Prefix] = set()
        self.away: set[Prefix] = set()
        self.told: list[Prefix] = []
        self.greeted: list[Prefix] = []
        self.older = False
        sessions = cast(Sessions, self.sessions)
        self.news = VersionNews(
            sessions,
            lambda: self.near,
            lambda peer: peer not in self.away,
            self,
        )

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        assert (code, payload) == (Code.VERSION, self.sessions.version)
        self.told.append(peer)

    def ensure(self, peer: Prefix) -> None:
        self.greeted.append(peer)

    def tick(self, now: float) -> None:
        self.news.tick(now, older=self.older)


@pytest.fixture
def place() -> Place:
    return Place()


def test_those_next_to_us_are_told_until_they_know(place: Place) -> None:
    place.near = {A, B, C}
    place.sessions.knows(A, b"\1")
    place.sessions.knows(B, b"\2")
    place.news.start(0)
    assert set(place.told) == {A, C}, "B has it"
    place.sessions.knows(C, b"\2")
    for second in range(1, 60):
        place.tick(second)
    assert Counter(place.told) == {A: 1 + TELLINGS_FIRST, C: 1}


def test_whoever_comes_later_is_told_and_who_is_out_of_reach_once_it_can_be(place: Place) -> None:
    place.news.start(0)
    place.near, place.away = {A, B}, {B}
    place.tick(10)
    assert place.told == [A]
    place.sessions.knows(A, b"\2")
    place.away = set()
    place.tick(20)
    assert place.told == [A, B]


def test_without_news_nobody_is_told(place: Place) -> None:
    """The session itself does that, and whoever is ahead of us would not bear it (sessions.py)."""
    place.near = {A}
    place.tick(1)
    place.news.start(2)
    place.near = {A, B}
    place.tick(3 + PATIENCE)
    assert place.told == [A]


def test_where_there_are_older_nodes_everybody_near_is_met_so_that_versions_are_compared(place: Place) -> None:
    """One of them that was away when there was a new version would ask nobody for months, and live on the old one."""
    place.near, place.away = {A, B}, {B}
    place.tick(1)
    assert place.greeted == [], "nodes of this software look for themselves"
    place.older = True
    place.tick(2)
    assert place.greeted == [A]
    place.away = set()
    place.sessions.knows(A, b"")
    place.sessions.opened(A)
    place.tick(3)
    assert place.greeted == [A, B]
    assert place.told == [], "which of the two versions is the newer one is not known yet"


def test_what_an_older_node_knows_is_doubted_when_it_comes_back(place: Place) -> None:
    """It was told of a version and ended before it had fetched it, as 0.642 does."""
    place.near, place.older = {A, B}, True
    place.tick(1)
    place.sessions.doubted.clear()
    place.tick(2)
    assert place.sessions.doubted == []
    place.away = {A}
    place.tick(3)
    place.away = set()
    place.tick(4)
    place.tick(5)
    assert place.sessions.doubted == [A]


def test_it_is_asked_for_while_there_is_news_or_an_older_node(place: Place) -> None:
    never = float("inf")
    place.tick(1)
    assert place.news.next_deadline(1, older=False) == never
    assert place.news.next_deadline(1, older=True) == 1 + LOOK_EVERY
    place.news.start(5)
    assert place.news.next_deadline(5, older=False) <= 5 + LOOK_EVERY
    place.tick(6)
    assert place.news.next_deadline(6, older=False) == 6 + LOOK_EVERY
    place.tick(6 + PATIENCE)
    assert place.news.next_deadline(6 + PATIENCE, older=False) == never
