"""Fuzzed: what our own programs, the kernel and other users of the machine say: OpenVPN, nft, rtnetlink, sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import tempfile
from collections.abc import AsyncGenerator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from re6st.core.routing import claims
from re6st.core.telemetry.report import Record
from re6st.core.transport import openvpn_lines, wireguard_uapi
from re6st.linux import nftables, rtnetlink, wireguard_kernel
from re6st.linux.netlink import NetlinkError
from re6st.linux.nftables import NftError
from re6st.linux.process import Child
from re6st.noded import hooks, packet_filter, router_advertisements
from re6st.registryd import local_node
from re6st.service import control, run_names
from re6st.transport.openvpn import Management

LINE = 64
"""Bytes of the buffer for a line here: OpenVPN's has 64 KiB."""


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


# --- OpenVPN ---


def management(data: bytes) -> None:
    """A management connection: what it gives comes of whole lines, and of all that fit."""

    async def read() -> list[object]:
        reader = asyncio.StreamReader(LINE)
        reader.feed_data(data)
        reader.feed_eof()
        return [event async for event in Management(reader, cast(asyncio.StreamWriter, None)).events()]

    lines = openvpn_lines.Reader()
    whole = (line for line in data.split(b"\n")[:-1] if len(line) <= LINE)
    fed = (lines.feed(line.decode("utf-8", "replace").rstrip("\r\n")) for line in whole)
    assert _loop().run_until_complete(read()) == [event for event in fed if event is not None]


# --- nft and the kernel ---


def nft_listing(data: bytes) -> None:
    """The JSON of `nft -j list`."""
    with contextlib.suppress(NftError):
        listing = nftables.read_listing(data.decode("utf-8", "replace"))
        packet_filter.lasting(listing)
        packet_filter.senders_of(listing)


class _Kernel:
    """A socket that gives the same message again and again, and then the end."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._left: list[bytes] = []

    def recv(self, size: int) -> bytes:
        return self._left.pop(0)

    def sendto(self, data: bytes, to: object) -> None:
        (sequence,) = struct.unpack_from("=I", data, 8)
        self._left = [self._message, self._message, struct.pack("=IHHIIi", 20, 3, 0, sequence, 0, 0)]


def wireguard_answers(data: bytes) -> None:
    """What wireguard-go, and the kernel, tell of an interface."""
    with contextlib.suppress(wireguard_uapi.UapiError):
        wireguard_uapi.read(data)
    with contextlib.suppress(NetlinkError):
        wireguard_kernel.decode([data, data[len(data) // 2 :]])


def rtnetlink_messages(data: bytes) -> None:
    """Messages of the kernel about links, addresses and routes; a whole datagram, and the content of one message."""
    for kind in range(3):
        for message in (data, struct.pack("=IHHII", 16 + len(data), 16 + 4 * kind, 2, 1, 0) + data):
            socket = rtnetlink.Netlink.__new__(rtnetlink.Netlink)
            vars(socket).update(_socket=_Kernel(message), _sequence=0)
            with contextlib.suppress(NetlinkError):
                match kind:
                    case 0:
                        socket.links()
                    case 1:
                        socket.addresses()
                    case 2:
                        list(socket.routes(10))


# --- notes of an earlier run ---


def notes(data: bytes) -> None:
    """Notes in the run directory of the daemon before: what was changed, and what was started."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        path = Path(made)
        (path / "note").write_bytes(data)
        router_advertisements.Advertisements(path / "note", path / "none").keep()
        (path / run_names.DAEMONS).write_bytes(data)
        with contextlib.suppress(ValueError):
            claims.Refusals().restore(data, 100.0)
        _loop().run_until_complete(_clear(path))


async def _clear(run: Path) -> None:
    """No process is ended that was not born when the note says."""

    with patch.object(Child, "adopt", side_effect=AssertionError("a process of somebody else is ended")):
        await hooks.Hooks((), (), {}, run).clear()


# --- sockets of the machine ---


class _Operations:
    def call(
        self, operation: str, arguments: Mapping[str, Any], *, trusted: bool
    ) -> Record | AsyncGenerator[Record, None]:
        return {"operation": operation, "arguments": dict(arguments), "trusted": trusted}


def control_request(data: bytes) -> None:
    """A line that somebody who may look sends to the control socket."""
    server = control.ControlServer(_Operations(), Path("/nowhere"))
    answer = _loop().run_until_complete(server.lines.answer(data, trusted=False))
    assert isinstance(answer, bytes)
    told = json.loads(answer)
    assert ("error" in told) != ("result" in told)
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    assert "error" in told or told["result"]["trusted"] is False


def node_answer(data: bytes) -> None:
    """What a node answers to its registry, on the control socket."""
    with contextlib.suppress(ValueError, EOFError):
        local_node.read_routes(data)
