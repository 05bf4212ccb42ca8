"""Sessions between two nodes: the recorded handshake, and how messages get through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix, control_address
from re6st.core.wire.datagrams import (
    PORT,
    Code,
)
from re6st.core.wire.peer_crypto import PeerCertificate
from re6st.core.wire.peer_table import HELLO_WAIT, MESSAGE_TIMEOUT, QUEUE_LIMIT
from re6st.core.wire.sessions import QUEUE_TIME, Datagram, Message, Sessions
from tests.unit.session_world import NETWORK, A, B, World, source

# --- the recorded handshake, with real keys ---


@dataclass(frozen=True)
class RealCertificate:
    prefix: Prefix
    serial: int
    der: bytes
    fingerprint: bytes
    x509: x509.Certificate
    until: float = 4e9


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
        assert b.receive(source(A), offer, 0) == [Datagram(*source(A), steps[3])]
    assert a.receive(source(B), steps[3], 0) == [Message(B, Code.VERSION, False, version, source(B))]
    assert [machine.peer(other).protocol for machine, other in ((a, B), (b, A))] == [10, 10]  # type: ignore[union-attr]
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


def test_nobody_has_a_prefix_that_is_too_long_for_the_network() -> None:
    """A message for one goes nowhere, and nothing is left that would fail at each look."""
    sessions, stranger = World().add(A), Prefix(0, 128)
    assert sessions.send(stranger, b"x", 0.0) == sessions.ensure(stranger, 0.0) == []
    assert sessions.peer(stranger) is None
    assert sessions.retry(HELLO_WAIT) == []
