"""Port 326 without a network: datagrams in, datagrams out, the relay for the registry (wire.md 6 and 7)."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from typing import cast

import pytest
from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix, address, control_address
from re6st.core.wire.datagrams import DATAGRAM_LIMIT, PORT, RELAYED, Code, Hello0, WireError, encode_hello0
from re6st.core.wire.relay import EACH_CODE, TABLE_SIZE, Relay
from re6st.linux.datagrams import DatagramSocket, tell_destinations
from re6st.linux.local_programs import NOBODY, PortOwners
from re6st.noded import peer_socket
from re6st.noded.peer_socket import NodeCrypto, Peers, PortInUse, new_secret, sessions_with

NETWORK = IPv6Network("2001:db8:42::/48")
A, B = Prefix(0, 16), Prefix(1, 16)
LOCAL = ("::1", 40000)


class Wire:
    """The transport of one `Peers`: delivers at once to the others, keeps what goes to this machine."""

    def __init__(self, own: Prefix, everybody: dict[str, Peers]) -> None:
        self._own, self._everybody = own, everybody
        self.local: list[bytes] = []
        self.count = 0
        self.closing = False

    def sendto(self, data: bytes, to: tuple[str, int]) -> None:
        self.count += 1
        assert self.count < 500, "an endless exchange"
        if to[0] == "::1":
            self.local.append(data)
        elif receiver := self._everybody.get(to[0]):
            receiver.receive(data, (str(address(NETWORK, self._own)), PORT))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


class Place:
    """Two nodes with real keys, joined."""

    def __init__(self, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> None:
        now = datetime.now(UTC)
        ca = cert.new_ca(authority.key, NETWORK, "re6st.example.com", "x@example.com", now - timedelta(days=1))
        self.authority = cert.Authority(ca, authority.key)
        self.keys = {A: nodes["0/16"].key, B: nodes["1/16"].key}
        self.revoked: frozenset[int] = frozenset()
        self.routed = {A, B}
        self.peers: dict[Prefix, Peers] = {}
        self.heard: dict[Prefix, list[tuple[Prefix | None, int, bytes]]] = {A: [], B: []}
        self.relayed: dict[Prefix, list[int]] = {A: [], B: []}
        """The codes that somebody asked for the registry on its machine."""
        self.answers: dict[int, bytes] = {}
        self.wires: dict[Prefix, Wire] = {}
        everybody: dict[str, Peers] = {}
        for prefix in (A, B):
            crypto = NodeCrypto(self.identity(prefix), lambda: self.revoked)
            made = Peers(sessions_with(crypto, NETWORK, b"\0", self), prefix, self, partial(self._hear, prefix))
            self.peers[prefix] = made
            everybody[str(address(NETWORK, prefix))] = everybody[str(control_address(NETWORK, prefix))] = made
            self.wires[prefix] = Wire(prefix, everybody)
            made.use(self.wires[prefix])

    def is_routed(self, peer: Prefix) -> bool:
        return peer in self.routed

    def lacks_extension(self, peer: Prefix) -> bool:
        return False

    def identity(self, prefix: Prefix, serial: int | None = None, ends: timedelta = timedelta(days=9)) -> cert.Identity:
        key, now = self.keys[prefix], datetime.now(UTC)
        number = prefix.value + 10 if serial is None else serial
        subject = cert.subject_for(x509.Name([]), number, prefix)
        own = self.authority.issue(subject, key.public_key(), number, now - timedelta(days=5), now + ends)
        return cert.Identity(self.authority.trust, own, key)

    def _hear(self, prefix: Prefix, peer: Prefix | None, code: int, payload: bytes, relayed: bool) -> bytes | None:
        self.heard[prefix].append((peer, code, payload))
        if relayed:
            self.relayed[prefix].append(code)
        return self.answers.get(code) if not payload else None

    def codes(self, prefix: Prefix, code: Code) -> list[tuple[Prefix | None, bytes]]:
        return [(peer, payload) for peer, number, payload in self.heard[prefix] if number == code]


@pytest.fixture
def place(authority: cert.Authority, nodes: dict[str, cert.Identity]) -> Place:
    return Place(authority, nodes)


def test_two_nodes_talk(place: Place) -> None:
    place.answers[Code.ADDRESS] = b"192.0.2.1,1194,tcp"
    place.peers[A].send(B, Code.ADDRESS)
    assert place.codes(B, Code.ADDRESS) == [(A, b"")]
    assert place.codes(A, Code.ADDRESS) == [(B, b"192.0.2.1,1194,tcp")]
    assert place.peers[A].connected(B)
    place.peers[A].ensure(B)
    place.peers[A].tick()


@pytest.mark.parametrize("what", ["revoked", "expired", "of another network", "of another's key"])
def test_a_peers_bad_certificate(
    place: Place, nodes: dict[str, cert.Identity], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    bad = place.identity(A)
    if what == "revoked":
        place.revoked = frozenset({10})
    elif what == "expired":
        bad = place.identity(A, ends=timedelta(days=-1))
    elif what == "of another network":
        other = cert.Authority(
            cert.new_ca(nodes["0/16"].key, NETWORK, "evil", "x@example.com", datetime.now(UTC)), nodes["0/16"].key
        )
        place.authority = other
        bad = place.identity(A)
    crypto = cast(NodeCrypto, place.peers[A].sessions.crypto)
    if what != "of another's key":
        crypto.use(bad)
    else:
        crypto.der = place.identity(B).der
    place.peers[A].send(B, Code.ADDRESS)
    assert place.heard[B] == []
    assert not place.peers[B].connected(A)
    assert "dropped 1 datagram(s), the last from 2001:db8:42:" in caplog.text


def test_new_certificates_are_used_from_then_on(place: Place) -> None:
    place.peers[A].send(B, Code.LOG, b"x")
    renewed = place.identity(A, serial=77)
    crypto = cast(NodeCrypto, place.peers[A].sessions.crypto)
    crypto.use(renewed)
    place.revoked = frozenset({10})
    assert place.peers[B].sessions.forget(place.revoked) == [A]
    place.peers[B].send(A, Code.LOG, b"y")
    known = place.peers[B].sessions.peer(A)
    assert known is not None
    assert known.certificate is not None
    assert known.certificate.serial == 77
    assert place.codes(A, Code.LOG) == [(B, b"y")]


def test_crypto_refuses_in_its_own_words(place: Place) -> None:
    crypto = NodeCrypto(place.identity(A), frozenset)
    for der in (b"", b"\x30\x03abc", place.identity(B).der[:-1]):
        with pytest.raises(WireError, match="certificate"):
            crypto.admit(crypto.read(der))
    for data in (b"", bytes(256), bytes(300)):
        try:
            assert crypto.decrypt(data) != b"secret"  # since OpenSSL 3.2 a wrong padding gives noise
        except WireError:
            pass
    certificate = crypto.read(place.identity(B).der)
    crypto.admit(certificate)
    assert not crypto.verify(certificate, b"", b"data")
    with pytest.raises(WireError):
        crypto.encrypt(certificate, bytes(1000))


def test_random_datagrams_are_dropped_and_the_log_is_not_filled(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(4)
    place.peers[A].send(B, Code.LOG, b"before")
    for _ in range(3000):
        data = chance.randrange(5).to_bytes(4) + chance.randbytes(chance.randrange(700))
        source = chance.choice([str(address(NETWORK, A)), "2001:db8:9::1", "fe80::1%lo", "::1", "nonsense"])
        place.peers[B].receive(data, (source, chance.randrange(65536)))
    place.peers[B].receive(bytes(DATAGRAM_LIMIT + 1), (str(address(NETWORK, A)), PORT))
    assert len([r for r in caplog.records if "dropped" in r.message]) <= 2
    place.peers[A].send(B, Code.LOG, b"after")
    assert place.codes(B, Code.LOG) == [(A, b"before"), (A, b"after")]


def test_secrets_grow_with_time() -> None:
    one = new_secret()
    two = new_secret()
    assert len(one) == len(two) == 20
    assert one[:8] <= two[:8]
    assert one != two


# --- the registry on this machine (wire.md 7) ---


def ask(place: Place, prefix: Prefix | bytes, code: int, source: tuple[str, int] = LOCAL) -> None:
    bits = prefix if isinstance(prefix, bytes) else prefix.bits.encode()
    place.peers[A].receive(bits + bytes((0, code)), source)


def test_a_question_about_ourselves_is_answered_at_once(place: Place) -> None:
    place.answers[Code.TOPOLOGY] = b"0"
    ask(place, A, Code.TOPOLOGY)
    assert place.wires[A].local == [A.bits.encode() + b"\0\x05" + b"0"]
    assert place.heard[A] == [(None, Code.TOPOLOGY, b"")]
    ask(place, A, Code.VERSION)
    assert len(place.wires[A].local) == 1, "there is nothing to say about that"


def test_a_question_about_a_peer_is_relayed(place: Place) -> None:
    place.answers[Code.SOFTWARE] = b"1.0, Linux"
    ask(place, B, Code.SOFTWARE)
    assert place.wires[A].local == [B.bits.encode() + b"\0\x04" + b"1.0, Linux"]
    assert place.heard[A] == [(B, Code.VERSION, b"\0")] or place.heard[A] == []
    place.wires[A].local.clear()
    ask(place, B, Code.ADDRESS)
    assert place.wires[A].local == [], "nothing to answer"
    assert place.relayed == {A: [], B: [Code.SOFTWARE, Code.ADDRESS]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"01",
        b"01\0",
        b"01\0\x04more",
        b"01\0" + bytes([Code.SOFTWARE | RELAYED]),
        b"abc\0\x04",
        b"\xff\xfe\0\x04",
        b"0" * 129 + b"\0\x04",
        b"0" * 128 + b"\0\x04",
        b"0" * 81 + b"\0\x04",
        b"\0\x04",
    ],
    ids=range(12),
)
def test_what_is_no_question_is_dropped(place: Place, data: bytes) -> None:
    place.peers[A].receive(data, LOCAL)
    assert place.wires[A].local == []
    place.answers[Code.SOFTWARE] = b"here"
    ask(place, B, Code.SOFTWARE)
    assert len(place.wires[A].local) == 1


def test_only_this_machine_may_have_something_relayed(place: Place) -> None:
    place.answers[Code.SOFTWARE] = b"1.0"
    ask(place, B, Code.SOFTWARE, (str(address(NETWORK, B)), PORT))
    ask(place, B, Code.SOFTWARE, ("2001:db8:9::1", 5))
    assert place.wires[A].local == []
    assert place.heard[B] == []


@pytest.mark.parametrize("code", [Code.VERSION, Code.ASK_CLOSE, Code.ALLOW_CLOSE, 6, Code.LOG, 8, 127])
def test_nobody_on_this_machine_may_have_peers_do_something(place: Place, code: int) -> None:
    ask(place, B, code)
    assert place.heard[B] == []
    if code != Code.VERSION:
        ask(place, A, code)
        assert place.heard[A] == []


def test_questions_for_names_without_a_route_are_not_relayed(place: Place) -> None:
    for number in range(5000):
        ask(place, Prefix(number + 100, 16), Code.SOFTWARE)
    assert place.wires[A].count == 0
    assert not place.peers[A]._relayed
    place.answers[Code.SOFTWARE] = b"here"
    ask(place, B, Code.SOFTWARE)
    assert len(place.wires[A].local) == 1


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(peer_socket, "_now", lambda: clock[0])
    return clock


def test_what_nobody_answers_leaves_room_for_another_users_questions(place: Place, now: list[float]) -> None:
    """A program asks peers that are routed and silent, by ports of its own; the registry's user is another one."""
    node = place.peers[A]
    ports = "".join(line(port, 1000) for port in range(40000, 40008)) + line(50000, 1001)
    node._owners = PortOwners(lambda: f"head\n{ports}")
    place.routed |= {Prefix(number, 16) for number in range(1000, 3000)}
    place.answers[Code.SOFTWARE] = b"here"
    for number in range(1000, 3000):
        now[0] += 0.0005
        ask(place, Prefix(number, 16), (1, 4, 5)[number % 3], ("::1", 40000 + number % 8))
    assert EACH_CODE < len(node._relayed) <= TABLE_SIZE // 2
    ask(place, B, Code.SOFTWARE, ("::1", 50000))
    assert len(place.wires[A].local) == 1
    now[0] += 3
    place.wires[A].count = 0
    node.tick()
    assert not node._relayed


