"""Sessions of peers: the recorded handshake, then two and more machines joined in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv6Address, IPv6Network
from typing import Any, cast

import pytest
from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix, address, control_address
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
from re6st.core.wire.peer_crypto import PeerCertificate
from re6st.core.wire.sessions import (
    HELLO_WAIT,
    MESSAGE_TIMEOUT,
    PEER_LIMIT,
    QUEUE_LIMIT,
    QUEUE_TIME,
    STRANGER_LIMIT,
    Datagram,
    Message,
    Output,
    SessionOpened,
    Sessions,
)

NETWORK = IPv6Network("2001:db8:42::/48")
A, B, C = Prefix(0, 16), Prefix(1, 16), Prefix(2, 16)


def source(prefix: Prefix) -> tuple[IPv6Address, int]:
    return address(NETWORK, prefix), PORT


# --- the recorded handshake, with real keys ---


@dataclass(frozen=True)
class RealCertificate:
    prefix: Prefix
    serial: int
    der: bytes
    fingerprint: bytes
    x509: x509.Certificate


class RealCrypto:
    """The keys of the vectors, at a fixed time."""

    def __init__(self, identity: cert.Identity, when: datetime) -> None:
        self.identity, self.when = identity, when
        self.prefix, self.der, self.fingerprint = identity.prefix, identity.der, identity.fingerprint

    def read(self, der: bytes) -> PeerCertificate:
        peer = cert.load_der(der)
        return RealCertificate(cert.prefix_of_cert(peer), peer.serial_number, der, cert.fingerprint(peer), peer)

    def admit(self, certificate: PeerCertificate) -> None:
        self.identity.trust.check_strict(cast(RealCertificate, certificate).x509, self.when)

    def still_good(self, certificate: PeerCertificate) -> bool:
        return True

    def encrypt(self, certificate: PeerCertificate, data: bytes) -> bytes:
        return cert.encrypt(cast(RealCertificate, certificate).x509, data)

    def decrypt(self, data: bytes) -> bytes:
        return cert.decrypt(self.identity.key, data)

    def sign(self, data: bytes) -> bytes:
        return cert.sign(self.identity.key, data)

    def verify(self, certificate: PeerCertificate, signature: bytes, data: bytes) -> bool:
        return cert.verify(cast(RealCertificate, certificate).x509, signature, data)


def test_the_recorded_handshake(vector: Callable[[str], Any], nodes: dict[str, cert.Identity], when: datetime) -> None:
    session = vector("peer_session")
    steps = [bytes.fromhex(step["datagram"]) for step in session["steps"]]
    secret = bytes.fromhex(session["steps"][2]["secret"])
    version = bytes.fromhex(session["steps"][3]["payload"])[1:]
    addresses = bytes.fromhex(session["steps"][5]["payload"])[1:]
    secrets = iter([bytes(20), secret])
    a = Sessions(NETWORK, RealCrypto(nodes["0/16"], when), 10, b"\0", lambda: next(secrets))
    b = Sessions(NETWORK, RealCrypto(nodes["1/16"], when), 10, version, lambda: bytes(20))

    assert a.ensure(B, 0) == [Datagram(control_address(NETWORK, B), PORT, steps[0])]
    assert b.receive(source(A), steps[0], 0) == [Datagram(*source(A), steps[1])]
    (hello,) = a.receive(source(B), steps[1], 0)
    assert isinstance(hello, Datagram)
    assert len(hello.data) == len(steps[2]), "its ciphertext has chance in it"
    assert not a.connected(B, 0)
    for offer in (steps[2], hello.data):
        b.peer(A).session = None  # type: ignore[union-attr]  # so that both are new
        opened, greeting = b.receive(source(A), offer, 0)
        assert opened == SessionOpened(A, 10)
        assert greeting == Datagram(*source(A), steps[3])
    opened, message = a.receive(source(B), steps[3], 0)
    assert opened == SessionOpened(B, 10)
    assert message == Message(B, Code.VERSION, False, version, source(B))
    assert a.send(B, bytes([Code.ADDRESS]), 0) == [Datagram(control_address(NETWORK, B), PORT, steps[4])]
    (request,) = b.receive(source(A), steps[4], 0)
    assert request == Message(A, Code.ADDRESS, False, b"", source(A))
    assert isinstance(request, Message)
    assert b.answer(request, addresses, 0) == [Datagram(*source(A), steps[5])]
    (answer,) = a.receive(source(B), steps[5], 0)
    assert isinstance(answer, Message)
    assert answer.payload == addresses
    assert a.answer(answer, None, 0) == [Datagram(*source(B), steps[6])]
    assert b.receive(source(A), steps[6], 0) == [], "an empty payload is not answered"
    assert a.connected(B, 0)
    assert b.connected(A, 0)


# --- machines joined in memory, with keys that are plays on words ---


@dataclass(frozen=True)
class PlayCertificate:
    prefix: Prefix
    serial: int

    @property
    def der(self) -> bytes:
        return f"certificate of {self.prefix.cn} number {self.serial:4}".encode()

    @property
    def fingerprint(self) -> bytes:
        return f"fingerprint {self.prefix.cn:8}"[:20].encode()


class PlayCrypto:
    def __init__(self, certificate: PlayCertificate) -> None:
        self.own = certificate
        self.prefix, self.der, self.fingerprint = certificate.prefix, certificate.der, certificate.fingerprint
        self.bad: set[int] = set()
        self.admitted = 0
        self.offers = 0
        self.read_offers = 0
        self.forged: set[bytes] = set()
        """Certificates whose signature is wrong."""

    def read(self, der: bytes) -> PeerCertificate:
        try:
            head, _, cn, _, serial = der.decode().split()
            certificate = PlayCertificate(Prefix.from_cn(cn), int(serial))
        except (ValueError, UnicodeError):
            raise WireError("no certificate") from None
        if head != "certificate" or certificate.serial in self.bad or certificate.der != der:
            raise WireError("not accepted")
        return certificate

    def admit(self, certificate: PeerCertificate) -> None:
        self.admitted += 1
        if certificate.der in self.forged:
            raise WireError("not signed by our CA")

    def still_good(self, certificate: PeerCertificate) -> bool:
        return certificate.serial not in self.bad

    def encrypt(self, certificate: PeerCertificate, data: bytes) -> bytes:
        return f"{certificate.prefix.cn:>10}".encode() + data

    def decrypt(self, data: bytes) -> bytes:
        self.read_offers += 1
        if data[:10] != f"{self.prefix.cn:>10}".encode():
            raise WireError("not for us")
        return data[10:]

    def sign(self, data: bytes) -> bytes:
        self.offers += 1
        return f"{self.prefix.cn:>10}".encode() + data[::-1][:20]

    def verify(self, certificate: PeerCertificate, signature: bytes, data: bytes) -> bool:
        return signature == f"{certificate.prefix.cn:>10}".encode() + data[::-1][:20]


@dataclass
class World:
    """Machines, and the datagrams under way; what each machine was told is kept."""

    machines: dict[Prefix, Sessions] = field(default_factory=dict)
    told: dict[Prefix, list[Output]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    now: float = 1000.0
    secrets: Iterator[bytes] = field(default_factory=lambda: (n.to_bytes(8) + bytes(12) for n in range(1, 1 << 30)))
    lose: Callable[[Prefix, bytes], bool] = lambda _to, _data: False
    answers: dict[int, bytes] = field(default_factory=dict)

    def add(self, prefix: Prefix) -> Sessions:
        crypto = PlayCrypto(PlayCertificate(prefix, prefix.value + 1))
        self.machines[prefix] = Sessions(NETWORK, crypto, 10, b"\0", lambda: next(self.secrets))
        self.told.setdefault(prefix, [])
        return self.machines[prefix]

    def carry(self, sender: Prefix, outputs: list[Output]) -> int:
        """Deliver what a machine sends, and what comes of it, to the end; how many datagrams that took."""
        pending, count = [(sender, output) for output in outputs], 0
        while pending:
            sender, output = pending.pop(0)
            if not isinstance(output, Datagram):
                self.told[sender].append(output)
                if isinstance(output, Message):
                    answer = self.answers.get(output.code) if not output.payload else None
                    more = self.machines[sender].answer(output, answer, self.now)
                    pending += [(sender, item) for item in more]
                continue
            count += 1
            assert count < 100, "an endless exchange"
            receiver = next(
                p for p in self.machines if output.address in (address(NETWORK, p), control_address(NETWORK, p))
            )
            if self.lose(receiver, output.data):
                continue
            try:
                more = self.machines[receiver].receive(source(sender), output.data, self.now)
            except WireError as error:
                self.refused.append(str(error))
            else:
                pending += [(receiver, item) for item in more]
        return count

    def send(self, sender: Prefix, receiver: Prefix, payload: bytes) -> int:
        return self.carry(sender, self.machines[sender].send(receiver, payload, self.now))

    def messages(self, prefix: Prefix, code: Code) -> list[Message]:
        return [output for output in self.told[prefix] if isinstance(output, Message) and output.code == code]

    def connected(self, one: Prefix, other: Prefix) -> bool:
        return self.machines[one].connected(other, self.now) and self.machines[other].connected(one, self.now)


@pytest.fixture
def world() -> World:
    world = World()
    world.add(A)
    world.add(B)
    return world


def test_a_message_to_a_stranger_arrives_after_the_handshake(world: World) -> None:
    world.answers[Code.ADDRESS] = b"10.0.0.2,1194,tcp"
    world.send(A, B, bytes([Code.ADDRESS]))
    assert world.connected(A, B)
    assert [m.peer for m in world.messages(B, Code.ADDRESS)] == [A]
    assert [m.payload for m in world.messages(A, Code.ADDRESS)] == [b"10.0.0.2,1194,tcp"]
    assert world.refused == []
    assert world.send(A, B, bytes([Code.SOFTWARE])) == 2, "a message and its acknowledgement"


def test_whoever_greets_and_however_the_first_datagrams_are_lost(world: World) -> None:
    for lost in range(6):
        fresh = World()
        for prefix in (A, B):
            fresh.add(prefix)
        count = iter(range(1000))
        fresh.lose = lambda _to, _data, count=count, lost=lost: next(count) == lost  # type: ignore[misc]
        fresh.send(A, B, bytes([Code.SOFTWARE]))
        for _ in range(8):
            fresh.now += 1
            fresh.carry(A, fresh.machines[A].retry(fresh.now))
            fresh.carry(B, fresh.machines[B].retry(fresh.now))
        # What is lost after the handshake is lost, as the protocol has it; until then the message waits.
        arrived = fresh.messages(B, Code.SOFTWARE)
        assert len(arrived) <= 1
        if lost < 3:
            assert len(arrived) == 1, f"datagram {lost} lost"
            assert fresh.connected(A, B)


def test_both_greet_at_the_same_time(world: World) -> None:
    first = world.machines[A].send(B, bytes([Code.SOFTWARE]), world.now)
    second = world.machines[B].send(A, bytes([Code.SOFTWARE]), world.now)
    world.carry(A, first)
    world.carry(B, second)
    assert world.connected(A, B)
    assert len(world.messages(A, Code.SOFTWARE)) == 1
    assert len(world.messages(B, Code.SOFTWARE)) == 1


def test_a_machine_that_starts_again_is_found_again(world: World) -> None:
    world.send(A, B, bytes([Code.SOFTWARE]))
    world.add(B)
    world.told[B].clear()
    world.send(B, A, bytes([Code.ADDRESS]))
    assert world.connected(A, B)
    assert len(world.messages(A, Code.ADDRESS)) == 1


def test_a_silent_peer_is_greeted_again_after_a_while(world: World) -> None:
    world.send(A, B, bytes([Code.SOFTWARE]))
    world.add(B)
    world.send(A, B, bytes([Code.SOFTWARE]))
    assert world.machines[A].connected(B, world.now)
    world.now += MESSAGE_TIMEOUT + 1
    assert not world.machines[A].connected(B, world.now)
    world.send(A, B, bytes([Code.TOPOLOGY]))
    assert world.connected(A, B)
    assert len(world.messages(B, Code.TOPOLOGY)) == 1


def test_messages_wait_only_so_long_and_so_many(world: World) -> None:
    world.lose = lambda _to, _data: True
    for number in range(3 * QUEUE_LIMIT):
        world.send(A, B, bytes([Code.LOG, number]))
    world.lose = lambda _to, _data: False
    world.now += 2
    world.carry(A, world.machines[A].retry(world.now))
    kept = [m.payload[0] for m in world.messages(B, Code.LOG)]
    assert kept == list(range(2 * QUEUE_LIMIT, 3 * QUEUE_LIMIT))
    late = World()
    late.add(A)
    late.add(B)
    late.lose = lambda _to, _data: True
    late.send(A, B, bytes([Code.LOG, 1]))
    late.lose = lambda _to, _data: False
    late.now += QUEUE_TIME + 1
    assert late.machines[A].retry(late.now) == []
    late.carry(A, late.machines[A].ensure(B, late.now))
    assert late.messages(B, Code.LOG) == []


def test_greetings_to_one_that_does_not_answer_become_rare(world: World) -> None:
    world.lose = lambda _to, _data: True
    sent = 0
    for _ in range(int(10 * HELLO_WAIT)):
        world.now += 1
        sent += world.carry(A, world.machines[A].ensure(B, world.now))
    assert 10 <= sent <= 20


# --- what others try ---


def established(world: World) -> None:
    world.send(A, B, bytes([Code.SOFTWARE]))
    assert world.connected(A, B)


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
    assert isinstance(b.receive(source(A), hello(new), world.now)[0], SessionOpened)


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
    assert not b._peers
    assert not b._strangers


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
    assert len(a._strangers) == STRANGER_LIMIT
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
    assert len(b._peers) == PEER_LIMIT
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
    opened, message = b.receive(source(A), encode_data(3, b"\0\0", secret), world.now)
    assert opened == SessionOpened(A, 0)
    assert isinstance(message, Message)


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
    """It may have missed ours: then it is answered with it (noded/peer_answers.py)."""
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
            world.machines[B].peer(A).version = b"\0"  # type: ignore[union-attr]  # as noded/peer_answers.py does
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
            world.machines[x]._meet(cast(PeerCertificate, certificate))
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
