"""The driver of the mesh policy: what it decides is done, in order, and nothing more once the node leaves."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

import pytest

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.telemetry.event_log import EventLog
from re6st.core.wire.datagrams import Code, Endpoint, parse_addresses
from re6st.noded.mesh_driver import MeshDriver
from re6st.sim.engine import Engine

A, B = Prefix.from_cn("1/16"), Prefix.from_cn("2/16")
PLACE = tuple(parse_addresses("192.0.2.1,1194,udp"))
HOP = NextHop(IPv6Address("fe80::1"), "re6stnet-tcp")


class Tunnel:
    """As much of the policy's as the driver reads."""

    interface = "re6stnet1"

    def __init__(self, met: bool) -> None:
        self.met = met


class Decided:
    """A policy that decides what a test says."""

    connected = True

    def __init__(self) -> None:
        self.tunnels = {A: Tunnel(met=False), B: Tunnel(met=True)}
        self.actions: list[policy.Action] = []

    def handle(self, event: policy.Event, now: float) -> list[policy.Action]:
        return self.actions

    def tick(self, now: float) -> list[policy.Action]:
        return self.actions


class Done:
    """Tunnels and peers that note what they were told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.then: Callable[[], None] = lambda: None

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self.then()

    def open(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        self._note("open", peer, endpoints)

    def close(self, peer: Prefix, *, lost: bool = False) -> None:
        self._note("close", peer)

    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._note("drain", interface, neighbour)

    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._note("undrain", interface, neighbour)

    def avoid(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._note("avoid", interface, neighbour)

    def trust(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._note("trust", interface, neighbour)

    def ask_first_peer(self) -> None:
        self._note("first peer")

    def doubt(self) -> None:
        self._note("doubted")

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        self._note("send", peer, Code(code))

    def ensure(self, peer: Prefix) -> None:
        self._note("ensure", peer)


@pytest.fixture
def mesh() -> Decided:
    return Decided()


@pytest.fixture
def done() -> Done:
    return Done()


@pytest.fixture
def driver(mesh: Decided, done: Done) -> MeshDriver:
    made = MeshDriver(mesh, EventLog(lambda: ""), Engine(0.0))  # type: ignore[arg-type]
    made.start(done, done, done)
    return made


@pytest.mark.parametrize(
    ("action", "calls"),
    [
        (policy.OpenTunnel(A, PLACE), [("open", A, PLACE)]),
        (policy.CloseTunnel(A, "it did not come up"), [("doubted",), ("close", A)]),
        (policy.CloseTunnel(B, "it is not needed"), [("close", B)]),
        (policy.DrainTunnel(B, "another one is better"), [("drain", "re6stnet1", None)]),
        (policy.UndrainTunnel(B), [("undrain", "re6stnet1", None)]),
        (policy.DrainClient(A, HOP), [("drain", HOP.interface, HOP.address)]),
        (policy.UndrainClient(A, HOP), [("undrain", HOP.interface, HOP.address)]),
        (policy.AvoidLink(A, HOP), [("avoid", HOP.interface, HOP.address)]),
        (policy.TrustLink(A, HOP), [("trust", HOP.interface, HOP.address)]),
        (policy.AskAddress(A), [("send", A, Code.ADDRESS)]),
        (policy.AskBootstrap(), [("first peer",)]),
        (policy.AskClose(A), [("send", A, Code.ASK_CLOSE)]),
        (policy.AllowClose(A), [("send", A, Code.ALLOW_CLOSE)]),
        (policy.EnsureSession(A), [("ensure", A)]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_what_is_decided_is_done(
    driver: MeshDriver, mesh: Decided, done: Done, action: policy.Action, calls: list[tuple[Any, ...]]
) -> None:
    mesh.actions = [action]
    driver.tick()
    assert done.calls == calls
    driver.event(policy.UplinkUp())
    assert done.calls == calls * 2


def test_nothing_is_begun_once_the_node_leaves(driver: MeshDriver, mesh: Decided, done: Done) -> None:
    mesh.actions = [policy.CloseTunnel(B, "the end"), policy.OpenTunnel(A, PLACE)]
    done.then = driver.stop  # as when the first one ends the node
    driver.tick()
    assert done.calls == [("close", B)]
    driver.event(policy.UplinkUp())
    assert done.calls == [("close", B)]


def test_what_happens_before_the_start_is_told_then(mesh: Decided, done: Done) -> None:
    driver = MeshDriver(mesh, EventLog(lambda: ""), Engine(0.0))  # type: ignore[arg-type]
    mesh.actions = [policy.AskAddress(A)]
    driver.event(policy.UplinkUp())
    driver.tick()
    assert done.calls == []
    driver.start(done, done, done)
    assert done.calls == [("send", A, Code.ADDRESS)]


def test_what_is_decided_is_done_in_the_order_in_which_it_was_decided(
    driver: MeshDriver, mesh: Decided, done: Done
) -> None:
    """As when opening one tunnel fails at once, and the policy then keeps another one that it has just given up."""

    def fail() -> None:
        done.then, mesh.actions = lambda: None, [policy.UndrainTunnel(B)]
        driver.event(policy.TunnelDown(A))

    mesh.actions, done.then = [policy.OpenTunnel(A, PLACE), policy.DrainTunnel(B)], fail
    driver.tick()
    assert [call[0] for call in done.calls] == ["open", "drain", "undrain"]
