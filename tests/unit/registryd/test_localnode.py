"""The registry's questions to the node beside it, and the routes of its babeld (wire.md section 7, 9.5)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import cast

import pytest

from re6st.babeld.binary_socket import serve
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_binary import BinaryRoute, Dump
from re6st.core.routing.told_claims import ToldClaims, read_claims
from re6st.core.wire.datagrams import Code
from re6st.registryd.local_node import LocalNode, read_routes

NETWORK = IPv6Network("2001:db8:42::/48")
A, B, C = (Prefix(n, 16) for n in range(3))


class FakeNode(asyncio.DatagramProtocol):
    """Answers on a port of ::1 as a node does."""

    def __init__(self, reply: Callable[[Prefix, int], list[bytes]]) -> None:
        self.reply = reply
        self.received: list[bytes] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python 3.11's class for it is no subclass of DatagramTransport.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.append(data)
        assert self.transport is not None
        bits, rest = data.split(b"\0", 1)
        for answer in self.reply(Prefix.from_bits(bits.decode()), rest[0]):
            self.transport.sendto(answer, addr)


@asynccontextmanager
async def beside(
    reply: Callable[[Prefix, int], list[bytes]],
    control: Path = Path("/nonexistent"),
    made: type[FakeNode] = FakeNode,
) -> AsyncIterator[LocalNode]:
    """A registry's view of a node that answers like this."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: made(reply), local_addr=("::1", 0))
    host, port = transport.get_extra_info("sockname")[:2]
    node = LocalNode(NETWORK, control, (host, port))
    try:
        yield node
    finally:
        node.close()
        transport.close()


def answer(prefix: Prefix, code: int, text: bytes) -> bytes:
    return prefix.bits.encode() + bytes((0, code)) + text


def test_several_questions_at_once_get_their_own_answers() -> None:
    held: list[bytes] = []

    def reply(prefix: Prefix, code: int) -> list[bytes]:
        # All questions first, then all answers, the last first, with noise between.
        mine = answer(prefix, code, f"{prefix.cn} {code}".encode())
        if mine not in held:
            held.append(mine)
        if len(held) < 3:
            return []
        return [b"", b"\0", b"garbage", b"01x\0\x01y", answer(A, 7, b"?"), *reversed(held)]

    async def run() -> None:
        async with beside(reply) as node:
            questions = [node.ask(A, Code.ADDRESS), node.ask(B, Code.ADDRESS), node.ask(A, Code.SOFTWARE)]
            assert await asyncio.gather(*questions) == [b"0/16 1", b"1/16 1", b"0/16 4"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("relayed", "expected"),
    [(b"b'10.0.0.1,1194,tcp'", b"10.0.0.1,1194,tcp"), (b"b'\\x00'", b"b'\\x00'"), (b"b''", b"b''"), (b"b'", b"b'")],
)
def test_an_answer_relayed_as_python_shows_bytes_is_understood(relayed: bytes, expected: bytes) -> None:
    async def run() -> None:
        async with beside(lambda prefix, code: [answer(prefix, code, relayed)]) as node:
            assert await node.ask(A, Code.ADDRESS) == expected

    asyncio.run(run())


def test_no_answer_is_none_within_the_time() -> None:
    async def run() -> None:
        async with beside(lambda prefix, code: []) as node:
            assert await node.ask(A, Code.ADDRESS, timeout=0.05) is None

    asyncio.run(run())


def test_without_a_node_the_answer_is_none_at_once() -> None:
    async def run() -> None:
        node = LocalNode(NETWORK, Path("/nonexistent"), ("::1", 1))
        async with asyncio.timeout(2):
            assert await node.ask(A, Code.ADDRESS, timeout=60) is None
            assert await node.survey([A, B], Code.SOFTWARE, quiet=60) == {A: None, B: None}
            node.tell(A, Code.VERSION)
            assert await node.routed() == []
        node.close()

    asyncio.run(run())


def test_a_question_whose_datagram_is_lost_is_asked_again() -> None:
    asked: list[int] = []

    def reply(prefix: Prefix, code: int) -> list[bytes]:
        asked.append(code)
        return [answer(prefix, code, b"here")] if len(asked) > 1 else []

    async def run() -> None:
        async with beside(reply) as node:
            assert await node.ask(A, Code.ADDRESS) == b"here"

    asyncio.run(run())


def test_a_survey_follows_answers_and_reports_the_silent() -> None:
    links = {A: [B], B: [A, C]}

    def reply(prefix: Prefix, code: int) -> list[bytes]:
        return [answer(prefix, code, prefix.cn.encode())] if prefix in links else []

    async def run() -> None:
        async with beside(reply) as node:
            found = await node.survey([A], Code.TOPOLOGY, lambda prefix, _: links[prefix], quiet=0.2)
            assert found == {A: b"0/16", B: b"1/16", C: None}

    asyncio.run(run())


