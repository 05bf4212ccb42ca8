"""Messages about lines go to those that understand them, and are taken from nobody else."""

from __future__ import annotations

import pytest

from re6st.core.prefix import Prefix
from re6st.core.routing.line_wishes import Able, Message, Ready, Wish
from re6st.core.wire.datagrams import Code
from re6st.core.wire.extensions import Extension
from re6st.core.wire.lines import decode, encode
from re6st.noded.line_words import LineEars, LineWords

PEER, OLD = Prefix(2, 16), Prefix(3, 16)
MESSAGES = Wish({1: (PEER,), 2: (OLD,)}, {5: 2}), Ready(OLD, True), Able(frozenset({1, 2}))


class World:
    """A peer that understands, and one of the older software."""

    def __init__(self) -> None:
        self.sent: list[tuple[Prefix, int, bytes]] = []
        self.ensured: list[Prefix] = []
        self.heard: list[tuple[Prefix, Message]] = []
        self.words = LineWords(self, lambda: 100.0)  # type: ignore[arg-type]
        self.ears = LineEars(self.words, self, self)

    @property
    def sessions(self) -> World:
        return self

    def speaks(self, peer: Prefix, extension: Extension, now: float) -> bool:
        assert extension is Extension.LINES
        return peer == PEER

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        self.sent.append((peer, code, payload))

    def ensure(self, peer: Prefix) -> None:
        self.ensured.append(peer)

    def wished(self, by: Prefix, wish: Wish) -> None:
        self.heard.append((by, wish))

    def ready(self, by: Prefix, word: Ready) -> None:
        self.heard.append((by, word))

    def able(self, by: Prefix, word: Able) -> None:
        self.heard.append((by, word))


@pytest.mark.parametrize("message", MESSAGES)
def test_who_understands_is_told_and_heard(message: Message) -> None:
    world = World()
    world.words.tell(PEER, message)
    ((to, code, payload),) = world.sent
    assert (to, code, decode(payload)) == (PEER, Code.LINES, message)
    world.ears.received(PEER, payload)
    assert world.heard == [(PEER, message)]


@pytest.mark.parametrize("message", MESSAGES)
def test_who_does_not_is_neither_told_nor_heard(message: Message) -> None:
    world = World()
    world.words.tell(OLD, message)
    world.ears.received(OLD, encode(message))
    assert (world.sent, world.heard) == ([], [])
    assert world.ensured == [OLD, OLD], "it may be able to, once there is a session"


def test_what_cannot_be_read_is_dropped() -> None:
    world = World()
    world.ears.received(PEER, b"\7")
    assert world.heard == []
