"""Both ends of RUN/babeld.sock (wire.md 9.6): dumps, many clients, and clients that misbehave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from re6st.babeld.binary_socket import CLIENT_LIMIT, offer, read_dump, serve
from re6st.core.routing.babel_binary import (
    GREETING,
    HEADER,
    Announced,
    BinaryError,
    BinaryRoute,
    Dump,
    PacketKind,
    SetMultiplier,
    encode_multiplier,
    encode_packet,
)
from re6st.core.routing.babel_lines import Table

HOP = IPv6Address("fe80::1")
DUMP = Dump({4: "re6stnet1"}, routes=(BinaryRoute(IPv6Network("2001:db8:42:1::/64"), 96, 0, 4, HOP),))

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Clients:
    """Connections to the server at `path`; closed at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self, sent: bytes = GREETING) -> Streams:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        self._writers.append(writer)
        writer.write(sent)
        return reader, writer

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def with_server(tmp_path: Path, work: Callable[[Clients], Awaitable[None]]) -> list[SetMultiplier]:
    """Run this with a server at a path; the multipliers that the server was asked for."""
    asked: list[SetMultiplier] = []

    async def multiply(request: SetMultiplier) -> None:
        asked.append(request)

    async def run() -> None:
        path = tmp_path / "babeld.sock"
        with socket.socket(socket.AF_UNIX) as left:  # by a run that was killed
            left.bind(str(path))
        async with asyncio.timeout(20), serve(path, lambda: DUMP, multiply):
            assert path.stat().st_mode & 0o777 == 0o600
            clients = Clients(path)
            try:
                await work(clients)
            finally:
                await clients.close()
        assert not path.exists()

    asyncio.run(run())
    return asked


def test_a_dump_is_read(tmp_path: Path) -> None:
    async def work(clients: Clients) -> None:
        assert await asyncio.gather(*(read_dump(clients.path) for _ in range(3))) == [DUMP] * 3

    assert with_server(tmp_path, work) == []


def test_a_client_asks_more_than_once_in_pieces(tmp_path: Path) -> None:
    request = SetMultiplier((HOP, 4), 4096)

    async def work(clients: Clients) -> None:
        reader, writer = await clients.open()
        for byte in encode_packet(PacketKind.MULTIPLIER, encode_multiplier(request)) + encode_packet(
            PacketKind.DUMP, b"\x0b"
        ):
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        assert await reader.readexactly(HEADER.size + 1) == encode_packet(PacketKind.MULTIPLIER, b"\0")
        assert HEADER.unpack(await reader.readexactly(HEADER.size))[0] == PacketKind.DUMP

    assert with_server(tmp_path, work) == [request]


@pytest.mark.parametrize(
    "sent",
    [b"\x02", b"\x01\x00\x07\x00\x00\x00\x00", b"\x01\x00\x01\xff\xff\xff\xff", b"\x01\x00\x02\x00\x00\x00\x01x"],
    ids=["greeting", "type", "length", "content"],
)
def test_who_does_not_speak_the_protocol_is_cut_off_alone(tmp_path: Path, sent: bytes) -> None:
    async def work(clients: Clients) -> None:
        other, _ = await clients.open()
        reader, _ = await clients.open(sent)
        assert await reader.read() == b""
        assert await read_dump(clients.path) == DUMP
        assert not other.at_eof()

    with_server(tmp_path, work)


def test_more_clients_than_there_is_room_for_are_turned_away(tmp_path: Path) -> None:
    async def work(clients: Clients) -> None:
        held = [await clients.open() for _ in range(CLIENT_LIMIT)]
        await asyncio.sleep(0)
        with pytest.raises((EOFError, OSError)):
            await read_dump(clients.path)
        held[0][1].close()
        await held[0][0].read()
        assert await read_dump(clients.path) == DUMP

    with_server(tmp_path, work)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00",
        encode_packet(PacketKind.MULTIPLIER, b"\0"),
        b"\x00\x01\xff\xff\xff\xff",
        encode_packet(PacketKind.DUMP, b"\0"),
    ],
    ids=["nothing", "cut short", "another", "too long", "no dump"],
)
def test_an_answer_that_is_none_raises(tmp_path: Path, answer: bytes) -> None:
    async def babeld(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(GREETING) + HEADER.size + 1)
        writer.write(answer)
        writer.close()

    async def run() -> None:
        path = tmp_path / "babeld.sock"
        async with await asyncio.start_unix_server(babeld, str(path)):
            with pytest.raises((BinaryError, EOFError)):
                await read_dump(path)

    asyncio.run(run())


def test_our_table_is_offered_as_it_is_at_the_moment(tmp_path: Path) -> None:
    table, own = Table(), IPv6Network("2001:db8:42:2::/64")
    path = tmp_path / "babeld.sock"
    route = "add route 3 prefix 2001:db8:42:1::/64 from ::/0 installed yes id 1 metric 97 refmetric 0 via fe80::1 if lo"

    async def run() -> None:
        async with asyncio.timeout(20):
            offered = asyncio.create_task(offer(path, table, own))
            while not path.exists():
                await asyncio.sleep(0)
            assert await read_dump(path) == Dump({}, announced=(Announced(own),))
            for line in ("add interface lo up true", "add interface gone up false", route):
                table.feed(line)
            dump = await read_dump(path)
            assert (dict(dump.interfaces), [each.destination for each in dump.routes]) == (
                {socket.if_nametoindex("lo"): "lo"},
                [IPv6Network("2001:db8:42:1::/64")],
            )
            offered.cancel()
            await asyncio.wait([offered])
            assert not path.exists()

    asyncio.run(run())


def test_a_socket_that_cannot_be_made_is_no_reason_to_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(offer(tmp_path / "not there" / "babeld.sock", Table(), IPv6Network("2001:db8::/64")))
    assert "babeld.sock" in caplog.text
