"""What a node does on messages, and how often it lets others make it do so (wire.md 6.5)."""

from __future__ import annotations

import random
from ipaddress import IPv6Network, ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from re6st.core.mesh import policy as mesh
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.peer_messages import VERSION_LIMIT, MessageHandler

A, B, C = Prefix(0, 16), Prefix(1, 16), Prefix(2, 16)


class PlayUpdates:
    def __init__(self, registry: Prefix) -> None:
        self.parameters = SimpleNamespace(registry_prefix=registry, version=b"\1")
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1

    def hear(self, version: bytes) -> bytes | None:
        return None


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr("re6st.noded.peer_messages.time.monotonic", lambda: clock[0])
    return clock


def node(
    own: Prefix, registry: Prefix, own_addresses: OwnAddresses | None = None
) -> tuple[MessageHandler, PlayUpdates]:
    settings = mesh.Settings(own=own, registry=registry, client_count=2, tunnel_refresh=300, close_time=12)
    known: dict[Prefix, tuple[Endpoint, ...]] = {}
    policy = mesh.Mesh(settings, known, random.Random(1))
    updates = PlayUpdates(registry)
    sessions = SimpleNamespace(peer=lambda prefix: None)
    made = MessageHandler(
        policy,
        cast(Any, updates),
        own_addresses or OwnAddresses([]),
        cast(Any, sessions),
        lambda event: None,
        known.__setitem__,
    )
    return made, updates


def test_of_a_version_only_what_can_be_one_is_remembered(now: list[float]) -> None:
    made, _ = node(own=A, registry=B)
    peer = SimpleNamespace(version=b"")
    made._sessions = cast(Any, SimpleNamespace(peer=lambda prefix: peer))
    made.answer(C, Code.VERSION, b"\xff" * 8000)
    assert len(peer.version) <= VERSION_LIMIT


def test_an_address_inside_the_network_is_not_remembered(now: list[float]) -> None:
    made, _ = node(A, B, OwnAddresses([], network=IPv6Network("2001:db8:42::/48")))
    told: list[str] = []
    made._remember = lambda peer, endpoints: told.extend(endpoint.host for endpoint in endpoints)
    made.answer(C, Code.ADDRESS, b"2001:db8:42:1::1,1,tcp6;127.0.0.1,2,tcp;192.0.2.1,3,tcp;localhost,4,udp")
    assert told == ["192.0.2.1"]


def test_any_program_may_have_a_node_ask_the_registry_once_in_a_while(now: list[float]) -> None:
    made, updates = node(own=A, registry=B)
    for _ in range(600):
        now[0] += 1
        made.answer(None, Code.VERSION, b"")
    assert 5 <= updates.refreshed <= 12


def test_the_registry_beside_its_node_is_always_obeyed(now: list[float]) -> None:
    made, updates = node(own=A, registry=A)
    for _ in range(100):
        made.answer(None, Code.VERSION, b"")
    assert updates.refreshed == 100


