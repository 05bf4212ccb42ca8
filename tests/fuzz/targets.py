"""What is fuzzed: every parser of what others send, with inputs to begin with (docs/security.md, "Fuzzing").

A target takes any bytes. It returns for what the parser takes and for what it refuses with the error that it
documents; any other exception is a fault. `python -m tests.fuzz` looks for such inputs with a coverage-guided fuzzer,
tests/unit/test_fuzz_targets.py with a few hundred random ones, and with all that once failed (`FOUND`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h11
from cryptography.hazmat.primitives import serialization

from re6st import cert
from re6st.api import http
from re6st.cli.conf import files
from re6st.cli.conf.program import ConfError
from re6st.cli.fingerprint import Fingerprint
from re6st.cli.node import expression
from re6st.cli.node import options as of_node
from re6st.cli.registry import config as registry_config
from re6st.client import http as http_client
from re6st.core.machine.wanted_state import KernelRoute
from re6st.core.prefix import Prefix, PrefixError, address, prefix_of
from re6st.core.registry.allocator import CommunityError, parse_communities
from re6st.core.routing import babel_binary, babel_lines
from re6st.core.transport import openvpn_lines, records, wireguard_links
from re6st.core.transport.wireguard_uapi import LinkConfig
from re6st.core.tunnel_protocols import Role
from re6st.core.wire import datagrams, params, peer_crypto, rpc, sessions, wireguard
from re6st.core.wire.seals import Seal
from re6st.keys import pki
from re6st.linux import netlink, rtnetlink, wireguard_kernel
from re6st.registryd.call import RpcError
from re6st.registryd.mesh_view import parse_topology
from tests.fuzz import peers, programs
from tests.fuzz.keys import Crypto

VECTORS = Path(__file__).parent.parent / "vectors"


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and inputs that it takes."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _vector(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


@cache
def _identities() -> tuple[cert.Trust, list[cert.Identity]]:
    """The CA and the nodes of the vectors."""
    pki = _vector("pki")
    trust = cert.Trust(cert.load_pem(pki["ca_crt"].encode()))
    nodes = [
        cert.Identity(trust, cert.load_pem(each["crt"].encode()), cert.load_private_key(each["key"].encode()))
        for each in pki["nodes"]
    ]
    return trust, nodes


def _split(data: bytes, most: int) -> Iterator[bytes]:
    """Several messages out of one input: each has two bytes of length before it."""
    for _ in range(most):
        if len(data) < 2:
            return
        length = int.from_bytes(data[:2])
        yield data[2 : 2 + length]
        data = data[2 + length :]


def join(*messages: bytes) -> bytes:
    """The inverse of `_split`."""
    return b"".join(len(each).to_bytes(2) + each for each in messages)


# --- between nodes (UDP port 326) ---


def datagram(data: bytes) -> None:
    for numbered in (True, False):
        with contextlib.suppress(datagrams.WireError):
            datagrams.decode(data, numbered=numbered)


def session(data: bytes) -> None:
    """A node is sent datagrams in a row, by two peers: its state stays one that it can work with."""
    network = IPv6Network("2001:db8:42::/48")
    secrets = iter(range(1, 1 << 20))
    state = sessions.Sessions(
        network,
        cast(peer_crypto.Crypto, Crypto(Prefix(1, 16))),
        10,
        b"\0",
        lambda: next(secrets).to_bytes(sessions.SECRET_LENGTH),
    )
    now = 100.0
    for message in _split(data, 24):
        now += (message[0] & 15) / 4 if message else 0
        peer = Prefix(2 + (message[0] >> 7 if message else 0), 16)
        try:
            outputs = state.receive((address(network, peer), datagrams.PORT), message[1:], now)
        except datagrams.WireError:
            continue
        for output in outputs:
            if isinstance(output, sessions.Message):
                state.answer(output, b"", now)
        state.retry(now)


def _session_seeds() -> tuple[bytes, ...]:
    other = Prefix(2, 16).value.to_bytes(2)
    own = Prefix(1, 16).value.to_bytes(2)
    secret = (1 << 19).to_bytes(sessions.SECRET_LENGTH)
    greeting = datagrams.encode_hello0(datagrams.Hello0(other))
    asked = datagrams.encode_hello0(datagrams.Hello0(other, own * 10, 10))
    hello = datagrams.encode_hello(datagrams.Hello(secret, secret, 10))
    said = [datagrams.encode_data(number, bytes([number % 6]), secret) for number in (3, 4, 5)]
    return (
        join(*(b"\1" + each for each in (greeting, hello, *said))),
        join(*(b"\1" + each for each in (asked, hello, said[0], said[0], asked))),
    )


def certificate(data: bytes) -> None:
    """A certificate that a stranger sends."""
    trust, _ = _identities()
    try:
        found = cert.load_der(data)
        cert.prefix_of_cert(found)
        cert.number_of_cert(found)
        cert.key_of_cert(found)
        trust.check_strict(found, pki.begin_of(found))
    except (cert.CertError, PrefixError, ValueError):
        pass


def request(data: bytes) -> None:
    """A certificate request (CSR) in PEM form."""
    with contextlib.suppress(cert.CertError):
        made = cert.load_request(data)
        cert.subject_for(made.subject, 3, Prefix(3, 16))


def addresses(data: bytes) -> None:
    found = datagrams.parse_addresses(data.decode("utf-8", "replace"))
    assert len(found) <= datagrams.ADDRESSES_LIMIT
    assert datagrams.parse_addresses(datagrams.format_addresses(found)) == found


def topology(data: bytes) -> None:
    parse_topology(data)


# --- from the registry, to the registry ---


def parameters(data: bytes) -> None:
    """The answer of getNetworkConfig as JSON, packed as the registry packs it, and as it is."""
    for blob in (data, zlib.compress(data, 0)):
        with contextlib.suppress(params.ParamsError):
            params.decode(blob, lambda secret: secret)


def request_target(data: bytes) -> None:
    """Path and query of a call."""
    with contextlib.suppress(RpcError):
        http.parse_target(data.decode("latin-1"))


class _Owner:
    """The part of the server that the reader of heads asks."""

    bounds = http.BOUNDS

    def enter(self, gate: http.RequestGate, peer: str) -> bool:
        return True

    def asked(self, gate: http.RequestGate) -> None:
        pass

    def leave(self, gate: http.RequestGate) -> None:
        pass


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def write_eof(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def request_head(data: bytes) -> None:
    """The head of an HTTP request, in pieces."""

    async def read() -> None:
        handed: list[bytes] = []
        handler = SimpleNamespace(connection_made=lambda transport: None, data_received=handed.append)
        gate = http.RequestGate(cast(Any, _Owner()), cast(Any, SimpleNamespace(take=lambda gate: handler)))
        transport = _Transport()
        gate.connection_made(transport)
        half = len(data) // 2
        gate.data_received(data[:half])
        if not handed:
            gate.data_received(data[half:])
        gate.abort()

    _loop().run_until_complete(read())


def response(data: bytes) -> None:
    """What answers to one of our HTTP requests."""

    async def read() -> None:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "registry")]))
        connection.send(h11.EndOfMessage())
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        await http_client._read(connection, reader, 1 << 16)

    with contextlib.suppress(EOFError, h11.RemoteProtocolError, http_client.TooLong):
        _loop().run_until_complete(read())


def ratchet(data: bytes) -> None:
    """The header of a signed call."""
    assert not rpc.Ratchet(bytes(20)).check(b"/getNetworkConfig", data.decode("latin-1"))


# --- from our own children and the kernel ---


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


def kernel_route(data: bytes) -> None:
    list(netlink.read_attributes(data))
    if len(data) >= rtnetlink._ROUTE.size:
        with contextlib.suppress(netlink.NetlinkError):
            rtnetlink._read_route(data)


# --- files and texts of the user ---


def tunnel_record(data: bytes) -> None:
    """What a daemon left in the run directory for the next one."""
    with contextlib.suppress(records.RecordError):
        records.decode(data)
    with contextlib.suppress(records.RecordError):
        link = wireguard_links.decode(data)
        assert wireguard_links.decode(wireguard_links.encode(link)) == link


def _options(parser: Any, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        with (
            contextlib.redirect_stderr(io.StringIO()) as said,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.suppress(SystemExit),
        ):
            parser.parse([f"@{file.name}"])
        assert "Traceback" not in said.getvalue()


def node_options(data: bytes) -> None:
    _options(of_node.parser(), data)


def registry_options(data: bytes) -> None:
    _options(registry_config.make_parser(), data)


def written_options(data: bytes) -> None:
    """re6st-conf reads the option file that it wrote."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ConfError):
            files.read_options(Path(file.name))


