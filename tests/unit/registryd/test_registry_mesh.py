"""First peers, versions and topology, asked from a node beside the registry (wire.md 3.4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any, cast

import pytest

from re6st import cert
from re6st.core.prefix import Prefix, subnet
from re6st.registryd.mesh_view import UNROUTED_LIMIT
from tests.unit.registry_world import A, B, World

NETWORK = IPv6Network("2001:db8:42::/48")


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


# --- the mesh ---


class FakeNode(asyncio.DatagramProtocol):
    """The node beside the registry: knows what each prefix answers to each code."""

    def __init__(self, answers: dict[tuple[Prefix, int], bytes]) -> None:
        self.answers = answers
        self.asked: list[tuple[Prefix, int]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        bits, code = data.split(b"\0", 1)
        key = Prefix.from_bits(bits.decode()), code[0]
        self.asked.append(key)
        if key in self.answers:
            self.transport.sendto(data + self.answers[key], addr)


@asynccontextmanager
async def mesh(world: World, answers: dict[tuple[Prefix, int], bytes], routed: list[Prefix]) -> AsyncIterator[FakeNode]:
    """A local node and its babeld; enter it before the registry serves."""

    async def babeld(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"BABEL 1.0\nok\n")
        await reader.readline()
        for n, prefix in enumerate(routed):
            writer.write(
                f"add route {n:x} prefix {subnet(NETWORK, prefix)} from ::/0 installed yes id 01 metric 96 refmetric 0"
                " via fe80::1 if re6stnet1\n".encode()
            )
        writer.write(b"ok\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    node = FakeNode(answers)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: node, local_addr=("::1", 0))
    world.node = transport.get_extra_info("sockname")[:2]
    server = await asyncio.start_unix_server(babeld, world.control)
    async with server:
        yield node
    transport.close()


def in_mesh(
    world: World,
    answers: dict[tuple[Prefix, int], bytes],
    routed: list[Prefix],
    test: Callable[[World, FakeNode], Awaitable[None]],
) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), mesh(world, answers, routed) as node, world.serve():
            for _ in range(len(routed) + 1):
                await world.enrol()
            await test(world, node)

    asyncio.run(main())


async def bootstrap(world: World, prefix: Prefix, protocol: int = 10) -> str | None:
    answer = await world.in_session(await world.hello(prefix, protocol), "getBootstrapPeer", prefix)
    return cert.decrypt(world.key, answer.body).decode() if answer.status == 200 else None


def test_bootstrap_peers_take_turns_and_are_never_the_caller(world: World) -> None:
    c = Prefix(2, 16)
    answers = {(p, 1): f"10.0.0.{p.value},1194,udp,FR".encode() for p in (A, B, c)}

    async def test(world: World, node: FakeNode) -> None:
        got = {await bootstrap(world, B) for _ in range(12)}
        assert got == {f"{A.bits} 10.0.0.0,1194,udp,FR", f"{c.bits} 10.0.0.2,1194,udp,FR"}
        assert await bootstrap(world, B, protocol=6) in (f"{A.bits} 10.0.0.0,1194,udp", f"{c.bits} 10.0.0.2,1194,udp")
        assert (A, 0) in node.asked, "the first certificate was announced"

    in_mesh(world, answers, [B, c], test)


def test_in_a_network_of_regions_somebody_of_the_callers_own_is_named(world: World) -> None:
    c = Prefix(2, 16)
    answers = {(p, 1): f"10.0.0.{p.value},1194,udp".encode() for p in (A, B, c, Prefix(3, 16))}

    async def test(world: World, node: FakeNode) -> None:
        service = world.registry.parameter_service
        service._configured = replace(service._configured, regions=15)
        await service.start()
        assert {await bootstrap(world, c) for _ in range(6)} == {f"{Prefix(3, 16).bits} 10.0.0.3,1194,udp"}
        assert {await bootstrap(world, B) for _ in range(6)} == {f"{A.bits} 10.0.0.0,1194,udp"}

    in_mesh(world, answers, [B, c, Prefix(1, 15)], test)


def test_the_topology_of_a_network_of_regions_has_the_nodes_of_all(world: World) -> None:
    c, d = Prefix(2, 16), Prefix(3, 16)
    tunnels = {A: b"1 1/16 2/16", B: b"0", c: b"1 3/16", d: b"1 9/16"}
    answers = {(prefix, 5): answer for prefix, answer in tunnels.items()}
    answers |= {(prefix, 4): b"re6st" for prefix in tunnels}

    async def test(world: World, node: FakeNode) -> None:
        service = world.registry.parameter_service
        service._configured = replace(service._configured, regions=15)
        await service.start()
        topology = json.loads((await world.call("topology")).body)
        assert topology[""] == [A.cn, B.cn, c.cn, d.cn]
        assert topology[c.cn] == [A.cn, d.cn]
        assert set(json.loads((await world.call("versions")).body)) == {each.bits for each in tunnels}
        asked = {prefix for prefix, _ in node.asked}
        assert Prefix(1, 15) not in asked, "a region is no node"
        assert Prefix(9, 16) not in asked, "there is no route to its region"

    in_mesh(world, answers, [B, Prefix(1, 15)], test)


def test_a_silent_candidate_costs_a_second_not_the_answer(world: World) -> None:
    async def test(world: World, node: FakeNode) -> None:
        start = asyncio.get_running_loop().time()
        assert [await bootstrap(world, B) for _ in range(3)] == [f"{A.bits} a.b.c,1,tcp"] * 3
        assert asyncio.get_running_loop().time() - start < 30

    in_mesh(world, {(A, 1): b"a.b.c,1,tcp"}, [B, Prefix(2, 16)], test)


def test_answers_under_way_are_finished_when_it_stops(world: World) -> None:
    async def main() -> str | None:
        async with asyncio.timeout(60), mesh(world, {(A, 1): b"a.b.c,1,tcp"}, [B, Prefix(2, 16)]) as node:
            async with world.serve():
                for _ in range(3):
                    await world.enrol()
                asked = len(node.asked)
                answer = asyncio.create_task(bootstrap(world, Prefix(2, 16)))
                while len(node.asked) == asked:
                    await asyncio.sleep(0.01)
            return await answer

    assert asyncio.run(main()) == f"{A.bits} a.b.c,1,tcp"


def test_a_long_address_list_is_cut_to_fit(world: World) -> None:
    addresses = ";".join(f"host{n}.example.com,1194,tcp" for n in range(30)).encode()

    async def test(world: World, node: FakeNode) -> None:
        text = await bootstrap(world, B)
        assert text
        assert 200 < len(text) <= 245
        assert text.startswith(f"{A.bits} host0.example.com,1194,tcp;host1.example.com")
        assert text.endswith(",1194,tcp")

    in_mesh(world, {(A, 1): addresses}, [B], test)


def test_what_nodes_run_and_how_they_are_connected(world: World) -> None:
    answers = {
        (A, 4): b"1.0, Linux",
        (A, 5): b"1 1/16 2/16",
        (B, 5): b"0 0/16 nonsense 99999999/16",
        (A, 1): b"192.0.2.7,1194,udp",
    }

    async def test(world: World, node: FakeNode) -> None:
        versions, topology = await asyncio.gather(world.call("versions"), world.call("topology"))
        assert json.loads(versions.body) == {A.bits: "1.0, Linux", B.bits: None}
        assert json.loads(topology.body) == {
            "0/16": ["1/16"],
            "1/16": [],
            "2/16": ["0/16"],
            "": ["0/16", "1/16"],
        }
        await world.call("addToken", email="a@b.c", token="t")
        got = await world.enrol("t")
        assert (await world.call("getIPv4Information", email="a@b.c")).status == 204, f"{got.subject} is not routed"

    in_mesh(world, answers, [B], test)


def test_invented_names_in_an_answer_are_not_asked_and_fill_no_page(world: World) -> None:
    invented = " ".join(f"{number}/16" for number in range(1000, 3000))
    answers = {(A, 5): b"1 1/16", (B, 5): f"0 0/16 {invented}".encode()}

    async def test(world: World, node: FakeNode) -> None:
        graph = json.loads((await world.call("topology")).body)
        assert graph[""] == ["0/16", "1/16"]
        assert len(graph) <= 3 + UNROUTED_LIMIT
        assert {prefix for prefix, code in node.asked if code == 5} == {A, B}

    in_mesh(world, answers, [B], test)
