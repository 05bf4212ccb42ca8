"""What others try with a session of two nodes: touched, repeated and invented datagrams, floods."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import IPv6Address
from typing import cast

import pytest

from re6st.core.prefix import Prefix, control_address
from re6st.core.wire.datagrams import (
    PORT,
    Code,
    Hello,
    Hello0,
    WireError,
    decode,
    encode_data,
    encode_hello,
    encode_hello0,
)
from re6st.core.wire.peer_table import HELLO_WAIT, MESSAGE_TIMEOUT, PEER_LIMIT, STRANGER_LIMIT
from re6st.core.wire.sessions import Datagram, Message
from tests.unit.session_world import NETWORK, A, B, C, PlayCertificate, PlayCrypto, World, established, source


def test_acquainted_are_those_with_a_session(world: World) -> None:
    sessions = world.machines[A]
    assert sessions.acquainted() == []
    established(world)
    sessions.ensure(C, world.now)
    assert sessions.acquainted() == [B], "the other one was only greeted"
    assert sessions.answered(B)
    sessions.send(B, bytes([Code.SOFTWARE]), world.now)
    assert not sessions.answered(B)
    assert not sessions.answered(C)


def test_repeated_late_and_touched_data_is_refused(world: World) -> None:
    established(world)
    (one,) = world.machines[A].send(B, bytes([Code.SOFTWARE]), world.now)
    (two,) = world.machines[A].send(B, bytes([Code.TOPOLOGY]), world.now)
    assert isinstance(one, Datagram)
    assert isinstance(two, Datagram)
    assert world.machines[B].receive(source(A), two.data, world.now)
    for datagram, words in (
        (two.data, "repeated"),
        (one.data, "late"),
        (two.data[:-1] + b"x", "HMAC"),
        (b"\0\0\1\0" + two.data[4:], "HMAC"),
        (encode_data(99, b"\5", b"x" * 20), "HMAC"),
    ):
        with pytest.raises(WireError, match=words):
            world.machines[B].receive(source(A), datagram, world.now)
    assert world.connected(A, B)


def test_our_own_datagram_that_comes_back_is_refused(world: World) -> None:
    established(world)
    # A far ahead of B in numbers, so that only the comparison with what was sent can tell.
    for _ in range(5):
        (datagram,) = world.machines[A].send(B, bytes([Code.ASK_CLOSE]), world.now)
    assert isinstance(datagram, Datagram)
    with pytest.raises(WireError, match="our own"):
        world.machines[A].receive(source(B), datagram.data, world.now)


@pytest.mark.parametrize("code", [Code.ADDRESS, Code.SOFTWARE, Code.TOPOLOGY, Code.ADDRESS | 0x80])
def test_the_same_question_at_the_same_time_is_no_datagram_of_our_own(world: World, code: int) -> None:
    """Two sides that are equally far have the same bytes for it."""
    established(world)
    ours, theirs = world.machines[A].peer(B), world.machines[B].peer(A)
    assert ours is not None
    assert theirs is not None
    assert ours.session is not None
    assert theirs.session is not None
    ours.session.tx = theirs.session.tx = max(ours.session.tx, theirs.session.tx)
    (one,) = world.machines[A].send(B, bytes([code]), world.now)
    (other,) = world.machines[B].send(A, bytes([code]), world.now)
    assert isinstance(one, Datagram)
    assert isinstance(other, Datagram)
    assert one.data == other.data
    assert world.machines[B].receive(source(A), one.data, world.now)
    assert world.machines[A].receive(source(B), other.data, world.now)


def test_a_replayed_handshake_breaks_nothing(world: World) -> None:
    recorded: list[tuple[Prefix, bytes]] = []
    world.lose = lambda to, data: bool(recorded.append((to, data)))  # type: ignore[func-returns-value]
    established(world)
    world.lose = lambda _to, _data: False
    for wait in (0, 5, 3600):
        world.now += wait
        for to, data in recorded:
            sender = A if to == B else B
            with suppress(WireError):
                world.machines[to].receive(source(sender), data, world.now)
        assert world.connected(A, B)
        before = len(world.messages(B, Code.LOG))
        world.send(A, B, bytes([Code.LOG, 1]))
        world.send(B, A, bytes([Code.LOG, 1]))
        assert len(world.messages(B, Code.LOG)) == before + 1


def test_a_certificate_only_from_the_subnet_it_is_for(world: World) -> None:
    stolen = encode_hello0(Hello0(PlayCertificate(A, 1).der))
    with pytest.raises(WireError, match="somebody else"):
        world.machines[B].receive(source(C), stolen, world.now)
    with pytest.raises(WireError, match="outside"):
        world.machines[B].receive((IPv6Address("2001:db8:43::1"), PORT), stolen, world.now)
    with pytest.raises(WireError, match="outside"):
        world.machines[B].receive((IPv6Address("::1"), PORT), stolen, world.now)
    other_address = (control_address(NETWORK, A) + 0x1234, PORT)
    assert world.machines[B].receive(other_address, stolen, world.now), "any address of the subnet is good"


def test_a_revoked_or_bad_certificate_gets_no_session(world: World) -> None:
    crypto = cast(PlayCrypto, world.machines[B].crypto)
    crypto.bad.add(1)
    world.send(A, B, bytes([Code.SOFTWARE]))
    assert not world.machines[B].connected(A, world.now)
    assert world.refused == ["not accepted"]
    crypto.bad.clear()
    world.now += 100
    established(world)
    assert world.machines[B].forget(frozenset({1, 77})) == [A]
    crypto.bad.add(1)
    world.now += MESSAGE_TIMEOUT
    world.refused.clear()
    world.send(A, B, bytes([Code.LOG, 1]))
    assert world.messages(B, Code.LOG) == []
    assert world.machines[B].peer(A) is None


def test_hello_must_be_signed_for_us_and_newer(world: World) -> None:
    established(world)
    b = world.machines[B]
    a_crypto, b_certificate = cast(PlayCrypto, world.machines[A].crypto), PlayCertificate(B, 2)

    def hello(secret: bytes, to: PlayCertificate = b_certificate, by: PlayCrypto = a_crypto) -> bytes:
        ciphertext = by.encrypt(to, secret)
        return encode_hello(Hello(ciphertext, by.sign(ciphertext), 10))

    new = (1 << 60).to_bytes(8) + bytes(12)
    for datagram, words in (
        (hello(new, by=PlayCrypto(PlayCertificate(C, 3))), "signature"),
        (hello(new, to=PlayCertificate(C, 3)), "not for us"),
        (hello(bytes(20)), "not newer"),
        (hello(new[:19]), "halves|signature|not newer"),
        (encode_hello(Hello(b"x" * 30, b"y" * 30, 10)), "signature"),
    ):
        with pytest.raises(WireError, match=words):
            b.receive(source(A), datagram, world.now)
    with pytest.raises(WireError, match="do not have"):
        b.receive(source(C), hello(new), world.now)
    assert world.connected(A, B)
    b.receive(source(A), hello(new), world.now)
    known = b.peer(A)
    assert known is not None
    assert known.session is not None
    assert known.session.secret == new


def test_data_from_strangers(world: World) -> None:
    with pytest.raises(WireError, match="stranger"):
        world.machines[B].receive(source(A), encode_data(3, b"\1", bytes(20)), world.now)
    established(world)
    with pytest.raises(WireError, match="HMAC"):
        world.machines[B].receive(source(A), encode_data(3, b"\1", bytes(20)), world.now)


@pytest.mark.parametrize("rate", [50, 200, 1000, 5000])
@pytest.mark.parametrize("sources", [1, 500], ids=["one source", "many sources"])
@pytest.mark.parametrize("kind", ["noise", "forged certificates", "others' certificates", "others' greetings", "data"])
def test_greetings_of_a_real_peer_get_through_a_flood(rate: int, sources: int, kind: str) -> None:
    """Somebody sends garbage from invented addresses, those that are in the routing table."""
    world = World()
    a, b = world.add(A), world.add(B)
    crypto = cast(PlayCrypto, b.crypto)
    b._routed = lambda prefix: prefix.value < 1000
    fingerprint = PlayCertificate(B, 2).fingerprint
    start = world.now
    for number in range(rate * 10):
        world.now += 1 / rate
        prefix = Prefix(100 + number % sources, 16)
        der = PlayCertificate(prefix, 1000 + prefix.value).der
        if kind == "forged certificates":
            crypto.forged.add(der)
        elif kind == "noise":
            der = b"x" * 20
        packet = Hello0(der, fingerprint, 10) if kind == "others' greetings" else Hello0(der)
        data = encode_data(3 + number, b"\1", bytes(20)) if kind == "data" else encode_hello0(packet)
        with suppress(WireError):
            b.receive(source(prefix), data, world.now)
        if number > 2 * rate and number % rate == 1:
            world.carry(A, a.send(B, bytes([Code.SOFTWARE]), world.now))
            if world.connected(A, B):
                break
    else:
        pytest.fail("it did not get through")
    took = world.now - start
    # Greetings that all are real, if repeated, are told from others only by those who never come back.
    assert took < (8 if kind == "others' greetings" else 4), "the first greeting is enough"
    assert crypto.admitted <= took * 400 + 400
    assert crypto.offers <= took * 60 + 120


def test_the_flood_of_one_source_is_the_work_of_one_peer(world: World) -> None:
    b, crypto = world.machines[B], cast(PlayCrypto, world.machines[B].crypto)
    for number in range(2000):
        certificate = PlayCertificate(Prefix(77 << 8 | number % 256, 24), number)  # all in one subnet
        crypto.forged.add(certificate.der)
        with suppress(WireError):
            b.receive(source(certificate.prefix), encode_hello0(Hello0(certificate.der)), world.now)
    assert crypto.admitted <= 8
    assert not b._table.all()


def test_old_greetings_repeated_by_somebody_else_cost_less_and_less(world: World) -> None:
    """A certificate is no secret: who has those of all peers can greet in their names."""
    b, crypto = world.machines[B], cast(PlayCrypto, world.machines[B].crypto)
    greeting = encode_hello0(Hello0(PlayCertificate(A, 1).der, PlayCertificate(B, 2).fingerprint, 10))
    for _ in range(600):
        world.now += 0.1
        b.receive(source(A), greeting, world.now)
    assert crypto.offers <= 10
    assert world.send(A, B, bytes([Code.SOFTWARE]))
    assert world.connected(A, B)


def test_a_secret_is_read_only_from_whom_we_have_greeted(world: World) -> None:
    established(world)
    b, crypto = world.machines[B], cast(PlayCrypto, world.machines[B].crypto)
    by = cast(PlayCrypto, world.machines[A].crypto)
    ciphertext = by.encrypt(PlayCertificate(B, 2), (1 << 60).to_bytes(8) + bytes(12))
    hello = encode_hello(Hello(ciphertext, by.sign(ciphertext), 10))
    before = crypto.read_offers
    world.now += 3600
    with pytest.raises(WireError, match="not asked for"):
        b.receive(source(A), hello, world.now)
    assert crypto.read_offers == before


def test_recorded_secrets_sent_again_are_read_a_few_times_only(world: World) -> None:
    recorded: list[bytes] = []
    world.lose = lambda to, data: bool(recorded.append(data)) if to == B else False  # type: ignore[func-returns-value]
    established(world)
    (hello,) = [data for data in recorded if data[:4] == b"\0\0\0\2"]
    crypto = cast(PlayCrypto, world.machines[B].crypto)
    before = crypto.read_offers
    for _ in range(1000):
        with pytest.raises(WireError):
            world.machines[B].receive(source(A), hello, world.now)
    assert crypto.read_offers - before <= 8


def test_messages_of_one_peer_are_taken_so_many_a_second(world: World) -> None:
    world.add(C)
    established(world)
    world.send(C, B, bytes([Code.LOG, 0]))
    for _ in range(5000):
        world.now += 0.001
        with suppress(WireError):
            for output in world.machines[A].send(B, bytes([Code.LOG, 1]), world.now):
                assert isinstance(output, Datagram)
                world.told[B] += world.machines[B].receive(source(A), output.data, world.now)
    assert 50 < len([m for m in world.messages(B, Code.LOG) if m.peer == A]) < 200
    world.send(C, B, bytes([Code.LOG, 2]))
    assert world.messages(B, Code.LOG)[-1].payload == b"\2", "others are heard meanwhile"
    world.now += 10
    world.send(A, B, bytes([Code.LOG, 3]))
    assert world.messages(B, Code.LOG)[-1].payload == b"\3", "and it too, afterwards"


def test_invented_names_push_no_real_peer_out(world: World) -> None:
    established(world)
    a = world.machines[A]
    for number in range(PEER_LIMIT + 100):
        a.ensure(Prefix(number + 10, 24), world.now)
    assert len(a._table.all()) == 1 + STRANGER_LIMIT
    assert a.peer(Prefix(10, 24)) is None
    assert a.connected(B, world.now)
    world.send(A, B, bytes([Code.LOG, 1]))
    assert world.messages(B, Code.LOG)


def test_real_certificates_are_bounded_and_those_we_speak_with_stay(world: World) -> None:
    established(world)
    b = world.machines[B]
    for number in range(PEER_LIMIT + 100):
        certificate = PlayCertificate(Prefix(number + 10, 16), number + 10)
        world.now += 0.1
        b.receive(source(certificate.prefix), encode_hello0(Hello0(certificate.der)), world.now)
    assert len(b._table.latest()) == PEER_LIMIT
    assert b.connected(A, world.now)


def test_older_protocols_are_answered_in_their_form(world: World) -> None:
    """Protocol 0 has no protocol number in its packets (wire.md 6.3)."""
    b, old = world.machines[B], PlayCertificate(A, 1)
    packet = encode_hello0(Hello0(old.der, PlayCertificate(B, 2).fingerprint))
    (answer,) = b.receive(source(A), packet, world.now)
    assert isinstance(answer, Datagram)
    hello = decode(answer.data, numbered=False)
    assert isinstance(hello, Hello)
    secret = cast(PlayCrypto, world.machines[A].crypto).decrypt(hello.ciphertext)
    (message,) = b.receive(source(A), encode_data(3, b"\0\0", secret), world.now)
    assert isinstance(message, Message)
    assert b.connected(A, world.now)
    assert b.peer(A).protocol == 0  # type: ignore[union-attr]


def test_who_acknowledges_a_version_has_it(world: World) -> None:
    established(world)
    state = world.machines[A].peer(B)
    assert state is not None
    world.lose = lambda to, data: to == A
    world.send(A, B, b"\0\2signed")
    assert state.version != b"\2signed"
    world.lose = lambda to, data: False
    world.send(A, B, b"\0\2signed")
    assert state.version == b"\2signed"
    world.send(A, B, b"\0\1signed")
    assert state.version == b"\2signed"


@pytest.mark.parametrize("protocol", [7, 8, 9, 10, 11])
def test_a_release_that_ends_when_it_hears_an_older_version_is_not_told_ours(world: World, protocol: int) -> None:
    world.machines[A].protocol = protocol
    established(world)
    assert bool(world.messages(A, Code.VERSION)) is (protocol not in (8, 9))
    assert world.messages(B, Code.SOFTWARE), "the session is good all the same"


@pytest.mark.parametrize("routed", [True, False])
def test_such_a_release_is_brought_to_tell_its_version_where_it_has_told_none(world: World, routed: bool) -> None:
    """It may have missed ours: then it is answered with it (noded/peer_messages.py)."""
    world.machines[A].protocol = 8
    world.machines[B]._routed = lambda _prefix: routed
    world.send(A, B, bytes([Code.SOFTWARE]))
    assert world.messages(B, Code.VERSION) == [], "it made the secret, and so says nothing of its version"
    for _ in range(59):
        world.now += 1
        assert world.machines[B].retry(world.now) == [], "it answers one greeting a minute"
    for _ in range(120):
        world.now += 1
        if world.messages(B, Code.VERSION):
            world.machines[B].peer(A).version = b"\0"  # type: ignore[union-attr]  # as noded/peer_messages.py does
        world.carry(B, world.machines[B].retry(world.now))
    assert len(world.messages(B, Code.VERSION)) == routed
    assert world.connected(A, B)
    assert world.messages(A, Code.VERSION) == []


def test_what_such_a_release_was_told_counts_for_nothing_once_it_may_have_started_anew(world: World) -> None:
    """It fetches the parameters a second after it heard of them; if it ends before, it knows nothing of them."""
    world.machines[A].protocol = 8
    world.send(A, B, bytes([Code.SOFTWARE]))
    peer = world.machines[B].peer(A)
    assert peer is not None
    world.carry(B, world.machines[B].send(A, b"\0" + b"version 3", world.now))
    assert peer.version == b"version 3"
    world.now += 20
    world.add(A).protocol = 8
    world.send(A, B, bytes([Code.SOFTWARE]))
    assert peer.version == b""


def test_such_a_release_that_was_away_is_brought_to_tell_its_version_again(world: World) -> None:
    world.machines[A].protocol = 8
    world.machines[B]._routed = lambda _prefix: True
    world.send(B, A, bytes([Code.SOFTWARE]))
    peer = world.machines[B].peer(A)
    assert peer is not None
    peer.version = b"version 3"
    world.add(A).protocol = 8  # it started anew, and has nothing to say
    world.told[B].clear()
    world.machines[B].doubt(A)
    world.now += 2
    world.carry(B, world.machines[B].retry(world.now))
    assert world.messages(B, Code.VERSION)
    world.machines[A].doubt(B)
    assert world.machines[A].peer(B).version == b"\0", "others keep what they were told"  # type: ignore[union-attr]


def test_the_high_bit_goes_back_with_the_answer(world: World) -> None:
    established(world)
    world.answers[Code.SOFTWARE] = b"1.0, Linux"
    world.send(A, B, bytes([Code.SOFTWARE | 0x80]))
    assert world.messages(B, Code.SOFTWARE)[-1].relayed
    answer = world.messages(A, Code.SOFTWARE)[-1]
    assert (answer.relayed, answer.payload) == (True, b"1.0, Linux")


def test_a_million_random_bytes(world: World) -> None:
    established(world)
    chance = random.Random(7)
    good: list[bytes] = []
    world.lose = lambda _to, data: bool(good.append(data))  # type: ignore[func-returns-value]
    established(world)
    session = world.machines[B].peer(A).session  # type: ignore[union-attr]
    assert session is not None
    for number in range(1500):
        world.now += 0.1
        kind = number % 4
        noise = chance.randbytes(chance.randrange(1000))
        if kind == 0:
            datagram = noise
        elif kind == 1:
            datagram = chance.randrange(4).to_bytes(4) + noise
        elif kind == 2:
            datagram = encode_data(100 + number, noise, session.secret)
        else:
            base = bytearray(chance.choice(good))
            base[chance.randrange(len(base))] = chance.randrange(256)
            datagram = bytes(base)
        try:
            outputs = world.machines[B].receive(source(chance.choice([A, A, C])), datagram, world.now)
        except WireError:
            continue
        for output in outputs:
            if isinstance(output, Message):
                world.machines[B].answer(output, b"", world.now)
    world.lose = lambda _to, _data: False
    # Data with the right secret made numbers that A has not reached, so A finds itself unheard, and greets again.
    world.send(A, B, bytes([Code.LOG, 8]))
    world.now += MESSAGE_TIMEOUT + HELLO_WAIT
    world.send(A, B, bytes([Code.LOG, 9]))
    assert [message.payload for message in world.messages(B, Code.LOG)][-1:] == [b"\x09"]