def texts(data: bytes) -> None:
    """Small things that people and peers write: names, addresses of registries, fingerprints, expressions."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(PrefixError):
        Prefix.from_cn(text)
    with contextlib.suppress(PrefixError):
        Prefix.from_bits(text)
    with contextlib.suppress(ValueError):
        http_client.parse_url(text)
    with contextlib.suppress(ConfError, ValueError):
        Fingerprint.parse(text)
    with contextlib.suppress(CommunityError):
        parse_communities(text)
    with contextlib.suppress(expression.ExpressionError):
        expression.evaluate(text, {"main": "lo", "count": 3})
    with contextlib.suppress(ValueError):
        prefix_of(IPv6Network("2001:db8:42::/48"), IPv6Network(text))


# --- all ---


def _targets() -> dict[str, Target]:
    _, nodes = _identities()
    peer = _vector("peer_session")
    config = _vector("network_config")
    steps = tuple(bytes.fromhex(step["datagram"]) for step in peer["steps"])
    return (
        {
            "datagram": Target(datagram, steps),
            "session": Target(session, _session_seeds()),
            "certificate": Target(certificate, tuple(cert.to_der(each.cert) for each in nodes)),
            "request": Target(request, (_request(),)),
            "addresses": Target(addresses, (b"192.0.2.1,1194,udp;2001:db8::1,1194,tcp6,FR", b"host.example,1194,tcp")),
            "topology": Target(topology, (b"2 1/16 2/16 3/16", b"0")),
            "parameters": Target(parameters, (_parameters(config),)),
            "request-target": Target(
                request_target, (b"/hello?client_prefix=0000&protocol=10", b"/getCa", b"/requestToken?email=a%40b.c")
            ),
            "request-head": Target(
                request_head, (b"GET /getCa HTTP/1.1\r\nHost: registry\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n")
            ),
            "response": Target(
                response,
                (
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRe6stHMAC: YQ==\r\n\r\nok",
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                    b"HTTP/1.0 403 Forbidden\r\n\r\n",
                ),
            ),
            "ratchet": Target(ratchet, (b"YWJjZGVmZ2hpamtsbW5vcHFyc3Q=",)),
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
            "tunnel-record": Target(
                tunnel_record,
                (
                    b'{"pid": 7, "made": "x", "clients": {"0": {"peer": "2/16", "serial": 3, "address": null,'
                    b' "since": 1}}}',
                    b'{"pid": 7, "made": "x", "name": "re6stnet1", "peer": "2/16", "endpoint": "192.0.2.1,1194,udp",'
                    b' "serial": 3, "external_ip": null, "mtu": 1500, "since": 1.5}',
                    _link_note(),
                ),
            ),
            "node-options": Target(
                node_options,
                (
                    b"registry http://192.0.2.1/\nca ca.crt\ncert cert.crt\nkey cert.key\n# comment\ninterface eth0\n",
                    b'O--verb\nO3\nclient-count 5\ndaemon "exec true"\npp 1194 udp\nip 192.0.2.1\n',
                ),
            ),
            "registry-options": Target(
                registry_options, (b"ca ca.crt\nkey ca.key\nport 80\nprefix-length 16\nhello 15\n",)
            ),
            "written-options": Target(written_options, (b"registry http://192.0.2.1/\nca ca.crt\n",)),
            "texts": Target(
                texts,
                (b"120/16", b"http://user:word@[2001:db8::1]:80/x", b"sha256:aabb", b"0000/2:FR:*", b"count == 3"),
            ),
        }
        | _of_peers()
        | _of_programs()
    )


def _of_peers() -> dict[str, Target]:
    offer = Seal(peers.Sealer(), b"one", b"other", asks=True, now=0.0).offer()
    key = offer[:32]
    route = (
        b"add route %x prefix 2001:db8:42:%x::/64 from ::/0 installed yes id 02:00:00:00:00:00:00:0%d"
        b" metric 96 refmetric 0 via fe80::%d if re6stnet%d\n"
    )
    route4 = (
        b"add route %x prefix 10.42.%d.0/24 from 0.0.0.0/0 installed yes id 02:00:00:00:00:00:00:01"
        b" metric 96 refmetric 0 via fe80::%d if re6stnet1\n"
    )
    return {
        "extension-names": Target(
            peers.extension_names, (b"babel-hello rekey sealed-calls", b"", b"short 1700000000 1700000000", b"long 0 0")
        ),
        "offer-header": Target(peers.offer_header, (base64.b64encode(offer), offer)),
        "seal": Target(peers.seal, (b"o" + offer, b"s" + key + b"rekey sealed-messages", b"m\0\0\0\1" + bytes(20))),
        "sealed-sessions": Target(
            peers.sealed_sessions,
            (bytes([0, 3, 2, 3, 2, 3, 2, 1, 2, 3, 15, 2, 3]), bytes([0, 1, 9, 3, 11, 2, 12, 0x7E, 5, 13])),
        ),
        "session-inputs": Target(
            peers.session_inputs,
            (
                b"\x20\1\1" + b"\x28\6\0\0\0\0\0\2" + b"\x28\x1b\0\0\0\1\x0a" + b"\0\1" * 10 + b"\0\2",
                b"\x24\0" * 4 + b"\x2b\0",
            ),
        ),
        "wireguard-message": Target(
            peers.wireguard_message,
            tuple(bytes.fromhex(case["hex"]) for case in _vector("wireguard_messages")["messages"]),
        ),
        "wireguard-agreement": Target(peers.wireguard_agreement, _talk()),
        "told-routes": Target(
            peers.told_routes,
            (
                route % (0x55AB, 2, 2, 2, 1) + route % (0x55AC, 7, 2, 2, 1) + route % (0x55AD, 1, 3, 3, 2),
                route % (0x55AB, 2, 2, 2, 1) + route % (0x55AC, 2, 3, 3, 1) + b"flush route 55ab\n",
                route4 % (0x55AB, 2, 2)
                + route4 % (0x55AC, 3, 2)
                + route4 % (0x55AD, 1, 2)
                + route % (0x55AE, 2, 2, 2, 1),
            ),
        ),
        "request-origin": Target(
            peers.request_origin,
            (
                b"127.0.0.1\nHost: localhost:8080\nUser-Agent: Mozilla/5.0\nSec-Fetch-Site: none",
                b"192.0.2.1\nX-Forwarded-For: 198.51.100.7, 192.0.2.1\nHost: registry.example",
                b"::1\nOrigin: http://[::1]:80\nHost: [::1]:80\nReferer: http://evil.example/",
            ),
        ),
    }


def _link_note() -> bytes:
    own, theirs = (wireguard.Terms(key, 51820, 1420, wireguard.link_local(7)) for key in (b"o" * 32, b"t" * 32))
    end = wireguard_links.OwnEnd(b"s" * 32, own)
    return wireguard_links.encode(
        wireguard_links.WireGuardLink(Prefix(2, 16), 7, Role.CLIENT, "re6stnet1", end, theirs)
    )


def _talk() -> tuple[bytes, ...]:
    """What a peer says when it opens a link, changes its keys and ends it, and when it is asked for one."""
    terms = [wireguard.Terms(bytes([key]) * 32, 51820, 1420, wireguard.link_local(7)) for key in (8, 9)]
    keys = [[number.to_bytes(32), bytes([key]) * 32] for number, key in ((1, 8), (2, 9))]
    said: list[tuple[int, wireguard.Message]] = [
        (0, wireguard.Propose(11, 0, terms[0])),
        (16, wireguard.Confirm(11, keys[0][1], keys[0][0])),
        (1, wireguard.Propose(13, 11, terms[1])),
        (1, wireguard.Confirm(13, keys[1][1], keys[1][0])),
        (6, wireguard.End(13, wireguard.Reason.CLOSED)),
    ]
    asked: list[tuple[int, wireguard.Message]] = [
        (8, wireguard.Accept(2, terms[0])),
        (16, wireguard.Done(2, keys[0][1], keys[0][0])),
        (23, wireguard.NoLink(7)),
        (23, wireguard.Accept(4, terms[1])),
        (1, wireguard.Done(4, keys[1][1], keys[1][0])),
        (7, wireguard.Propose(15, 0, terms[0])),
    ]
    return tuple(
        b"".join(bytes([first, len(body := wireguard.encode(message))]) + body for first, message in talk)
        for talk in (said, asked)
    )


def _of_programs() -> dict[str, Target]:
    senders = [{"elem": {"val": {"concat": ["re6stnet1", "02:00:00:00:00:01"]}, "counter": {"packets": 3}}}]
    link = struct.pack("=BxHiII", 0, 1, 7, 0x41, 0) + netlink.pack_attribute(3, b"re6stnet1\0")
    return {
        "openvpn-management": Target(
            programs.management,
            (
                b">CLIENT:CONNECT,0,1\n>CLIENT:ENV,UV_x=" + b"x" * 64 + b">BYTECOUNT:6,6\n>CLIENT:ENV,END\n",
                b">STATE:1,CONNECTED,SUCCESS,,,,,\n>STATE:2,GET_CONFIG,,,,,,\n>FATAL:no",
                b"CLIENT_LIST\t2/16\t192.0.2.1:1\t\t\t1\t2\tnow\t1\tUNDEF\t0\t0\tN\n"
                b"ROUTING_TABLE\t02:00:00:00:00:01@0\t2/16\tx\nEND\n",
            ),
        ),
        "nft-listing": Target(programs.nft_listing, (json.dumps({"nftables": [{"set": {"elem": senders}}]}).encode(),)),
        "wireguard-answers": Target(
            programs.wireguard_answers,
            (
                b"private_key=" + b"11" * 32 + b"\nlisten_port=51999\npublic_key=" + b"22" * 32 + b"\n"
                b"endpoint=[::1]:9\nlast_handshake_time_sec=1\nlast_handshake_time_nsec=5\ntx_bytes=148\nrx_bytes=0\nerrno=0\n\n",
                wireguard_kernel.encode(7, LinkConfig(b"s" * 32, 51820, b"p" * 32, (IPv6Address("::1"), 9), 25)),
            ),
        ),
        "rtnetlink-messages": Target(programs.rtnetlink_messages, (link, _kernel_route())),
        "notes": Target(
            programs.notes, (b'["eth0", "wlan0"]', b"[[2, 77], [1, 5]]", b'[["3", null]]', b'[["2/16", 300.0, 400.5]]')
        ),
        "control-request": Target(
            programs.control_request,
            (b'{"protocol": 1, "operation": "status", "arguments": {"x": 1}}\n', b'{"protocol": 2, "operation": "x"}'),
        ),
        "node-answer": Target(
            programs.node_answer,
            (
                b'{"result": {"running": true, "reachable": ["2/16"], "claims": {"refused": ["3/16"]}}}\n',
                b'{"error": {"message": "no"}}',
            ),
        ),
    }


def _request() -> bytes:
    return cert.new_request(_identities()[1][0].key).public_bytes(serialization.Encoding.PEM)


def _parameters(config: dict[str, Any]) -> bytes:
    return json.dumps(config["json"]).encode()


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


TARGETS = _targets()
FOUND: dict[str, tuple[bytes, ...]] = {}
"""Inputs that once failed, by target: they are tried again in each run of the unit tests."""