def test_a_survey_ends_at_once_when_all_have_answered() -> None:
    async def run() -> None:
        async with beside(lambda prefix, code: [answer(prefix, code, b"1.0, Linux")] * 2) as node:
            async with asyncio.timeout(10):
                everyone = [Prefix(n, 16) for n in range(500)]
                assert await node.survey(everyone, Code.SOFTWARE, quiet=60) == dict.fromkeys(everyone, b"1.0, Linux")

    asyncio.run(run())


def test_a_survey_of_a_large_network_asks_a_few_at_a_time_and_gets_all_answers() -> None:
    """The node beside it opens a session with each of them: their answers come a moment later, and it has a bound."""
    under_way: set[Prefix] = set()
    most = 0

    class SlowNode(FakeNode):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            nonlocal most
            prefix = Prefix.from_bits(data.partition(b"\0")[0].decode())
            if prefix not in under_way and len(under_way) < 64:
                under_way.add(prefix)
                asyncio.get_running_loop().call_later(0.01, self.answer, prefix, addr)
            most = max(most, len(under_way))

        def answer(self, prefix: Prefix, addr: tuple[str, int]) -> None:
            under_way.discard(prefix)
            assert self.transport is not None
            self.transport.sendto(answer(prefix, Code.SOFTWARE, b"1.0"), addr)

    async def run() -> None:
        everyone = [Prefix(n, 16) for n in range(2000)]
        async with asyncio.timeout(60), beside(lambda prefix, code: [], made=SlowNode) as node:
            found = await node.survey(everyone, Code.SOFTWARE, quiet=5)
        assert found == dict.fromkeys(everyone, b"1.0")

    asyncio.run(run())
    assert most < 64


def test_many_silent_nodes_do_not_keep_a_survey_from_the_others() -> None:
    """Somebody announces subnets where nobody is, as many as may be asked at one time, and more."""
    silent = [Prefix(n, 16) for n in range(100, 200)]

    def reply(prefix: Prefix, code: int) -> list[bytes]:
        return [] if prefix in silent else [answer(prefix, code, b"1.0")]

    async def run() -> None:
        async with asyncio.timeout(30), beside(reply) as node:
            found = await node.survey([*silent, A, B, C], Code.SOFTWARE, quiet=0.2)
            assert {prefix for prefix, said in found.items() if said} == {A, B, C}

    asyncio.run(run())


def test_a_survey_is_given_up_where_nobody_answers_at_all() -> None:
    async def run() -> None:
        async with asyncio.timeout(10), beside(lambda prefix, code: []) as node:
            everyone = [Prefix(n, 16) for n in range(5000)]
            assert set((await node.survey(everyone, Code.SOFTWARE, quiet=0.1)).values()) == {None}

    asyncio.run(run())


GREETING = "BABEL 1.0\nversion babeld-1.12.1\nhost a\nmy-id 00:00:00:00:00:00:00:01\nok\n"
ROUTE = "add route 55f0 prefix {} from ::/0 installed {} id 01 metric {} refmetric 0 via fe80::1 if re6stnet1\n"
DUMP = (
    "add interface re6stnet1 up true ipv6 fe80::2\n"
    "add neighbour 5 address fe80::1 if re6stnet1 reach ff00 ureach 0000 rxcost 96 txcost 96 cost 96\n"
    "add xroute 2001:db8:42::/64-::/0 prefix 2001:db8:42::/64 from ::/0 metric 0\n"
    + ROUTE.format("2001:db8:42:1::/64", "yes", 96)
    + ROUTE.replace("55f0", "2").format("2001:db8:42:2::/64", "no", 96)
    + ROUTE.replace("55f0", "3").format("2001:db8:42:3::/64", "yes", 65535)
    + ROUTE.replace("55f0", "4").format("::/0", "yes", 96)
    + ROUTE.replace("55f0", "5").format("2001:db8:43::/64", "yes", 96)
    + "add nonsense of a later version\nok\n"
)


