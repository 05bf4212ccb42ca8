"""Sealed messages between nodes: with older peers, over bad lines, after restarts, and with somebody who listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.wire import extensions, seals
from re6st.core.wire.datagrams import (
    MAC_LENGTH,
    SEALED,
    Code,
    Hello0,
    Sealed,
    WireError,
    decode,
    encode_data,
    encode_hello0,
)
from re6st.core.wire.extensions import KNOWN, Extension
from re6st.core.wire.offers import Aead
from re6st.core.wire.peer_table import MESSAGE_TIMEOUT, Peer
from re6st.core.wire.seals import LIFE, Seal
from re6st.core.wire.sessions import AbilitiesTold, Datagram, Message, Sessions
from re6st.keys import sealing
from tests.unit.session_world import NETWORK, A, B, PlayCertificate, PlayCrypto, World, source


class PlaySealer:
    """Real keys for a session; signatures that are plays on words."""

    aead: Aead = sealing.CIPHER

    def __init__(self, own: PlayCertificate, abilities: Callable[[], frozenset[Extension]] = frozenset) -> None:
        self._own = own
        self._abilities = abilities
        self.signed = 0

    @property
    def abilities(self) -> frozenset[Extension]:
        return self._abilities()

    def ephemeral(self) -> sealing.SessionKey:
        return sealing.SessionKey()

    def sign_offer(self, statement: bytes) -> bytes:
        self.signed += 1
        return sha256(self._own.der + statement).digest()

    def verify_offer(self, der: bytes, signature: bytes, statement: bytes) -> bool:
        return signature == sha256(der + statement).digest()


class SealedWorld(World):
    def ours(self, prefix: Prefix, protocol: int = 10) -> Sessions:
        """Start a machine of our software, anew if it is there."""
        certificate = PlayCertificate(prefix, prefix.value + 1)
        sealer = PlaySealer(certificate)
        self.machines[prefix] = Sessions(
            NETWORK, PlayCrypto(certificate), protocol, b"\0", lambda: next(self.secrets), sealer=sealer
        )
        self.told.setdefault(prefix, [])
        return self.machines[prefix]

    def seal(self, one: Prefix, other: Prefix) -> Seal:
        peer = self.machines[one].peer(other)
        assert peer is not None
        assert peer.session is not None
        assert peer.session.seal is not None
        return peer.session.seal

    def tick(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += 1
            for prefix, machine in self.machines.items():
                self.carry(prefix, machine.retry(self.now))


@pytest.fixture
def world() -> SealedWorld:
    world = SealedWorld()
    world.ours(A)
    world.ours(B)
    return world


def log(text: str) -> bytes:
    return bytes([Code.LOG]) + text.encode()


def heard(world: World, prefix: Prefix) -> list[bytes]:
    return [message.payload for message in world.messages(prefix, Code.LOG)]


def test_messages_between_nodes_of_ours_are_sealed_in_both_directions(world: SealedWorld) -> None:
    seen: list[bytes] = []
    world.send(A, B, log("the first"))
    world.lose = lambda _to, data: bool(seen.append(data))  # type: ignore[func-returns-value]
    for sender, receiver in ((A, B), (B, A), (A, B)):
        assert world.send(sender, receiver, log("a secret")) == 2
        assert world.seal(sender, receiver).confirmed
        assert world.seal(sender, receiver).names == KNOWN
    assert heard(world, B)[-1] == heard(world, A)[-1] == b"a secret"
    assert len(seen) == len(set(seen)) == 6
    assert all(int.from_bytes(data[:4]) & SEALED and b"secret" not in data for data in seen)
    assert world.refused == []


def test_older_peers_see_the_protocol_that_they_know(world: SealedWorld) -> None:
    for older, greets in ((Prefix(7, 16), True), (Prefix(8, 16), False)):
        world.add(older)
        one, other = (older, A) if greets else (A, older)
        world.send(one, other, log("one"))
        world.tick(60)
        world.send(other, one, log("other"))
        assert world.connected(A, older)
        assert not world.seal(A, older).active
        offers = [m for m in world.told[older] if isinstance(m, Message) and m.code == Code.OFFER]
        assert len(offers) in (0, 1 + len(seals.ASK_AGAIN)), "asked a few times, or not at all"
    assert world.refused == []


def test_a_later_protocol_that_is_not_ours_is_spoken_to_as_deployed_software(world: SealedWorld) -> None:
    """Nothing is assumed of a node that says 11; it acknowledges what it does not know."""
    future = Prefix(9, 16)
    certificate = PlayCertificate(future, 10)
    world.machines[future] = Sessions(NETWORK, PlayCrypto(certificate), 11, b"\0", lambda: next(world.secrets))
    world.told[future] = []
    world.send(A, future, log("hello"))
    world.tick(30)
    world.send(future, A, log("back"))
    assert (heard(world, future), heard(world, A)) == ([b"hello"], [b"back"])
    assert not world.seal(A, future).active
    assert world.seal(A, future).names == frozenset()


def test_what_each_peer_announced_is_known_and_a_session_can_be_begun_anew(world: SealedWorld) -> None:
    older = Prefix(7, 16)
    world.add(older)
    for peer in (B, older):
        world.send(A, peer, log("one"))
    world.tick(30)
    announced = world.machines[A].announced()
    assert announced[B].names == KNOWN
    assert announced[older].names is None
    assert world.machines[B].announced()[A].names == KNOWN, "of who asked and of who answered"
    world.carry(A, world.machines[A].begin_anew(older, world.now))
    world.tick(5)
    assert world.machines[A].announced()[older].since > announced[older].since
    assert world.machines[A].begin_anew(Prefix(99, 16), world.now) == [], "nobody knows that one"
    world.send(older, A, log("two"))
    assert heard(world, A) == [b"two"]


def test_a_peer_of_ours_that_does_not_seal_says_what_it_can_do(
    world: SealedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "KNOWN", frozenset({"babel-hello"}))
    world.ours(B)
    world.send(A, B, log("one"))
    assert world.seal(A, B).names == world.seal(B, A).names == {"babel-hello"}
    assert not world.seal(A, B).active
    assert world.send(B, A, log("two")) == 2
    assert world.connected(A, B)


@pytest.mark.parametrize("lost", range(10))
def test_whichever_datagram_is_lost_the_session_works_and_is_sealed(lost: int) -> None:
    world = SealedWorld()
    world.ours(A)
    world.ours(B)
    count = iter(range(1000))
    world.lose = lambda _to, _data: next(count) == lost
    world.send(A, B, log("one"))
    world.tick(4)
    world.send(B, A, log("two"))
    world.send(A, B, log("three"))
    world.tick(int(MESSAGE_TIMEOUT) + 5)
    world.send(B, A, log("four"))
    world.send(A, B, log("five"))
    assert heard(world, B)[-1] == b"five"
    assert heard(world, A)[-1] == b"four"
    assert world.seal(A, B).confirmed
    assert world.seal(B, A).confirmed


def test_nothing_unsealed_is_taken_where_messages_are_sealed(world: SealedWorld) -> None:
    """Not from somebody who has the keys of the certificates, and so the secret with which the session began."""
    world.send(A, B, log("one"))
    world.send(A, B, log("two"))
    peer = world.machines[B].peer(A)
    assert peer is not None
    assert peer.session is not None
    forged = encode_data(1000, log("forged"), peer.session.secret)
    with pytest.raises(WireError, match="not sealed"):
        world.machines[B].receive(source(A), forged, world.now)
    assert b"forged" not in heard(world, B)


def test_sealed_messages_cannot_be_repeated_reflected_or_changed(world: SealedWorld) -> None:
    world.send(A, B, log("one"))
    (sent,) = world.machines[A].send(B, log("two"), world.now)
    assert isinstance(sent, Datagram)
    world.carry(A, [sent])
    changed = sent.data[:-1] + bytes([sent.data[-1] ^ 1])
    later = (int.from_bytes(sent.data[:4]) + 5).to_bytes(4) + sent.data[4:]
    for receiver, origin, data in ((B, A, sent.data), (A, B, sent.data), (B, A, changed), (B, A, later)):
        with pytest.raises(WireError, match="repeated or late"):
            world.machines[receiver].receive(source(origin), data, world.now)
    assert heard(world, B).count(b"two") == 1


@pytest.mark.parametrize("byte", [4, 40, 80, -40])
def test_who_knows_the_secret_but_has_no_key_of_a_node_cannot_put_himself_between(
    world: SealedWorld, byte: int
) -> None:
    """The offers are signed: changed ones are not taken, and the session stays as it began."""
    offers: list[Datagram] = []
    first = world.machines[A].ensure(B, world.now)
    secret_of = world.machines[A]

    def change(_to: Prefix, data: bytes) -> bool:
        packet = decode(data)
        if isinstance(packet, Sealed) or data[4:5] != bytes([Code.OFFER]):
            return False
        peer = secret_of.peer(B)
        assert peer is not None
        session = peer.session or peer.offered
        assert session is not None
        body = bytearray(data[4:-MAC_LENGTH])
        body[byte] ^= 1
        offers.append(Datagram(*source(_to), encode_data(int.from_bytes(data[:4]), bytes(body), session.secret)))
        return True

    world.lose = change
    world.carry(A, first)
    assert offers
    world.lose = lambda _to, _data: False
    receiver = A if offers[0].address == source(A)[0] else B
    outputs = world.machines[receiver].receive(source(B if receiver == A else A), offers[0].data, world.now)
    assert not any(isinstance(output, Message) for output in outputs)
    assert not world.seal(receiver, B if receiver == A else A).active
    assert world.seal(receiver, B if receiver == A else A).names == frozenset()


def test_keys_are_replaced_after_a_day(world: SealedWorld) -> None:
    world.send(A, B, log("one"))
    before = world.seal(A, B)
    world.now += LIFE + 1
    world.send(A, B, log("two"))
    assert world.seal(A, B) is not before
    assert world.seal(A, B).active
    assert world.seal(B, A).active
    assert heard(world, B) == [b"one", b"two"]


def test_each_offer_is_signed_once_in_a_session(world: SealedWorld) -> None:
    sealer = PlaySealer(PlayCertificate(A, 1))
    seal = Seal(sealer, b"own", b"peer", asks=True, now=0.0)
    assert seal.offer() == seal.offer()
    assert sealer.signed == 1


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "deliver", "deliver", "deliver", "drop", "double", "restart", "wait"]),
        st.booleans(),
        st.integers(0, 1 << 16),
    ),
    max_size=60,
)


@given(ACTIONS)
@settings(max_examples=300)
def test_after_any_trouble_the_two_agree_again(actions: list[tuple[str, bool, int]]) -> None:
    """Loss, doubling, any order, restarts, both greeting at once: a message comes once at most, in the end it does."""
    world = SealedWorld()
    world.ours(A)
    world.ours(B)
    way: list[tuple[Prefix, Prefix, Datagram]] = []

    def put(sender: Prefix, outputs: list[object]) -> None:
        for output in outputs:
            if isinstance(output, Datagram):
                way.append((sender, B if sender == A else A, output))
            elif isinstance(output, Message):
                world.told[sender].append(output)
                put(sender, list(world.machines[sender].answer(output, None, world.now)))

    def deliver(number: int, *, keep: bool = False) -> None:
        sender, receiver, datagram = way[number % len(way)] if keep else way.pop(number % len(way))
        try:
            outputs = world.machines[receiver].receive(source(sender), datagram.data, world.now)
        except WireError:
            return
        put(receiver, list(outputs))

    for count, (action, which, number) in enumerate(actions):
        one, other = (A, B) if which else (B, A)
        match action:
            case "send":
                put(one, list(world.machines[one].send(other, log(f"{one} {count}"), world.now)))
            case "deliver" if way:
                deliver(number)
            case "double" if way:
                deliver(number, keep=True)
            case "drop" if way:
                way.pop(number % len(way))
            case "restart":
                world.ours(one)
            case "wait":
                world.now += number % 7
                for machine in (A, B):
                    put(machine, list(world.machines[machine].retry(world.now)))
    # From now on nothing is lost, and both have something to say.
    for second in range(30):
        for one, other in ((A, B), (B, A)):
            put(one, list(world.machines[one].send(other, log(f"{one} again {second}"), world.now)))
        while way:
            deliver(0)
        world.now += 1
        for machine in (A, B):
            put(machine, list(world.machines[machine].retry(world.now)))
    for one, other in ((A, B), (B, A)):
        assert f"{other} again 29".encode() in heard(world, one)
        assert max(Counter(heard(world, one)).values()) == 1
    assert world.connected(A, B)
    assert world.seal(A, B).active == world.seal(B, A).active


def test_with_the_real_keys_of_certificates(
    nodes: dict[str, cert.Identity], when: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from re6st.noded.peer_socket import NodeCrypto

    crypto = {prefix: NodeCrypto(nodes[prefix.cn], frozenset) for prefix in (A, B)}
    one = Seal(crypto[A], nodes["0/16"].der, nodes["1/16"].der, asks=True, now=0.0)
    other = Seal(crypto[B], nodes["1/16"].der, nodes["0/16"].der, asks=False, now=0.0)
    other.take(one.offer())
    assert not other.active
    one.take(other.offer())
    assert one.active
    packet = decode(one.seal(b"\7hello"))
    assert isinstance(packet, Sealed)
    assert other.open(packet) == b"\7hello"
    assert other.active
    back = decode(other.seal(b""))
    assert isinstance(back, Sealed)
    assert one.open(back) == b""
    assert one.names == other.names == KNOWN
    assert extensions.text(one.names).split() == sorted(KNOWN)


def renewed(world: SealedWorld, prefix: Prefix, serial: int) -> None:
    """A machine goes on with another certificate; others see that in its next session."""
    certificate, machine = PlayCertificate(prefix, serial), world.machines[prefix]
    machine.crypto, machine._sealer = PlayCrypto(certificate), PlaySealer(certificate)


def test_it_is_told_once_in_each_session_that_a_peer_has_said_what_it_can_do(world: SealedWorld) -> None:
    def told(prefix: Prefix) -> int:
        return sum(output == AbilitiesTold(other) for output in world.told[prefix] for other in (A, B))

    world.send(A, B, log("one"))
    for prefix in (A, B):
        assert told(prefix) == 1
        known = world.machines[prefix].peer(B if prefix == A else A)
        assert known is not None
        assert world.seal(prefix, known.prefix).names == KNOWN
    world.tick(30)
    world.send(B, A, log("two"))
    assert told(A) == told(B) == 1
    world.carry(A, world.machines[A].begin_anew(B, world.now))
    world.tick(5)
    assert told(A) == told(B) == 2


def shown(world: SealedWorld) -> Peer:
    """B as A sees it, which has a session by one certificate (2), and to which another one (77) was shown."""
    world.send(B, A, log("one"))
    certificate = PlayCertificate(B, 77)
    world.machines[A].receive(source(B), encode_hello0(Hello0(certificate.der)), world.now)
    known = world.machines[A].peer(B)
    assert known is not None
    assert known.certificate == certificate
    assert known.proved == PlayCertificate(B, 2)
    return known


@pytest.mark.parametrize("revoked", [{2}, {2, 77}])
def test_who_shows_a_certificate_does_not_hide_the_one_by_which_its_session_was_made(
    world: SealedWorld, revoked: set[int]
) -> None:
    """Anybody may show one that was seen on the wire: the session shows which key a peer has."""
    shown(world)
    assert world.machines[A].forget(frozenset(revoked)) == [B]
    assert world.machines[A].peer(B) is None


def test_a_certificate_that_was_only_shown_ends_no_session_when_it_is_revoked(world: SealedWorld) -> None:
    known = shown(world)
    assert world.machines[A].forget(frozenset({77})) == []
    assert known.certificate == known.proved == PlayCertificate(B, 2)
    world.send(B, A, log("two"))
    world.send(A, B, log("three"))
    assert [len(world.messages(prefix, Code.LOG)) for prefix in (A, B)] == [2, 1]


def test_a_peer_without_a_session_is_forgotten_with_what_it_showed(world: SealedWorld) -> None:
    world.machines[A].receive(source(B), encode_hello0(Hello0(PlayCertificate(B, 77).der)), world.now)
    assert world.machines[A].forget(frozenset({77})) == [B]
    assert world.machines[A].peer(B) is None


def test_a_peer_that_renewed_its_certificate_has_proved_it_by_the_next_session(world: SealedWorld) -> None:
    world.send(B, A, log("one"))
    renewed(world, B, 77)
    world.carry(B, world.machines[B].begin_anew(A, world.now))
    world.tick(5)
    known = world.machines[A].peer(B)
    assert known is not None
    assert known.proved == PlayCertificate(B, 77)
    assert world.machines[A].forget(frozenset({2})) == []
    assert world.machines[A].forget(frozenset({77})) == [B]
