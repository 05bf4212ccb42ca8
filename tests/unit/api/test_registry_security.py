"""Lets no one in: origins, sessions under attack, guessed tokens, secrets that stay secret (wire.md 3.2, 3.3)."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from re6st import cert
from re6st.api.http import HEADERS_LIMIT
from re6st.core.limits.rate import RateLimit
from re6st.core.registry.origins import ELSEWHERE, LOCAL, Origins, network_of
from re6st.core.registry.sessions import CallSessions, HelloClaims
from re6st.core.wire.rpc import HEADER, METHODS, Access, Ratchet, target
from re6st.registryd.records import Token
from re6st.registryd.sqlite.ledger import Ledger
from re6st.service.logs import TRACE
from tests.unit.registry_world import DAY, A, B, World, parse

PROXY, OPERATOR, STRANGER = "192.0.2.1", "192.0.2.9", "198.51.100.66"


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


# --- origins ---

CLAIMS = st.lists(
    st.sampled_from([*LOCAL, PROXY, OPERATOR, "", ",", " ", "127.0.0.1, ::1", "unknown", STRANGER])
    | st.text(st.characters(codec="latin-1"), max_size=20),
    max_size=4,
)
"""What a client may write into X-Forwarded-For itself."""


@given(claims=CLAIMS)
def test_a_stranger_behind_a_proxy_of_ours_is_a_stranger_whatever_it_claims(claims: list[str]) -> None:
    origins = Origins([PROXY, OPERATOR])
    for forwarded in ([*claims, STRANGER], [", ".join([*claims, STRANGER])]):  # proxies do one or the other
        assert not origins.authorized(PROXY, forwarded)
        assert origins.client(PROXY, forwarded) == STRANGER


@given(claims=CLAIMS)
def test_a_stranger_without_a_proxy_is_not_believed_at_all(claims: list[str]) -> None:
    origins = Origins([PROXY, OPERATOR])
    assert not origins.authorized(STRANGER, claims)
    assert origins.client(STRANGER, claims) == STRANGER


def test_the_operator_is_let_in_also_through_the_proxy() -> None:
    origins = Origins([PROXY, OPERATOR])
    for peer in (*LOCAL, PROXY, OPERATOR):
        assert origins.authorized(peer, [])
        assert origins.authorized(peer, [OPERATOR])
        assert origins.client(peer, [OPERATOR]) is None
        assert not origins.authorized(peer, [""])
    assert Origins().client("127.0.0.1", [OPERATOR]) == OPERATOR


@given(text=st.text(max_size=50))
def test_every_client_has_a_network_to_be_counted_in(text: str) -> None:
    assert network_of(text) == network_of(network_of(text)) or network_of(text) == ELSEWHERE


def test_one_client_is_one_network() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:0:0:1%eth0") == "2001:db8::"
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("unknown") == network_of("") == ELSEWHERE


# --- sessions ---


class Attack(RuleBasedStateMachine):
    """Two machines with one certificate, and a stranger who sees all requests, at one registry.

    Each machine keeps the client's rule (wire.md 3.3 point 5): a call that fails, is made once more after a hello. The
    stranger can say hello for them and send what they sent again, in any order.
    """

    machines = Bundle("machines")
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.sessions = CallSessions()
        self.now = 0.0
        self.secrets = 0
        self.accepted: set[tuple[bytes, str]] = set()
        self.ratchets: dict[int, Ratchet | None] = {}

    def hello(self) -> Ratchet:
        """As the registry does it: the answer of a moment ago is given again."""
        answer = self.sessions.pending_answer(A, HelloClaims(10), "", self.now)
        if answer is None:
            self.secrets += 1
            answer = self.secrets.to_bytes(20)
            self.sessions.start(A, HelloClaims(10), "", Ratchet(answer), answer, self.now)
        return Ratchet(answer)

    def send(self, message: bytes, header: str) -> bool:
        session = self.sessions.check(A, message, header)
        if session is None:
            return False
        assert (message, header) not in self.accepted, "a request was accepted twice"
        self.accepted.add((message, header))
        session.keys.sign(b"answer")
        return True

    @initialize(target=machines)
    def first(self) -> int:
        self.ratchets[1] = None
        return 1

    @rule(target=machines)
    def another(self) -> int:
        self.ratchets.setdefault(2, None)
        return 2

    @rule(target=requests, machine=machines, number=st.integers(0, 3))
    def call(self, machine: int, number: int) -> tuple[bytes, str]:
        """A machine's call is answered, at the second try at the latest, whatever happened before."""
        message = b"/getDh?cn=%d" % number
        ratchet = self.ratchets[machine]
        fresh = ratchet is None
        ratchet = ratchet or self.hello()
        header = ratchet.sign(message)
        if not self.send(message, header):
            assert not fresh or len(self.ratchets) == 2, "a fresh session was refused"
            ratchet = self.hello()
            header = ratchet.sign(message)
            assert self.send(message, header)
        ratchet.sign(b"answer")  # the client's step for the answer
        self.ratchets[machine] = ratchet
        return message, header

    @rule(target=requests, machine=machines)
    def call_without_an_answer(self, machine: int) -> tuple[bytes, str]:
        """The answer is lost: the client forgets the key."""
        ratchet = self.ratchets[machine] or self.hello()
        message = b"/getDh?lost"
        header = ratchet.sign(message)
        self.send(message, header)
        self.ratchets[machine] = None
        return message, header

    @rule()
    def strangers_hello(self) -> None:
        self.hello()

    @rule(request=requests)
    def replay(self, request: tuple[bytes, str]) -> None:
        if request in self.accepted:
            assert self.sessions.check(A, *request) is None

    @rule(request=consumes(requests), message=st.binary(max_size=5))
    def forge(self, request: tuple[bytes, str], message: bytes) -> None:
        assert self.sessions.check(A, request[0] + b"&" + message, request[1]) is None
        assert self.sessions.check(B, *request) is None

    @rule(seconds=st.sampled_from([0.5, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds


TestAttack = Attack.TestCase


def test_a_replayed_request_gets_nothing_over_http(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        ratchet = await world.hello(A)
        path = target("getDh", {"cn": A.bits})
        header = ratchet.sign(path.encode())
        first = await world.get(path, **{HEADER: header})
        assert first.status == 200
        assert ratchet.check(first.body, first.headers[HEADER.lower()])
        again = await asyncio.gather(*(world.get(path, **{HEADER: header}) for _ in range(5)))
        assert {answer.status for answer in again} == {400}
        assert all(HEADER.lower() not in answer.headers for answer in again)
        assert (await world.in_session(ratchet, "getDh", A)).status == 200, "the session goes on"

    world.run(test)


def test_a_request_that_overtakes_another_is_refused_and_harms_nothing(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        ratchet = await world.hello(A)
        path = target("getDh", {"cn": A.bits})
        early = ratchet.sign(path.encode())
        ahead = Ratchet(b"?" * 20)
        ahead.__dict__.update(ratchet.__dict__)  # a client that does not wait for its answer
        ahead.sign(b"")
        late = ahead.sign(path.encode())
        assert (await world.get(path, **{HEADER: late})).status == 400
        assert (await world.get(path, **{HEADER: early})).status == 200

    world.run(test)


def test_two_machines_with_one_certificate_are_both_served(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        statuses: list[int] = []

        async def machine() -> None:
            ratchet = None
            for _ in range(10):
                path = target("getDh", {"cn": A.bits})
                for _ in range(8):  # the other may come between hello and call
                    ratchet = ratchet or await world.hello(A)
                    answer = await world.get(path, **{HEADER: ratchet.sign(path.encode())})
                    if answer.status == 200:
                        assert ratchet.check(answer.body, answer.headers[HEADER.lower()])
                        break
                    ratchet = None
                statuses.append(answer.status)

        await asyncio.gather(machine(), machine())
        assert statuses == [200] * 20

    world.run(test)


# --- bounds ---


def test_the_number_of_headers_is_bounded(world: World) -> None:
    async def test(world: World) -> None:
        def request(count: int) -> bytes:
            return b"GET /getCa HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * (count - 1) + b"\r\n"

        assert parse(await world.raw(request(HEADERS_LIMIT))).status == 200
        assert parse(await world.raw(request(HEADERS_LIMIT + 1))).status == 400

    world.run(test)


# --- tokens ---


def test_guessing_tokens_is_limited_for_each_source(world: World) -> None:
    world.settings = replace(world.settings, anonymous_prefix_length=0)

    async def test(world: World) -> None:
        async def attempt(token: str, source: str) -> int:
            path = target("requestCertificate", {"token": token, "req": world.request()})
            return (await world.get(path, X_Forwarded_For=source)).status

        for number in range(25):
            await world.call("addToken", email="a@b.c", token=f"right{number}")
            assert await attempt(f"right{number}", STRANGER) == 200, "right ones do not count"
        statuses = [await attempt(f"wrong{number}", STRANGER) for number in range(30)]
        assert set(statuses[:15]) == {204}
        assert set(statuses[-5:]) == {429}
        await world.call("addToken", email="a@b.c", token="right")
        assert await attempt("right", STRANGER) == 429
        assert (await world.call("isToken", token="right")).body == b"1", "it was not spent"
        assert await attempt("right", "203.0.113.7") == 200, "others are not concerned"
        world.now += DAY / 24
        assert await attempt("wrong", STRANGER) == 204, "later it may try again"

    world.run(test)


def test_what_is_given_back_does_not_count_but_is_no_credit() -> None:
    limit = RateLimit(rate=1.0, burst=2)
    for _ in range(10):
        assert limit.allow("a", 0.0)
        limit.give_back("a")
    limit.give_back("a")
    limit.give_back("unknown")
    assert [limit.allow("a", 0.0) for _ in range(3)] == [True, True, False]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(sqlite3.connect(tmp_path / "r.db", isolation_level=None)) as db:
        yield Ledger(db, IPv6Network("2001:db8::/48"))


def test_a_token_is_never_compared_with_what_was_sent(ledger: Ledger) -> None:
    ledger.begin()
    ledger.add_token("qwertzui", "a@b.c", 16, 0.0)
    ledger.commit()
    statements: list[str] = []
    ledger._db.set_trace_callback(statements.append)
    assert ledger.token("qwertzux") is None
    assert statements == ["SELECT token FROM re6st_digest WHERE digest = token_digest('qwertzux')"]
    assert ledger.token("qwertzui") == Token("a@b.c", 16)


@given(
    tokens=st.sets(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), max_size=8)
)
def test_the_index_knows_what_the_table_knows(tokens: set[str]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        ledger = Ledger(db, IPv6Network("2001:db8::/48"))
        ledger.begin()
        for token in tokens:
            ledger.add_token(token, "a@b.c", 16, 0.0)
        assert all(ledger.token(token) for token in tokens)
        for token in list(tokens)[::2]:
            ledger.delete_token(token)
            assert ledger.token(token) is None
        ledger.rollback()
        assert not any(ledger.token(token) for token in tokens)


def test_tokens_of_another_program_are_known_too(ledger: Ledger, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "r.db")) as other:
        other.execute("INSERT INTO token VALUES ('theirs', 'a@b.c', 16, 0)")
        other.commit()
    ledger.begin()
    assert ledger.token("theirs") == Token("a@b.c", 16)
    ledger.commit()


# --- secrets ---


def test_no_secret_gets_into_log_database_or_answers(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(TRACE)
    logging.getLogger().setLevel(1)
    answers: list[bytes] = []

    async def test(world: World) -> None:
        await world.call("addToken", email="a@b.c", token="very-secret")
        await world.enrol("very-secret")
        ratchet = await world.hello(A)
        for name, method in METHODS.items():
            arguments = dict.fromkeys(method.parameters, "1")
            if method.access is Access.NODE:
                arguments.pop("cn")
                answers.append((await world.in_session(await world.hello(A), name, A, **arguments)).body)
            elif name != "revoke":
                answers.append((await world.call(name, **arguments)).body)
        await world.in_session(ratchet, "getDh", A)
        await world.call("updateHMAC")

    world.run(test)
    numbers = world.authority.key.private_numbers()
    pem = cert.key_to_pem(world.authority.key).decode().splitlines()[1:-1]
    der = world.authority.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for number in (numbers.d, numbers.p, numbers.q):
        raw = number.to_bytes((number.bit_length() + 7) // 8)
        assert raw in der or number == numbers.d
        for path in world.directory.iterdir():
            assert raw not in path.read_bytes(), path
        assert not any(raw in answer for answer in answers)
        for text in (str(number), f"{number:x}", repr(raw)):
            assert text not in caplog.text
    assert not any(line in caplog.text for line in pem)
    assert "very-secret" not in caplog.text
    with closing(sqlite3.connect(world.directory / "registry.db")) as db:
        keys = [row[0] for row in db.execute("SELECT value FROM config WHERE name LIKE 'babel_hmac%'")]
    assert keys
    for key in keys:
        assert key.hex() not in caplog.text
        assert repr(key) not in caplog.text
    assert all(secret not in repr(world.authority) + repr(world.settings) for secret in pem)