@pytest.mark.parametrize(("talk", "expected"), [(True, [B]), (False, [])])
def test_routed_prefixes_are_the_usable_routes_of_the_dump(tmp_path: Path, talk: bool, expected: list[Prefix]) -> None:
    done = asyncio.Event()

    async def babeld(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if talk:
            writer.write(GREETING.encode())
            assert await reader.readline() == b"dump\n"
            writer.write(DUMP.encode())
            await reader.read()
        writer.close()
        await writer.wait_closed()
        done.set()

    async def run() -> None:
        control = tmp_path / "babeld.ctl"
        server = await asyncio.start_unix_server(babeld, control)
        async with server, beside(lambda prefix, code: [], control) as node:
            assert await node.routed() == expected
            await done.wait()

    asyncio.run(run())


def test_beside_the_older_software_routes_come_from_its_binary_socket(tmp_path: Path) -> None:
    hop = IPv6Address("fe80::1")
    destinations = [(IPv6Network(f"2001:db8:42:{n}::/64"), 0xFFFF if n == 2 else 96) for n in (1, 2)]
    destinations.append((IPv6Network("2001:db8:43::/64"), 96))
    dump = Dump(
        {4: "re6stnet1"}, routes=tuple(BinaryRoute(network, metric, 0, 4, hop) for network, metric in destinations)
    )

    async def run() -> None:
        control = tmp_path / "babeld.ctl"
        async with beside(lambda prefix, code: [], control) as node, serve(tmp_path / "babeld.sock", lambda: dump):
            assert await node.routed() == [B]
            # Also where the text socket was left by a node of ours that was killed.
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(control))
            assert await node.routed() == [B]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"protocol": 1, "result": {"running": true, "reachable": ["1/16", "2/16"]}}\n', [B, C]),
        ('{"protocol": 1, "result": {"running": false, "reachable": []}}\n', None),
        ('{"protocol": 1, "result": {"running": true, "reachable": ["x"]}}\n', None),
        ('{"protocol": 1, "result": {"running": true, "reachable": 7}}\n', None),
        ('{"protocol": 1, "error": {"status": 1, "message": "more than 16 connections at once"}}\n', None),
        ("[7]\n", None),
        ("no JSON\n", None),
        ("", None),
    ],
)
def test_the_node_says_where_there_is_a_way_to(tmp_path: Path, answer: str, expected: list[Prefix] | None) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert json.loads(await reader.readline())["operation"] == "reachable"
        writer.write(answer.encode())
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(play, tmp_path / "control.sock")
        async with server, beside(lambda prefix, code: [], tmp_path / "babeld.ctl") as node:
            assert await node.routes() == expected

    asyncio.run(run())


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ('{"refused": ["1/16"], "own_subnet_from": ["2/16", "fe80::1%eth0"], "doubled": ["3/16"]}', True),
        ("{}", False),
        ("null", False),
    ],
)
def test_the_node_says_who_claims_what_is_not_his(tmp_path: Path, claims: str, expected: bool) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(f'{{"result": {{"running": true, "reachable": ["1/16"], "claims": {claims}}}}}\n'.encode())
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(play, tmp_path / "control.sock")
        async with server, beside(lambda prefix, code: [], tmp_path / "babeld.ctl") as node:
            assert await node.routes() == [B]
            told = ToldClaims((B,), ("2/16", "fe80::1%eth0"), (Prefix(3, 16),))
            assert node.claims == (told if expected else ToldClaims())

    asyncio.run(run())


@pytest.mark.parametrize(("words", "late"), [('"late": true, ', True), ('"late": false, ', False), ("", False)])
def test_the_node_says_whether_its_routes_are_old(words: str, late: bool) -> None:
    told = read_routes(f'{{"result": {{"running": true, {words}"reachable": ["1/16"]}}}}'.encode())
    assert (told.reachable, told.late) == ([B], late)


@pytest.mark.parametrize(("words", "nodes"), [("[]", set()), ('["1/16"]', {B}), ("null", None)])
def test_the_node_says_whom_bulk_traffic_gets_to_by_capacity(words: str, nodes: set[Prefix] | None) -> None:
    said = '{"result": {"running": true, "reachable": ["1/16"]%s}}'
    assert read_routes((said % f', "by_capacity": {words}').encode()).by_capacity == nodes
    assert read_routes((said % "").encode()).by_capacity is None, "one of before"
    for wrong in ("7", '["x"]', "[7]"):
        with pytest.raises(ValueError, match=r"not an answer|CN|x"):
            read_routes((said % f', "by_capacity": {wrong}').encode())


def test_the_node_says_how_its_lines_are() -> None:
    said = '{"result": {"running": true, "reachable": ["1/16"]%s}}'
    for words, lines in (('{"fibre": "up"}', {"fibre": "up"}), ("{}", {}), ("null", {})):
        assert read_routes((said % f', "uplinks": {words}').encode()).uplinks == lines
    assert read_routes((said % "").encode()).uplinks == {}, "one of before"
    many = json.dumps({f"a{number}": "up" for number in range(8)})
    for wrong in ("7", '["x"]', '{"a": 1}', '{"a": "<b>"}', '{"a b": "up"}', '{"": "up"}', many):
        with pytest.raises(ValueError, match=r"not an answer|not the lines"):
            read_routes((said % f', "uplinks": {wrong}').encode())


@pytest.mark.parametrize(
    "claims", [7, [], {"refused": 7}, {"refused": ["x"]}, {"own_subnet_from": ["\x1b[2J"]}, {"doubled": [1]}]
)
def test_other_words_are_no_claims(claims: object) -> None:
    with pytest.raises(ValueError, match=r"claims|list|names|prefix|CN|x"):
        read_claims(claims)


def test_a_node_of_the_release_before_leaves_it_to_its_babeld(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"protocol": 1, "error": {"status": 2, "message": "unknown operation"}}\n')
        writer.close()

    async def babeld(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING.encode())
        await reader.readline()
        writer.write(DUMP.encode())
        writer.close()

    async def run() -> None:
        async with (
            await asyncio.start_unix_server(play, tmp_path / "control.sock"),
            await asyncio.start_unix_server(babeld, tmp_path / "babeld.ctl"),
            beside(lambda prefix, code: [], tmp_path / "babeld.ctl") as node,
        ):
            assert await node.routes() == [B]

    asyncio.run(run())
