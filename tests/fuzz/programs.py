"""Fuzzed: what our own programs, the kernel and other users of the machine say.

They are babeld, OpenVPN, nft and rtnetlink, files, and sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import tempfile
from collections.abc import AsyncGenerator, Mapping
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from re6st.core.machine.wanted_state import KernelRoute
from re6st.core.routing import babel_binary, babel_lines, claims
from re6st.core.telemetry.report import Record
from re6st.core.transport import openvpn_lines, wireguard_uapi
from re6st.core.transport.wireguard_uapi import LinkConfig
from re6st.linux import netlink, nftables, rtnetlink, wireguard_kernel
from re6st.linux.netlink import NetlinkError
from re6st.linux.nftables import NftError
from re6st.linux.process import Child
from re6st.noded import hooks, packet_filter, router_advertisements
from re6st.registryd import local_node
from re6st.service import control, run_names
from re6st.transport.openvpn import Management
from tests.fuzz.target import Target, loop

LINE = 64
"""Bytes of the buffer for a line here: OpenVPN's has 64 KiB."""


# --- babeld and OpenVPN ---


def babel_text(data: bytes) -> None:
    """Lines of babeld's socket: what they say comes from others' routes."""
    table = babel_lines.Table()
    for line in data.decode("ascii", "replace").splitlines():
        babel_lines.parse_reply(line)
        with contextlib.suppress(babel_lines.LineError):
            table.feed(line)


def babel_packets(data: bytes) -> None:
    """The binary socket of a patched babeld."""
    if len(data) >= babel_binary.HEADER.size:
        with contextlib.suppress(babel_binary.BinaryError):
            babel_binary.decode_header(data[: babel_binary.HEADER.size])
    for decode in (babel_binary.decode_dump, babel_binary.decode_multiplier):
        with contextlib.suppress(babel_binary.BinaryError):
            decode(data)


def openvpn(data: bytes) -> None:
    """Lines of OpenVPN's management socket, with names and variables that the other end chose."""
    reader = openvpn_lines.Reader()
    for line in data.decode("utf-8", "replace").split("\n"):
        event = reader.feed(line)
        if isinstance(event, openvpn_lines.Client | openvpn_lines.ProcessUp):
            environment = event.environment
            _ = (environment.common_name, environment.serial, environment.external_ip, environment.trusted_ip)


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
    assert loop().run_until_complete(read()) == [event for event in fed if event is not None]


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


def kernel_route(data: bytes) -> None:
    list(netlink.read_attributes(data))
    if len(data) >= rtnetlink._ROUTE.size:
        with contextlib.suppress(NetlinkError):
            rtnetlink._read_route(data)


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
        loop().run_until_complete(_clear(path))


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
    answer = loop().run_until_complete(server.lines.answer(data, trusted=False))
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


# --- what they take ---


def _dump() -> bytes:
    hop, network = IPv6Address("fe80::2"), IPv6Network("2001:db8:42:2::/64")
    return babel_binary.encode_dump(
        babel_binary.Dump(
            {2: "re6stnet1"},
            (babel_binary.BinaryNeighbour(hop, 2, 0xFFFF, 96, 96, 0),),
            (babel_binary.Announced(network),),
            (babel_binary.BinaryRoute(network, 96, 0, 2, hop),),
        )
    )


def _kernel_route() -> bytes:
    route = KernelRoute(IPv6Network("2001:db8:42::/48"), IPv6Network("::/0"), IPv6Address("fe80::2"), 2)
    body = rtnetlink._route(route, rtnetlink.RT_SCOPE_UNIVERSE)
    assert body[0] == socket.AF_INET6
    return body


_SENDERS = [{"elem": {"val": {"concat": ["re6stnet1", "02:00:00:00:00:01"]}, "counter": {"packets": 3}}}]
_LINK = struct.pack("=BxHiII", 0, 1, 7, 0x41, 0) + netlink.pack_attribute(3, b"re6stnet1\0")

