"""Sessions with bad luck and bad clocks: lost datagrams, machines that start again, dates that differ."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import cast

import pytest

from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import (
    Code,
    Hello,
    Hello0,
    WireError,
    encode_hello,
    encode_hello0,
)
from re6st.core.wire.peer_crypto import PeerCertificate
from re6st.core.wire.peer_table import MESSAGE_TIMEOUT
from re6st.core.wire.sessions import Datagram, Message, Output, Sessions
from tests.unit.session_world import NETWORK, A, B, PlayCertificate, PlayCrypto, World, established, source

# --- bad luck and bad clocks ---


class Clocks(World):
    """Machines whose secrets come from clocks of their own, `skew` seconds from the right time."""

    def join(self, prefix: Prefix, skew: float = 0.0) -> Sessions:
        made = self.add(prefix)
        fresh = Sessions(NETWORK, made.crypto, 10, b"\0", lambda: self.secret(skew))
        self.machines[prefix] = fresh
        return fresh

    def secret(self, skew: float) -> bytes:
        return int((self.now + skew) * 1e6).to_bytes(8) + next(self.secrets)[:8] + bytes(4)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now += 1
            for prefix, machine in list(self.machines.items()):
                self.carry(prefix, machine.retry(self.now))

    def talk(self, one: Prefix, other: Prefix, patience: float) -> float | None:
        """How long until a message of the one arrives at the other, sent once a second."""
        start, before = self.now, len(self.messages(other, Code.LOG))
        while self.now - start <= patience:
            self.send(one, other, bytes([Code.LOG, 1]))
            if len(self.messages(other, Code.LOG)) > before:
                return self.now - start
            self.pass_time(1)
        return None


@pytest.fixture
def clocks() -> Clocks:
    world = Clocks(now=1e6)
    world.join(A)
    world.join(B)
    return world


def test_after_one_side_starts_again_both_are_heard_within_seconds(clocks: Clocks) -> None:
    """The other one still has the old session, and may be the only one with something to say."""
    for restarted, speaker, listener in ((A, B, A), (A, A, B), (B, A, B)):
        assert clocks.talk(A, B, 5) == 0
        clocks.pass_time(600)
        clocks.join(restarted)
        assert (clocks.talk(speaker, listener, 100) or 0) <= 10


def test_an_answer_that_was_lost_does_not_cost_the_session(clocks: Clocks) -> None:
    clocks.talk(A, B, 5)
    clocks.lose = lambda to, _data: to == A
    clocks.send(A, B, bytes([Code.LOG, 1]))
    clocks.lose = lambda _to, _data: False
    clocks.pass_time(100)
    assert clocks.talk(A, B, 5) == 0
    assert clocks.talk(B, A, 5) == 0


def test_a_message_that_waits_goes_out_when_the_session_turns_out_to_live(clocks: Clocks) -> None:
    clocks.talk(A, B, 5)
    clocks.lose = lambda to, _data: to == B
    clocks.send(A, B, bytes([Code.LOG, 1]))
    clocks.now += MESSAGE_TIMEOUT + 1
    clocks.send(A, B, bytes([Code.LOG, 2]))
    clocks.lose = lambda _to, _data: False
    clocks.send(B, A, bytes([Code.LOG, 3]))
    assert [m.payload for m in clocks.messages(B, Code.LOG)][-1] == b"\2"


@pytest.mark.parametrize("skew", [3600.0, -3600.0])
@pytest.mark.parametrize("known", [True, False], ids=["certificates known", "strangers"])
@pytest.mark.parametrize("speaker", [A, B])
def test_a_wrong_clock_does_not_keep_anybody_apart(skew: float, known: bool, speaker: Prefix) -> None:
    """Whoever's clock is late cannot make the secret (wire.md 6.3); then the other one has to."""
    world = Clocks(now=1e6)
    world.join(A)
    world.join(B)
    if known:
        world.talk(A, B, 5)
        world.pass_time(200)
        certificates = [world.machines[x].peer(y).certificate for x, y in ((A, B), (B, A))]  # type: ignore[union-attr]
    world.join(B, skew)
    if known:
        for (x, y), certificate in zip(((A, B), (B, A)), certificates, strict=True):
            world.machines[x].ensure(y, world.now)
            world.machines[x]._table.met(cast(PeerCertificate, certificate))
    other = B if speaker == A else A
    assert world.talk(speaker, other, 60) is not None
    assert world.talk(other, speaker, 10) is not None


@pytest.mark.parametrize("skew", [3600.0, 0.0, -3600.0])
def test_a_lost_offer_does_not_keep_anybody_apart(skew: float) -> None:
    """An offer that never arrived must not stand in the way of the next one, whoever makes it."""
    for lost in range(8):
        world = Clocks(now=1e6)
        world.join(A, skew)
        world.join(B)
        count = iter(range(1 << 30))
        world.lose = lambda _to, _data, count=count, lost=lost: next(count) in (lost, lost + 1)  # type: ignore[misc]
        assert world.talk(A, B, 60) is not None
        assert world.talk(B, A, 10) is not None


def test_losing_every_third_datagram(clocks: Clocks) -> None:
    chance = random.Random(3)
    clocks.lose = lambda _to, _data: chance.random() < 0.33
    for _ in range(20):
        assert clocks.talk(A, B, 60) is not None
        clocks.pass_time(chance.randrange(200))


