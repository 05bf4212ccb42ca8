"""Sessions at the registry, as pure logic (wire.md 3.3, vectors/registry_session.json)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from re6st.core import registry_sessions
from re6st.core.prefix import Prefix
from re6st.core.registry_sessions import PENDING_LIFE, PENDING_LIMIT, RATE_KEYS, RateLimit, Sessions
from re6st.core.rpc import Ratchet

A = Prefix(1, 16)


def test_the_recorded_session(vector: Callable[[str], Any]) -> None:
    recorded = vector("registry_session")
    prefix = Prefix.from_bits(recorded["client_prefix"])
    sessions = Sessions()
    sessions.start(prefix, 10, bytes.fromhex(recorded["secret"]), b"answer", 0.0)
    for call in recorded["calls"]:
        session = sessions.check(prefix, call["path_and_query"].encode(), call["request_header_Re6stHMAC"])
        assert session is not None
        body = bytes.fromhex(call["response_body"])
        assert session.ratchet.sign(body) == call["response_header_Re6stHMAC"]


def test_a_hello_gets_the_same_answer_until_it_is_used_or_old() -> None:
    sessions = Sessions()
    assert sessions.pending_answer(A, 10, 0.0) is None
    sessions.start(A, 10, b"s", b"answer", 0.0)
    assert sessions.pending_answer(A, 10, PENDING_LIFE - 1) == b"answer"
    assert sessions.pending_answer(A, 10, PENDING_LIFE) is None
    assert sessions.check(A, b"m", Ratchet(b"s").sign(b"m"))
    assert sessions.pending_answer(A, 10, 1.0) is None


def test_strangers_cannot_push_confirmed_sessions_out() -> None:
    sessions = Sessions()
    client = Ratchet(b"s")
    sessions.start(A, 10, b"s", b"", 0.0)
    assert sessions.check(A, b"m", client.sign(b"m"))
    client.sign(b"")  # the answer's step
    session = sessions.check(A, b"m", "AAAA")
    assert session is None
    for number in range(PENDING_LIMIT * 2):
        sessions.start(Prefix(number, 32), 10, b"x", b"", 0.0)
    assert sessions.known(A)
    assert not sessions.known(Prefix(0, 32)), "pending ones are bounded"


def test_confirmed_sessions_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(registry_sessions, "CONFIRMED_LIMIT", 3)
    sessions = Sessions()
    for number in range(5):
        prefix = Prefix(number, 16)
        sessions.start(prefix, 10, b"s", b"", 0.0)
        assert sessions.check(prefix, b"m", Ratchet(b"s").sign(b"m"))
    assert [sessions.known(Prefix(number, 16)) for number in range(5)] == [False, False, True, True, True]


def test_a_rate_limit_gives_a_burst_then_the_rate() -> None:
    limit = RateLimit(rate=2.0, burst=3)
    assert [limit.allow("a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert limit.allow("b", 0.0), "others are not concerned"
    assert [limit.allow("a", 1.0) for _ in range(3)] == [True, True, False]
    assert [limit.allow("a", 100.0) for _ in range(4)] == [True, True, True, False]
    assert not limit.allow("a", 50.0), "a clock that goes back gives nothing"


def test_a_rate_limit_is_bounded() -> None:
    limit = RateLimit(1.0, 1)
    for number in range(RATE_KEYS * 2):
        assert limit.allow(str(number), 0.0)
    assert len(limit._buckets) == RATE_KEYS