TARGETS = {
    "babel-text": Target(
        babel_text,
        (
            b"BABEL 1.0\nversion babeld-1.12.1\nhost node\nmy-id 02:00:00:00:00:00:00:01\nok\n"
            b"add interface re6stnet1 up true ipv6 fe80::1\n"
            b"add neighbour 55aa address fe80::2 if re6stnet1 reach ffff ureach 0000 rxcost 96 txcost 96"
            b" rtt 1.250 rttcost 0 cost 96\n"
            b"add route 55ab prefix 2001:db8:42:2::/64 from ::/0 installed yes id 02:00:00:00:00:00:00:02"
            b" metric 96 refmetric 0 via fe80::2 if re6stnet1\n",
        ),
    ),
    "babel-packets": Target(babel_packets, (_dump(),)),
    "openvpn": Target(
        openvpn,
        (
            b">CLIENT:CONNECT,0,1\n>CLIENT:ENV,common_name=2/16\n>CLIENT:ENV,tls_serial_0=3\n"
            b">CLIENT:ENV,trusted_ip=192.0.2.1\n>CLIENT:ENV,END\n",
            b">HOLD:Waiting for hold release:0\n>STATE:1,CONNECTED,SUCCESS,,,,,\n>BYTECOUNT:1,2\n"
            b"SUCCESS: pid=1\nCLIENT_LIST\t2/16\t192.0.2.1:1\t\t\t1\t2\tnow\t1\tUNDEF\t0\t0\tNONE\nEND\n",
            b">UPDOWN:UP\n>UPDOWN:ENV,OPENVPN_external_ip=192.0.2.9\n>UPDOWN:ENV,END\n",
        ),
    ),
    "kernel-route": Target(kernel_route, (_kernel_route(),)),
    "openvpn-management": Target(
        management,
        (
            b">CLIENT:CONNECT,0,1\n>CLIENT:ENV,UV_x=" + b"x" * 64 + b">BYTECOUNT:6,6\n>CLIENT:ENV,END\n",
            b">STATE:1,CONNECTED,SUCCESS,,,,,\n>STATE:2,GET_CONFIG,,,,,,\n>FATAL:no",
            b"CLIENT_LIST\t2/16\t192.0.2.1:1\t\t\t1\t2\tnow\t1\tUNDEF\t0\t0\tN\n"
            b"ROUTING_TABLE\t02:00:00:00:00:01@0\t2/16\tx\nEND\n",
        ),
    ),
    "nft-listing": Target(nft_listing, (json.dumps({"nftables": [{"set": {"elem": _SENDERS}}]}).encode(),)),
    "wireguard-answers": Target(
        wireguard_answers,
        (
            b"private_key=" + b"11" * 32 + b"\nlisten_port=51999\npublic_key=" + b"22" * 32 + b"\n"
            b"endpoint=[::1]:9\nlast_handshake_time_sec=1\nlast_handshake_time_nsec=5\ntx_bytes=148\nrx_bytes=0\nerrno=0\n\n",
            wireguard_kernel.encode(7, LinkConfig(b"s" * 32, 51820, b"p" * 32, (IPv6Address("::1"), 9), 25)),
        ),
    ),
    "rtnetlink-messages": Target(rtnetlink_messages, (_LINK, _kernel_route())),
    "notes": Target(notes, (b'["eth0", "wlan0"]', b"[[2, 77], [1, 5]]", b'[["3", null]]', b'[["2/16", 300.0, 400.5]]')),
    "control-request": Target(
        control_request,
        (b'{"protocol": 1, "operation": "status", "arguments": {"x": 1}}\n', b'{"protocol": 2, "operation": "x"}'),
    ),
    "node-answer": Target(
        node_answer,
        (
            b'{"result": {"running": true, "reachable": ["2/16"], "by_capacity": ["2/16"],'
            b' "claims": {"refused": ["3/16"]}}}\n',
            b'{"error": {"message": "no"}}',
        ),
    ),
}
