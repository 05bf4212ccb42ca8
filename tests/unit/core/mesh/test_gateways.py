"""By which gateway a peer is reached: the choice, and the routes that follow from it (wire.md 10.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.mesh.gateways import BAD_TIME, REMEMBERED, Gateways
from re6st.core.tunnel_protocols import SERVED
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.kernel import KernelError
from re6st.noded.remote_gateway import RemoteGateways

A, B = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
PEERS = [IPv4Address(f"198.51.100.{n}") for n in range(1, 7)]
P, Q, R = PEERS[:3]


def use(gateways: Gateways, ip: IPv4Address, now: float = 0.0) -> IPv4Address | None:
    gateway = next(iter(gateways.candidates(ip, now)), None)
    gateways.take(ip)
    if gateway:
        gateways.choose(ip, gateway)
    return gateway


def test_gateways_take_turns() -> None:
    gateways = Gateways([A, B])
    assert [use(gateways, ip) for ip in PEERS] == [A, B] * 3
    assert gateways
    assert not Gateways([])


def test_an_address_has_one_route_until_its_last_user_leaves() -> None:
    gateways = Gateways([A, B])
    assert use(gateways, P) == A
    assert use(gateways, P) is None
    assert gateways.release(P) is None
    assert gateways.release(P) == A
    assert gateways.release(P) is None


def test_the_way_to_a_client_is_left_as_it_is() -> None:
    gateways = Gateways([A, B])
    gateways.take(P)
    assert use(gateways, P) is None
    assert gateways.release(P) is gateways.release(P) is None


def test_who_comes_back_goes_another_way() -> None:
    gateways = Gateways([A, B])
    for expected in (A, B, A):
        assert use(gateways, P) == expected
        gateways.release(P)


def test_a_gateway_that_reaches_nobody_comes_last_for_a_while() -> None:
    gateways = Gateways([A, B])
    assert use(gateways, P, 10) == A
    gateways.tried(P, 10, reached=False)
    assert [use(gateways, ip, 11) for ip in (Q, R)] == [B, B]
    assert gateways.candidates(PEERS[3], 12) == [B, A], "but it is tried if the other cannot be used"
    assert gateways.candidates(PEERS[3], 11 + BAD_TIME)[0] == A
    gateways.tried(P, 12, reached=True)
    assert gateways.candidates(PEERS[3], 13)[0] == A


def test_memory_is_bounded() -> None:
    gateways = Gateways([A, B])
    for number in range(2 * REMEMBERED):
        ip = IPv4Address(0x0A000000 + number)
        use(gateways, ip)
        gateways.release(ip)
    assert len(gateways._last) == REMEMBERED


# --- routes ---


class FakeKernel:
    """Has routes, and gateways that are not there."""

    def __init__(self) -> None:
        self.routes: dict[IPv4Address, IPv4Address] = {}
        self.unreachable: set[IPv4Address] = set()

    def gateways(self) -> dict[IPv4Address, IPv4Address]:
        return dict(self.routes)

    async def add_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        await asyncio.sleep(0)
        if gateway in self.unreachable or ip in self.routes:
            raise KernelError(f"cannot reach {ip} by the gateway {gateway}")
        self.routes[ip] = gateway

    async def delete_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        await asyncio.sleep(0)
        assert self.routes.pop(ip) == gateway


def endpoints(*hosts: object) -> list[Endpoint]:
    return [Endpoint(str(host), 1194, protocol) for host in hosts for protocol in SERVED[:2]]


def run(act: Callable[[RemoteGateways, FakeKernel], Coroutine[Any, Any, None]], *gateways: IPv4Address) -> None:
    kernel = FakeKernel()

    async def main() -> None:
        await act(RemoteGateways(kernel, gateways), kernel)

    asyncio.run(main())


def test_routes_are_there_while_a_tunnel_needs_them() -> None:
    async def act(remote: RemoteGateways, kernel: FakeKernel) -> None:
        async with remote.towards(endpoints(P, "a.example.org", "2001:db8::1", Q)):
            assert kernel.routes == {P: A, Q: B}
            assert (remote.uplink(str(P)), remote.uplink(str(Q)), remote.uplink(str(R))) == (A, B, None)
            async with remote.towards(endpoints(Q, R)):
                assert kernel.routes == {P: A, Q: B, R: A}
            assert kernel.routes == {P: A, Q: B}
        assert not kernel.routes

    run(act, A, B)


def test_without_gateways_nothing_is_touched() -> None:
    async def act(remote: RemoteGateways, kernel: FakeKernel) -> None:
        remote.hold(str(P))
        async with remote.towards(endpoints(P)):
            remote.reached(str(P))
            remote.missed(endpoints(P))
            assert not kernel.routes
        remote.let_go(str(P))

    run(act)


def test_another_gateway_is_used_where_one_cannot_be(caplog: pytest.LogCaptureFixture) -> None:
    async def act(remote: RemoteGateways, kernel: FakeKernel) -> None:
        kernel.unreachable.add(A)
        async with remote.towards(endpoints(P, Q)):
            assert kernel.routes == {P: B, Q: B}
        kernel.unreachable.add(B)
        async with remote.towards(endpoints(P)):
            assert not kernel.routes, "its usual way is left"
        assert f"cannot reach {P} by the gateway {B}" in caplog.text

    run(act, A, B)


def test_a_client_keeps_its_way_and_the_route_goes_with_it() -> None:
    async def act(remote: RemoteGateways, kernel: FakeKernel) -> None:
        remote.hold(f"::ffff:{P}")
        async with remote.towards(endpoints(P, Q)):
            assert kernel.routes == {Q: A}
            remote.hold(str(Q))
        assert kernel.routes == {Q: A}, "the client is still there"
        remote.let_go(str(Q))
        remote.let_go(str(P))
        async with remote.towards(endpoints(R)):
            assert kernel.routes.keys() == {R}

    run(act, A, B)


@given(
    st.lists(st.tuples(st.sampled_from(PEERS[:3]), st.sampled_from(["hold", "let go", "tunnel", "miss"])), max_size=30)
)
def test_no_route_is_left_whatever_happens(events: list[tuple[IPv4Address, str]]) -> None:
    async def act(remote: RemoteGateways, kernel: FakeKernel) -> None:
        held: list[IPv4Address] = []
        stop = asyncio.Event()

        async def tunnel(ip: IPv4Address) -> None:
            async with remote.towards(endpoints(ip)):
                await stop.wait()

        async with asyncio.TaskGroup() as group:
            for ip, what in events:
                if what == "hold":
                    held.append(ip)
                    remote.hold(str(ip))
                elif what == "let go" and ip in held:
                    held.remove(ip)
                    remote.let_go(str(ip))
                elif what == "tunnel":
                    group.create_task(tunnel(ip))
                    await asyncio.sleep(0)
                elif what == "miss":
                    remote.missed(endpoints(ip))
            stop.set()
        for ip in held:
            remote.let_go(str(ip))
        async with remote.towards(endpoints("203.0.113.1")):
            pass
        assert not kernel.routes

    run(act, A, B)