def test_a_silent_peer_asked_again_and_again_is_forgotten_in_time() -> None:
    relay = Relay()
    assert relay.ask(B, Code.ADDRESS, ("::1", 1), 0, 0.0)
    assert relay.ask(B, Code.ADDRESS, ("::1", 2), 0, 2.9)
    relay.expire(3.1)
    assert relay.answered(B, Code.ADDRESS) is None


def test_the_answer_goes_to_who_asked_last() -> None:
    relay = Relay()
    assert relay.ask(B, Code.ADDRESS, ("::1", 1), 0, 0.0)
    assert relay.ask(B, Code.ADDRESS, ("::1", 2), 0, 0.4)
    assert relay.answered(B, Code.ADDRESS) == ("::1", 2)
    assert relay.answered(B, Code.ADDRESS) is None


def test_one_peer_is_not_asked_without_end_by_one_user() -> None:
    relay = Relay()
    asked = sum(relay.ask(B, Code.SOFTWARE, ("::1", 1), 1000, second / 100) for second in range(1000))
    assert asked < 60
    assert relay.ask(B, Code.SOFTWARE, ("::1", 2), 0, 10.0), "but by another one"


def line(port: int, uid: int, address: str = "0" * 24 + "01000000") -> str:
    return f"  1: {address}:{port:04X} {'0' * 32}:0000 07 0:0 00:0 0 {uid} 0 1 2 0 0\n"


