"""A registry under test over real HTTP, with a clock of its own, and what its clients do."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from re6st import cert
from re6st.api.http import BOUNDS, HttpServer
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import WHOLE_NETWORK
from re6st.core.wire import extensions, offers
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.offers import Offer
from re6st.core.wire.params import Parameters, decode
from re6st.core.wire.rpc import (
    CALLS_PURPOSE,
    CLIENT_PURPOSE,
    HEADER,
    NONCE_LENGTH,
    OFFER_HEADER,
    OFFER_MARK,
    TAG_LENGTH,
    CallKeys,
    Ratchet,
    SealedRatchet,
    target,
)
from re6st.keys import sealing
from re6st.registry import Registry
from re6st.registryd.local_node import LocalNode
from re6st.registryd.repository import Repository
from re6st.registryd.resources import Clocks, RegistrySettings, Resources
from re6st.registryd.sqlite.store import PATIENCE, Store
from tests.postgresql_cluster import Opener

A, B = Prefix(0, 16), Prefix(1, 16)

START = 1811808000.0
"""1 June 2027, when the certificates of the vectors are valid."""
DAY = 86400.0
NO_NODE = ("::1", 1)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class World:
    """A registry under test, its clock, and what a client needs."""

    def __init__(self, directory: Path, authority: cert.Authority, identity: cert.Identity) -> None:
        self.directory = directory
        self.authority = authority
        self.key = identity.key
        self.now = START
        """Unix time."""
        self.wrong = 0.0
        """Seconds by which the clock of the registry is ahead."""
        self.settings = RegistrySettings(
            parameters=Parameters(registry_prefix=Prefix(0, 0), protocol=10, extensions=KNOWN, hello=4),
            dh=b"-----BEGIN DH PARAMETERS-----\n",
            communities=WHOLE_NETWORK,
            prefix_length=16,
            anonymous_prefix_length=16,
            grace=100 * 86400,
        )
        self.node = NO_NODE
        self.control = directory / "babeld.ctl"
        self.origins: tuple[str, ...] = ()
        self.names: tuple[str, ...] = ()
        self.operators = True
        self.port = 0
        self.before_start: Callable[[Registry], Awaitable[object]] | None = None
        self.patience = PATIENCE
        self.bounds = BOUNDS
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.wrap: Callable[[Repository], Repository] = lambda repository: repository
        """A test may put a repository of its own between the registry and its store."""
        self.opener: Opener | None = None
        """Opens the state in another store than a file."""
        self.led_by_another = False
        """Whether another registry on the same state was started before."""
        self.store: Any
        self.registry: Registry
        self.server: HttpServer

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[World]:
        network = self.authority.trust.network
        if self.opener is not None:
            self.store = self.opener(network)
        else:
            self.store = Store(self.directory / "registry.db", network, self.patience)
        node = LocalNode(self.authority.trust.network, self.control, self.node)
        self.registry = await Registry.open(self.resources(self.wrap(self.store)), node)
        self.server = server = HttpServer(
            self.registry, self.origins, self.names, operators=self.operators, bounds=self.bounds
        )
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        others = asyncio.create_task(self.registry.others.run())
        try:
            shared = self.store.shared
            while shared is not None and not (shared.leads or self.led_by_another):
                await asyncio.sleep(0.01)
            if self.before_start is not None:
                await self.before_start(self.registry)
            await self.registry.parameter_service.start()
            await server.start([listening])
            yield self
        finally:
            await server.stop()
            others.cancel()
            await self.registry.parameter_service.stop()
            node.close()
            self.store.close()
            listening.close()

    def resources(self, repository: Repository) -> Resources:
        """What a registry on a repository works with, at the time of this world."""
        return Resources(self.authority, repository, self.settings, Clocks(self.clock, lambda: self.now, self.sleep))

    def clock(self) -> float:
        return self.now + self.wrong

    def run(self, test: Callable[[World], Awaitable[None]]) -> None:
        """Run a test against this registry, for five minutes at most: some make dozens of keys on a busy machine."""

        async def main() -> None:
            async with asyncio.timeout(300), self.serve():
                await test(self)

        asyncio.run(main())

    # --- HTTP ---

    async def raw(self, data: bytes) -> bytes:
        """Everything the registry answers to these bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def get(self, path: str, **headers: str) -> Answer:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        answer = await self.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        return parse(answer)

    async def call(self, method: str, **arguments: str) -> Answer:
        return await self.get(target(method, arguments))

    # --- what clients do ---

    def request(self, *fields: x509.NameAttribute[Any], key: Any = None) -> str:
        made = cert.new_request(key or self.key, fields)
        return made.public_bytes(serialization.Encoding.PEM).decode()

    async def enrol(self, token: str = "") -> x509.Certificate:
        answer = await self.call("requestCertificate", token=token, req=self.request(), location="", ip="")
        assert answer.status == 200, answer
        return cert.load_pem(answer.body)

    async def hello(self, prefix: Prefix, protocol: int = 10) -> Ratchet:
        answer = await self.call("hello", client_prefix=prefix.bits, protocol=str(protocol))
        assert answer.status == 200, answer
        encrypted, signature = answer.body[:256], answer.body[256:]
        assert cert.verify(self.authority.trust.ca, signature, encrypted)
        return Ratchet(cert.decrypt(self.key, encrypted))

    async def offer(self, prefix: Prefix, names: Iterable[str] = KNOWN, protocol: int = 10) -> CallKeys:
        """The session of a node that says what it can do."""
        key, trust = sealing.SessionKey(), self.authority.trust
        ours = Offer(key.public, extensions.text(names))
        said = offers.statement(CLIENT_PURPOSE, (sealing.key_text(trust.ca), prefix.bits.encode()), ours)
        ours = ours.signed_by(sealing.sign(self.key, said))
        header = base64.b64encode(offers.encode(ours)).decode()
        path = target("hello", {"client_prefix": prefix.bits, "protocol": str(protocol)})
        answer = await self.get(path, **{OFFER_HEADER: header})
        assert answer.body.startswith(OFFER_MARK), answer
        said = answer.body.removeprefix(OFFER_MARK)
        nonce, theirs = said[:NONCE_LENGTH], offers.decode(said[NONCE_LENGTH:-TAG_LENGTH])
        keys = SealedRatchet(
            offers.session_key(CALLS_PURPOSE, key.shared(theirs.public), ours, theirs, nonce), sealing.CIPHER
        )
        assert keys.open(b"", base64.b64encode(answer.body[-TAG_LENGTH:]).decode()) is not None
        return keys

    async def in_session(self, keys: CallKeys, method: str, prefix: Prefix, **arguments: str) -> Answer:
        path = target(method, {"cn": prefix.bits, **arguments})
        answer = await self.get(path, **{HEADER: keys.sign(path.encode())})
        if answer.status in (200, 204):
            body = keys.open(answer.body, answer.headers[HEADER.lower()])
            assert body is not None
            answer.body = body
        else:
            assert HEADER.lower() not in answer.headers
        return answer

    async def parameters(self, prefix: Prefix | None = None) -> Parameters:
        prefix = prefix or A
        answer = await self.in_session(await self.hello(prefix), "getNetworkConfig", prefix)
        assert answer.status == 200, answer
        return decode(answer.body, partial(cert.decrypt, self.key))


def parse(answer: bytes) -> Answer:
    head, separator, body = answer.partition(b"\r\n\r\n")
    assert separator, answer
    first, *rest = head.decode().split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version in ("HTTP/1.1", "HTTP/1.0")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    if "content-length" in headers:
        assert len(body) == int(headers["content-length"])
    if status == "204":
        assert not body
    return Answer(int(status), headers, body)
