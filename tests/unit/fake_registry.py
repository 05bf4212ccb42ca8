"""A registry that answers a client as a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

from re6st import PROTOCOL, cert
from re6st.client.registry_client import (
    RegistryClient,
)
from re6st.core.wire.rpc import HEADER, Ratchet

Answer = tuple[int, bytes]


class FakeRegistry:
    """Answers hello and signs the answers of a session; everything else is up to the test."""

    def __init__(self, authority: cert.Authority, node: cert.Identity) -> None:
        self.authority = authority
        self.node = node
        self.answers: dict[str, Answer | list[Answer]] = {}
        """By method; the last one of a list is repeated."""
        self.raw: bytes | None = None
        """Sent as it is, in the place of everything."""
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.session: Ratchet | None = None
        self.secret = b"s" * 20
        self.base = ""
        self.spoil: list[bool] = []
        """Whether the HMAC of the next answers is wrong."""
        self.hello_signer = authority.key
        self.hello_receiver = node.cert
        self.arrived = asyncio.Event()
        self.hold: asyncio.Event | None = None

    @property
    def methods(self) -> list[str]:
        return [path.partition("?")[0].strip("/") for path in self.seen]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            verb, path, _ = head[0].split(" ")
            assert verb == "GET"
            self.headers.append(dict(line.split(": ", 1) for line in head[1:] if line))
            assert path.startswith(self.base + "/")
            self.seen.append(path[len(self.base) :])
            self.arrived.set()
            if self.hold:
                await self.hold.wait()
            writer.write(self.raw if self.raw is not None else self.answer(self.seen[-1], self.headers[-1]))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def answer(self, path: str, headers: dict[str, str]) -> bytes:
        method, _, query = path[1:].partition("?")
        if method == "hello":
            assert dict(parse_qsl(query)) == {"client_prefix": self.node.prefix.bits, "protocol": str(PROTOCOL)}
            encrypted = cert.encrypt(self.hello_receiver, self.secret)
            self.session = Ratchet(self.secret)
            return http(200, encrypted + cert.sign(self.hello_signer, encrypted))
        if HEADER in headers:
            if self.session is None:
                return http(401, b"<html>no session</html>")
            if not self.session.check(path.encode(), headers[HEADER]):
                return http(400, b"<html>wrong HMAC</html>")
        answers = self.answers[method]
        status, body = answers if isinstance(answers, tuple) else answers.pop(0) if len(answers) > 1 else answers[0]
        if HEADER not in headers or status >= 300:
            return http(status, body)
        assert self.session is not None
        header = self.session.sign(body)
        if self.spoil and self.spoil.pop(0):
            header = Ratchet(b"x" * 20).sign(body)
        return http(status, body, f"{HEADER}: {header}")


def http(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.0 {status} Word", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(registry: FakeRegistry) -> AsyncIterator[str]:
    server = await asyncio.start_server(registry.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{registry.base}"


Scenario = Callable[[FakeRegistry, RegistryClient], Awaitable[None]]
Play = Callable[..., None]