def test_who_asks_is_told_by_the_kernels_table() -> None:
    text = ["head\n" + line(1111, 5) + line(2222, 6, "0" * 32) + line(3333, 7, "F" * 32) + "nonsense\n"]
    owners = PortOwners(lambda: text[0])
    assert [owners.of(port, 1.0) for port in (1111, 2222, 3333, 4444)] == [5, 6, NOBODY, NOBODY]
    text[0] = "head\n" + line(1111, 8)
    assert owners.of(1111, 2.0) == 5
    assert owners.of(1111, 100.0) == 8


def test_the_kernels_table_is_read_a_few_times_a_second_only() -> None:
    reads: list[int] = []

    def read() -> str:
        reads.append(1)
        return "head\n" + line(1, 5)

    owners = PortOwners(read)
    assert owners.of(1, 0.0) == 5
    for port in range(2, 10_000):
        owners.of(port, port / 10_000)
        assert owners.of(1, port / 10_000) == 5
    assert len(reads) <= 31


def test_the_user_of_a_socket_of_this_program_is_found() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.connect(("::1", 9))
        assert PortOwners().of(own.getsockname()[1], 0.0) == os.getuid()


# --- what came how ---


@pytest.mark.parametrize(
    ("destination", "interface", "taken"),
    [
        ("2001:db8:42::", "re6stnet1", True),
        ("2001:db8:42::1", "re6stnet-tcp", True),
        ("2001:db8:42::", "br0", True),
        ("2001:db8:42::", "lo", True),
        ("2001:db8:42::", "eth0", False),
        ("2001:db8:42:1::", "re6stnet1", False),
        ("2606:4700::1", "re6stnet1", False),
        ("2606:4700::1", "eth0", False),
        ("fe80::1", "re6stnet1", False),
        ("ff02::1", "re6stnet1", False),
    ],
)
def test_only_what_was_sent_to_us_by_the_network_is_looked_at(
    place: Place, destination: str, interface: str, taken: bool
) -> None:
    sessions = sessions_with(NodeCrypto(place.identity(A), frozenset), NETWORK, b"\0", place)
    node = Peers(sessions, A, place, lambda *_: None, frozenset({"br0"}))
    wire = Wire(A, {})
    node.use(wire)
    greeting = encode_hello0(Hello0(place.identity(B).der))
    node.arrived(greeting, (str(address(NETWORK, B)), PORT), IPv6Address(destination), interface)
    assert (wire.count, node.dropped) == ((1, 0) if taken else (0, 1))


