"""Settings of a babeld, and a babeld that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Interface, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from re6st.babel import Babel, BabeldFiles, command_line
from re6st.core.routing.babel_settings import BabelSettings
from re6st.linux.process import Backoff
from tests.unit.fake_program import FakePrograms, Script, all_gone, install

PLAIN = BabelSettings(
    network=IPv6Network("2001:db8:42::/48"),
    subnet=IPv6Network("2001:db8:42:b::/64"),
    address=IPv6Address("2001:db8:42:b::1"),
    tunnels=("re6stnet-tcp", "re6stnet1"),
)
ROUTE = (
    "add route 55f0c6ed9410 prefix 2001:db8:42:b::/64 from ::/0 installed yes id a8:e2:88:40:b9:88:04:42 metric 96 "
    "refmetric 0 via fe80::3cb3:c7ff:fe1d:47a8 if re6stnet1"
)


# --- a babeld that a test plays ---


def played(*events: str, then: Callable[[asyncio.StreamReader], Awaitable[object]] | None = None) -> Script:
    """Greets, dumps one route, tells events, and goes on until its socket is closed."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = ("BABEL 1.0", "version babeld-1.12.1", "host x", "my-id 02:00:00:00:00:00:00:01", "ok")
        writer.write("".join(f"{line}\n" for line in greeting).encode())
        assert await reader.readline() == b"monitor\n"
        writer.write(f"{ROUTE}\nok\n".encode())
        writer.write("".join(f"{line}\n" for line in events).encode())
        await (then or asyncio.StreamReader.read)(reader)

    return script


async def at_once(_reader: asyncio.StreamReader) -> None: ...


class Quick(Backoff):
    def next(self) -> float:
        return 0.001


class PlayedLinks:
    """A machine's interfaces: `put` is called with what is to be on them."""

    def __init__(self) -> None:
        self.put: Callable[[IPv4Interface | None], None] = lambda own: None

    async def address_links(self, own: IPv4Interface | None) -> None:
        self.put(own)


def files_in(run: Path) -> BabeldFiles:
    return BabeldFiles(run / "babeld.conf", run / "babeld.ctl", run / "babeld.state", run / "babeld.out")


def live(
    monkeypatch: pytest.MonkeyPatch,
    run: Path,
    scripts: list[Script | int],
    watch: Callable[[Babel, FakePrograms], Awaitable[None]],
    settings: BabelSettings = PLAIN,
    links: PlayedLinks | None = None,
) -> list[int]:
    """Keep a babeld until `watch` returns; the number of routes at each change of the table that was told."""
    monkeypatch.setattr("re6st.linux.process.Backoff", Quick)
    programs = install(monkeypatch, "-G", *scripts)
    sizes: list[int] = []
    known: list[Babel] = []

    def changed() -> None:
        sizes.append(len(known[0].table.routes))

    async def main() -> None:
        files = files_in(run)
        kept = Babel(command_line("babeld", files, []), files, settings, changed, links or PlayedLinks())
        known.append(kept)
        task = asyncio.create_task(kept.run())
        try:
            await watch(kept, programs)
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()
        assert not kept.ready.is_set()
        assert kept.table.routes == {}
        await all_gone(programs)

    asyncio.run(main())
    return sizes
