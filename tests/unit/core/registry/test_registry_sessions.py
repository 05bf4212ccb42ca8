"""Sessions at the registry, as pure logic (wire.md 3.3, vectors/registry_session.json)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from re6st.core.limits.rate import RATE_KEYS, RateLimit
from re6st.core.prefix import Prefix
from re6st.core.registry.sessions import (
    PENDING_LIFE,
    PENDING_LIMIT,
    PENDING_PER_CLIENT,
    PENDING_PER_SOURCE,
    CallSessions,
    HelloClaims,
)
from re6st.core.wire.rpc import Ratchet

A = Prefix(1, 16)
OLD, NEW = HelloClaims(1), HelloClaims(10)
HERE, ELSEWHERE = "2001:db8::", "192.0.2.1"


def test_the_recorded_session(vector: Callable[[str], Any]) -> None:
    recorded = vector("registry_session")
    prefix = Prefix.from_bits(recorded["client_prefix"])
    sessions = CallSessions()
    sessions.start(prefix, NEW, HERE, Ratchet(bytes.fromhex(recorded["secret"])), b"answer", 0.0)
    for call in recorded["calls"]:
        session = sessions.check(prefix, call["path_and_query"].encode(), call["request_header_Re6stHMAC"])
        assert session is not None
        body = bytes.fromhex(call["response_body"])
        assert session.keys.sign(body) == call["response_header_Re6stHMAC"]


def test_a_hello_gets_the_same_answer_until_it_is_used_or_old() -> None:
    sessions = CallSessions()
    assert sessions.pending_answer(A, NEW, HERE, 0.0) is None
    sessions.start(A, NEW, HERE, Ratchet(b"s"), b"answer", 0.0)
    assert sessions.pending_answer(A, NEW, HERE, PENDING_LIFE - 1) == b"answer"
    assert sessions.pending_answer(A, NEW, HERE, PENDING_LIFE) is None
    assert sessions.check(A, b"m", Ratchet(b"s").sign(b"m"))
    assert sessions.pending_answer(A, NEW, HERE, 1.0) is None


def test_what_a_strangers_hello_claims_is_not_the_nodes() -> None:
    """Only who can read the secret in the answer to a hello has said that hello."""
    sessions = CallSessions()
    sessions.start(A, NEW, HERE, Ratchet(b"of the node's hello"), b"answer", 0.0)
    for source in (HERE, ELSEWHERE):
        assert sessions.pending_answer(A, OLD, source, 0.005) is None
        sessions.start(A, OLD, source, Ratchet(b"of a stranger's hello"), b"another", 0.005)
    assert sessions.pending_answer(A, NEW, HERE, 0.01) == b"answer"
    session = sessions.check(A, b"m", Ratchet(b"of the node's hello").sign(b"m"))
    assert session is not None
    assert session.claims == NEW
    assert sessions.pending_answer(A, OLD, HERE, 0.02) is None, "with the call all pending ones have ended"


def test_one_source_does_not_push_out_the_hello_of_another() -> None:
    sessions = CallSessions()
    sessions.start(A, NEW, HERE, Ratchet(b"s"), b"answer", 0.0)
    for protocol in range(100):
        sessions.start(A, HelloClaims(protocol), ELSEWHERE, Ratchet(b"x"), b"", 0.1)
    assert sessions.pending_answer(A, NEW, HERE, 0.2) == b"answer"
    assert sessions.check(A, b"m", Ratchet(b"s").sign(b"m"))


def test_the_pending_sessions_of_one_client_are_few() -> None:
    sessions = CallSessions()
    for number in range(100):
        sessions.start(
            A, HelloClaims(number % 50), f"192.0.2.{number // 10}", Ratchet(b"x%d" % number), b"", float(number)
        )

    def works(number: int) -> bool:
        session = sessions.check(A, b"m", Ratchet(b"x%d" % number).sign(b"m"))
        return session is not None

    kept = [
        number
        for number in range(100)
        if sessions.pending_answer(A, HelloClaims(number % 50), f"192.0.2.{number // 10}", float(number)) is not None
    ]
    assert kept == [68, 69, 78, 79, 88, 89, 98, 99]
    assert len(kept) == PENDING_PER_CLIENT
    assert len(kept) == 4 * PENDING_PER_SOURCE
    assert not works(97)
    assert works(68)
    assert not works(99), "one of them was used"


def test_strangers_cannot_push_confirmed_sessions_out() -> None:
    sessions = CallSessions()
    client = Ratchet(b"s")
    sessions.start(A, NEW, HERE, Ratchet(b"s"), b"", 0.0)
    assert sessions.check(A, b"m", client.sign(b"m"))
    client.sign(b"")  # the answer's step
    session = sessions.check(A, b"m", "AAAA")
    assert session is None
    for number in range(PENDING_LIMIT * 2):
        sessions.start(Prefix(number, 32), NEW, HERE, Ratchet(b"x"), b"", 0.0)
    assert sessions.known(A)
    assert not sessions.known(Prefix(0, 32)), "pending ones are bounded"


def test_confirmed_sessions_are_bounded() -> None:
    sessions = CallSessions(confirmed_limit=3)
    for number in range(5):
        prefix = Prefix(number, 16)
        sessions.start(prefix, NEW, HERE, Ratchet(b"s"), b"", 0.0)
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