def test_a_flood_is_read_with_pauses_for_others() -> None:
    async def run() -> None:
        own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        own.setblocking(False)
        tell_destinations(own)
        own.bind(("::1", 0))
        got: list[tuple[bytes, IPv6Address, str]] = []
        reader = DatagramSocket(own, lambda data, source, to, interface: got.append((data, to, interface)))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            for number in range(100):
                sender.sendto(bytes([number]), ("::1", reader.port))
        turns = 0
        async with asyncio.timeout(10):
            while len(got) < 100:
                await asyncio.sleep(0)
                turns += 1
        assert turns >= 3
        assert got[0] == (b"\0", IPv6Address("::1"), "lo")
        reader.close()
        reader.close()
        assert reader.is_closing()

    asyncio.run(run())


# --- the socket itself ---


def test_the_port_is_taken() -> None:
    """Bound by the test to another port that is in use, as 326 needs root."""
    taken = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    taken.bind(("::", 0))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(peer_socket, "PORT", taken.getsockname()[1])
            with pytest.raises(PortInUse, match=r"^udp/\d+: Address already in use\. Is another re6stnet running"):
                peer_socket.control_socket()
    finally:
        taken.close()


def test_it_listens_until_it_is_closed(place: Place) -> None:
    async def run() -> None:
        fresh = Peers(place.peers[A].sessions, A, place, lambda *_: b"here")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(peer_socket, "PORT", 0)
            fresh.open(peer_socket.control_socket())
        assert isinstance(fresh._transport, DatagramSocket)
        port = fresh._transport.port
        asked = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        asked.setblocking(False)
        try:
            asked.connect(("::1", port))
            asked.send(A.bits.encode() + b"\0\x04")
            async with asyncio.timeout(10):
                answer = await asyncio.get_running_loop().sock_recv(asked, 1000)
            assert answer == A.bits.encode() + b"\0\x04here"
        finally:
            asked.close()
            fresh.close()
        fresh.send(B, Code.ADDRESS)
        fresh.close()

    asyncio.run(run())


def test_who_says_and_hears_nothing_has_nothing_to_do_by_the_clock(place: Place, now: list[float]) -> None:
    woken = list[float]()
    node = Peers(place.peers[A].sessions, A, place, lambda *_: None, frozenset(), lambda: woken.append(now[0]))
    node.tick()
    assert node.next_deadline(now[0]) == float("inf")
    node.send(B, Code.VERSION, b"1")
    assert woken == [1000.0]
    node.send(B, Code.VERSION, b"1")
    assert len(woken) == 1, "it is awake"
    assert node.next_deadline(now[0]) == 1000.0 + peer_socket.RETRY_EVERY
    now[0] += peer_socket.LIVELY
    node.tick()
    assert node.next_deadline(now[0]) == float("inf")


def test_a_session_that_is_wanted_is_tried_until_nobody_asks_for_it_any_more(place: Place, now: list[float]) -> None:
    node = Peers(place.peers[A].sessions, A, place, lambda *_: None)
    wire = Wire(A, {})
    node.use(wire)
    node.ensure(B)
    assert wire.count == 1
    for _ in range(60):
        now[0] += 1
        node.tick()
    assert 3 <= wire.count <= 5, "after 1, 2 and 4 seconds"
