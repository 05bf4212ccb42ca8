"""An OpenVPN that a test plays: its end of the management connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.process import Backoff
from re6st.transport.openvpn import OpenVpnSettings
from tests.unit.fake_program import Script

A, B = Prefix(1, 16), Prefix(2, 16)
ONE, TWO = Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP), Endpoint("192.0.2.2", 443, TunnelProtocol.UDP)


def made(run: Path, *, encrypt: bool = True, log: Path | None = None) -> OpenVpnSettings:
    return OpenVpnSettings(
        program="/usr/sbin/openvpn",
        run=run,
        log=log,
        ca=Path("ca.crt"),
        cert=Path("cert.crt"),
        key=Path("cert.key"),
        encrypt=encrypt,
        ping_exit=60,
        extra=("--verb", "4"),
    )


class Peer:
    """The OpenVPN's end of one management connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.heard: list[str] = []

    def say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())

    def block(self, kind: str, head: str, **values: object) -> None:
        self.say(f">{kind}:{head}", *(f">{kind}:ENV,{n}={v}" for n, v in values.items()), f">{kind}:ENV,END")

    async def hears(self, line: str) -> None:
        """Read on until this line comes."""
        async with asyncio.timeout(10):
            while line not in self.heard:
                got = await self._reader.readline()
                if not got:
                    raise EOFError(f"{line!r} never came, only {self.heard}")
                self.heard.append(got.decode().rstrip("\n"))

    async def closes(self) -> None:
        async with asyncio.timeout(10):
            while await self._reader.readline():
                pass


def played(part: Callable[[Peer], Awaitable[None]]) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        peer.say(">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info")
        peer.say(">HOLD:Waiting for hold release:0")
        await peer.hears("hold release")
        assert "state on" in peer.heard
        await part(peer)

    return script


class QuickBackoff(Backoff):
    def next(self) -> float:
        return 0.001


def resumed(script: Callable[[Peer], Awaitable[None]]) -> Script:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        await peer.hears("state on")
        await script(peer)

    return play