def test_the_log_of_the_registrys_node_cannot_be_filled_or_forged(
    now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made, _ = node(own=A, registry=A)
    for number in range(1000):
        now[0] += 0.01
        made.answer(B, Code.LOG, f"{number}\n2026 \x1b[2J root logged in".encode())
    made.answer(C, Code.LOG, b"hello")
    words = [record.getMessage() for record in caplog.records]
    assert len(words) < 10
    assert all(word.isprintable() for word in words)
    assert words[-1] == "2/16 says: hello"


INNER = ip_address("192.168.1.5")
OUTSIDE, BOTH = b"8.8.4.4,1194,tcp", b"8.8.4.4,1194,tcp;192.168.1.5,1194,tcp"


@pytest.fixture
def behind(now: list[float]) -> tuple[MessageHandler, OwnAddresses]:
    """A node behind a router that has 8.8.4.4."""
    own = OwnAddresses([(1194, TunnelProtocol.TCP)], local=[INNER], uplinks=[INNER])
    own.learn("8.8.4.4", INNER, "x")
    return node(A, B, own)[0], own


def test_a_peer_behind_our_router_is_told_once_where_we_are_inside(behind: tuple[MessageHandler, OwnAddresses]) -> None:
    """Many routers do not send back inside what is sent to their outer address."""
    made, _ = behind
    assert made.answer(C, Code.ADDRESS, b"") == OUTSIDE
    assert made.answer(C, Code.ADDRESS, OUTSIDE) == BOTH
    assert made.answer(C, Code.ADDRESS, b"8.8.4.4,1194,tcp;192.168.1.6,1194,tcp") is None, "or it would go on for ever"
    assert made.answer(C, Code.ADDRESS, b"") == BOTH


def test_two_behind_one_router_stop_telling_each_other() -> None:
    nodes, said = {}, 0
    for prefix, inner in ((B, "192.168.1.5"), (C, "192.168.1.6")):
        ip = ip_address(inner)
        own = OwnAddresses([(1194, TunnelProtocol.TCP)], local=[ip], uplinks=[ip])
        own.learn("8.8.4.4", ip, "x")
        nodes[prefix] = node(prefix, A, own)[0]
    message: bytes | None = b""
    by, to = B, C
    while message is not None:
        message, by, to, said = nodes[to].answer(by, Code.ADDRESS, message), to, by, said + 1
        assert said < 6
    assert nodes[B].addresses(C) == "8.8.4.4,1194,tcp;192.168.1.5,1194,tcp"
    assert nodes[C].addresses(B) == "8.8.4.4,1194,tcp;192.168.1.6,1194,tcp"


def test_our_private_addresses_are_for_nobody_else(behind: tuple[MessageHandler, OwnAddresses]) -> None:
    made, own = behind
    assert made.answer(C, Code.ADDRESS, b"9.9.9.9,1194,tcp") is None
    assert made.answer(C, Code.ADDRESS, b"192.168.1.5,1194,tcp") is None, "that one says only that it knows them"
    assert made.answer(C, Code.ADDRESS, b"") == OUTSIDE
    made.answer(C, Code.ADDRESS, OUTSIDE)
    assert made.answer(None, Code.ADDRESS, b"") == OUTSIDE, "our registry tells every newcomer"
    assert made.answer(C, Code.ADDRESS, b"", relayed=True) == OUTSIDE, "so does the one beside the peer"
    assert made.answer(C, Code.ADDRESS, b"") == BOTH
    made.answer(C, Code.ADDRESS, b"9.9.9.9,1194,tcp")
    assert made.answer(C, Code.ADDRESS, b"") == OUTSIDE, "it has moved"
    made.answer(C, Code.ADDRESS, OUTSIDE)
    own.moved([ip_address("10.9.0.2")], [ip_address("10.9.0.2")])
    own.learn("9.9.9.1", ip_address("10.9.0.2"), "x")
    assert made.answer(C, Code.ADDRESS, b"") == b"9.9.9.1,1194,tcp", "we have moved"


def test_who_is_seen_as_we_are_by_a_server_that_rewrites_addresses_is_not_behind_our_router(now: list[float]) -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP)], local=[INNER], uplinks=[INNER])
    own.learn("8.8.4.4", INNER, "x")
    own.learn("172.17.0.1", INNER, "y")
    made, _ = node(A, B, own)
    assert made.answer(C, Code.ADDRESS, b"9.9.9.9,1194,tcp;172.17.0.1,1194,tcp") is None


def test_in_a_network_without_routers_nothing_is_told_twice(now: list[float]) -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP)], local=[INNER], uplinks=[INNER])
    made, _ = node(A, B, own)
    assert made.answer(C, Code.ADDRESS, b"") == b"192.168.1.5,1194,tcp"
    assert made.answer(C, Code.ADDRESS, b"192.168.1.6,1194,tcp;192.168.1.5,1194,tcp") is None


def test_what_peers_say_of_lines_is_heard_and_what_the_registry_asks_for_others_is_not(now: list[float]) -> None:
    made, _ = node(own=A, registry=B)
    heard: list[tuple[Prefix, bytes]] = []
    made.about_lines = lambda peer, body: heard.append((peer, body))
    for peer, relayed in ((C, False), (C, True), (None, False)):
        assert made.answer(peer, Code.LINES, b"\3\2", relayed) is None
    assert heard == [(C, b"\3\2")]