@pytest.mark.parametrize("code", [Code.ADDRESS, Code.ASK_CLOSE])
def test_our_own_datagrams_are_known_however_many_went_out(world: World, code: Code) -> None:
    """Whoever asks sends two datagrams for each one of the other, so the numbers grow apart."""
    world.answers[code] = b"10.0.0.2,1194,tcp"
    established(world)
    recorded: list[bytes] = []
    for _ in range(300):
        outputs = world.machines[A].send(B, bytes([code]), world.now)
        recorded += [output.data for output in outputs if isinstance(output, Datagram)]
        world.carry(A, outputs)
        world.now += 1
    assert world.messages(A, code)
    told = len(world.told[A])
    accepted = 0
    for data in recorded:
        with suppress(WireError):
            accepted += len(world.machines[A].receive(source(B), data, world.now))
    assert accepted <= (code is Code.ADDRESS), "but the question that may be the peer's own"
    assert len(world.told[A]) == told
    assert world.connected(A, B)
    world.send(B, A, bytes([Code.LOG, 5]))
    assert world.messages(A, Code.LOG)


def test_someone_elses_longer_prefix_hides_nobody(world: World) -> None:
    """A bogus route makes the policy ask a peer that has no certificate; the real owner is still heard."""
    established(world)
    bogus = Prefix(0, 24)
    assert A.contains(bogus)
    world.machines[B].ensure(bogus, world.now)
    world.send(A, B, bytes([Code.LOG, 1]))
    assert len(world.messages(B, Code.LOG)) == 1


def test_repeating_one_greeting_costs_no_second_signature(world: World) -> None:
    established(world)
    greeting = encode_hello0(Hello0(PlayCertificate(A, 1).der, PlayCertificate(B, 2).fingerprint, 10))
    offers = {
        output.data
        for _ in range(20)
        for output in world.machines[B].receive(source(A), greeting, world.now)
        if isinstance(output, Datagram)
    }
    assert len(offers) == 1
    assert world.connected(A, B)


@pytest.mark.parametrize(("invented", "routed"), [(1000, True), (65000, False)], ids=["routed", "without a route"])
def test_a_session_opens_within_seconds_in_a_long_flood(clocks: Clocks, invented: int, routed: bool) -> None:
    """Somebody forges certificates of all the network, or of nobody, 2000 a second."""
    b, crypto = clocks.machines[B], cast(PlayCrypto, clocks.machines[B].crypto)
    b._routed = lambda prefix: prefix == A or routed
    chance = random.Random(1)
    arrived: float | None = None
    for moment in range(20_000):
        clocks.now += 1 / 2000
        certificate = PlayCertificate(Prefix(10 + chance.randrange(invented), 16), moment % 10_000)
        crypto.forged.add(certificate.der)
        with suppress(WireError):
            b.receive(source(certificate.prefix), encode_hello0(Hello0(certificate.der)), clocks.now)
        if moment > 6000 and moment % 1000 == 7:
            clocks.send(A, B, bytes([Code.LOG, 1]))
            if arrived is None and clocks.messages(B, Code.LOG):
                arrived = clocks.now
    assert arrived is not None
    assert arrived - 1e6 < 3.1, "at the first greeting"
    assert crypto.admitted <= 10 * 400 + 400


def test_an_expired_certificate_opens_no_session(world: World) -> None:
    established(world)
    recorded: list[bytes] = []
    world.lose = lambda to, data: bool(recorded.append(data)) if to == B else False  # type: ignore[func-returns-value]
    world.machines[B].peer(A).session = None  # type: ignore[union-attr]
    cast(PlayCrypto, world.machines[B].crypto).bad.add(1)
    crypto = cast(PlayCrypto, world.machines[A].crypto)
    ciphertext = crypto.encrypt(PlayCertificate(B, 2), (1 << 60).to_bytes(8) + bytes(12))
    with pytest.raises(WireError, match="expired"):
        world.machines[B].receive(source(A), encode_hello(Hello(ciphertext, crypto.sign(ciphertext), 10)), world.now)


def test_acknowledgements_that_cross_are_no_reflection(world: World) -> None:
    """Both are empty, so with the same number they are the same, byte for byte."""
    established(world)
    session = world.machines[A].peer(B).session  # type: ignore[union-attr]
    other = world.machines[B].peer(A).session  # type: ignore[union-attr]
    assert session is not None
    assert other is not None
    session.tx = other.tx = 10
    under_way = [
        (to, output)
        for to, outputs in (
            (B, world.machines[A].send(B, bytes([Code.LOG, 1]), world.now)),
            (A, world.machines[B].send(A, bytes([Code.LOG, 2]), world.now)),
        )
        for output in outputs
    ]
    for _ in range(2):
        replies: list[tuple[Prefix, Output]] = []
        for to, output in under_way:
            assert isinstance(output, Datagram)
            sender = A if to == B else B
            for got in world.machines[to].receive(source(sender), output.data, world.now):
                assert isinstance(got, Message)
                replies += [(sender, reply) for reply in world.machines[to].answer(got, None, world.now)]
        under_way = replies
    assert under_way == []
    assert world.refused == []
    world.now += 1000
    assert world.connected(A, B)
