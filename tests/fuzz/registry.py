"""Fuzzed: what a registry and its clients say to each other: HTTP, parameters of the network, signed calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from types import SimpleNamespace
from typing import Any, cast

import h11

from re6st.api import http
from re6st.client import http as http_client
from re6st.core.wire import params, rpc
from re6st.registryd.call import RpcError
from tests.fuzz.target import Target, loop, vector


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

    loop().run_until_complete(read())


def response(data: bytes) -> None:
    """What answers to one of our HTTP requests."""

    async def read() -> None:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "registry")]))
        connection.send(h11.EndOfMessage())
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        await http_client._read(connection, reader, 1 << 16, None)

    with contextlib.suppress(EOFError, h11.RemoteProtocolError, http_client.TooLong):
        loop().run_until_complete(read())


def ratchet(data: bytes) -> None:
    """The header of a signed call."""
    assert not rpc.Ratchet(bytes(20)).check(b"/getNetworkConfig", data.decode("latin-1"))


TARGETS = {
    "parameters": Target(parameters, (json.dumps(vector("network_config")["json"]).encode(),)),
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
}
