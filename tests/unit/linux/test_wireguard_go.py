"""WireGuard by wireguard-go, played by a program that answers on its socket; and which implementation is chosen."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from re6st.core.machine.wanted_state import KernelLink
from re6st.core.transport.wireguard_uapi import LinkConfig
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard import Implementation, NoWireGuard, WireGuardError, choose, need_port
from re6st.linux.wireguard_go import WireGuardGo, WireGuardGoDevice

PROGRAM = """#!{python}
import socket, sys
assert sys.argv[1] == "--foreground"
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind("{sockets}/" + sys.argv[2] + ".sock")
    listening.listen()
    said = b""
    while True:
        with listening.accept()[0] as one:
            text = one.recv(4096)
            if text.startswith(b"set=1"):
                said = text
                one.sendall(b"{answer}")
            elif text:
                port = said.partition(b"listen_port=")[2].partition(b"\\n")[0] or b"0"
                one.sendall(b"listen_port=" + port + b"\\nrx_bytes=7\\nerrno=0\\n\\n")
"""


class PlayNetlink(Netlink):
    """A kernel in which each program has its interface."""

    def __init__(self, sockets: Path) -> None:
        self.sockets = sockets
        self.renamed: list[tuple[int, str]] = []

    def links(self) -> list[KernelLink]:
        return [KernelLink(index, path.stem, 0, "tun") for index, path in enumerate(self.sockets.glob("*.sock"))]

    def rename_link(self, index: int, name: str) -> None:
        self.renamed.append((index, name))


class World:
    def __init__(self, directory: Path, answer: str = r"errno=0\n\n", program: str = PROGRAM) -> None:
        self.sockets = directory / "sockets"
        self.program = directory / "wireguard-go"
        self.program.write_text(program.format(python=sys.executable, sockets=self.sockets, answer=answer))
        self.program.chmod(0o700)
        self.netlink = PlayNetlink(self.sockets)
        self.implementation = WireGuardGo(self.netlink, str(self.program), self.sockets)

    @asynccontextmanager
    async def device(self) -> AsyncIterator[WireGuardGoDevice]:
        device = await self.implementation.make("re6stnet1")
        try:
            yield device
        finally:
            await device.remove()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)  # /dev/net/tun
    return World(tmp_path)


def free_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


def test_an_interface_is_made_by_a_name_of_its_own_then_renamed_and_set(world: World) -> None:
    async def play() -> None:
        async with world.device() as device:
            assert world.netlink.renamed == [(0, "re6stnet1")]
            pid, name = device.process
            assert os.getpgid(pid) == pid
            assert device.socket == world.sockets / f"{name}.sock"
            config = LinkConfig(b"s" * 32, free_port(), b"p" * 32)
            await device.configure(config)
            assert (await device.state()).port == config.port
            assert (await device.state()).received == 7
        assert list(world.sockets.iterdir()) == []

    asyncio.run(play())


def test_the_next_daemon_goes_on_with_it(world: World) -> None:
    async def play() -> None:
        async with world.device() as device:
            found = world.implementation.found("re6stnet1", device.process)
            assert (await found.state()).received == 7
            assert found.process == device.process
        await asyncio.wait_for(found.gone(), 10)

    asyncio.run(play())


@pytest.mark.parametrize("process", [None, (1 << 22, "r600000000"), (os.getpid(), "../../etc"), (os.getpid(), "eth0")])
def test_what_is_no_process_of_one_is_not_gone_on_with(world: World, process: tuple[int, str] | None) -> None:
    async def play() -> None:
        with pytest.raises(WireGuardError):
            world.implementation.found("re6stnet1", process)

    asyncio.run(play())


def test_a_port_that_somebody_has_is_told_before_anything_is_set(world: World) -> None:
    async def play() -> None:
        async with world.device() as device:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
                taken.bind(("", 0))
                port = taken.getsockname()[1]
                with pytest.raises(WireGuardError, match=f"UDP port {port}: Address already in use"):
                    await device.configure(LinkConfig(b"s" * 32, port, b"p" * 32))
                with pytest.raises(WireGuardError):
                    need_port(port)
            assert (await device.state()).port == 0

    asyncio.run(play())


def test_a_refusal_is_an_error_with_its_number(tmp_path: Path, world: World) -> None:
    async def play() -> None:
        world.program.write_text(PROGRAM.format(python=sys.executable, sockets=world.sockets, answer=r"errno=-22\n\n"))
        async with world.device() as device:
            with pytest.raises(WireGuardError, match="re6stnet1: wireguard-go: refused") as error:
                await device.configure(LinkConfig(b"s" * 32, free_port(), b"p" * 32))
            assert error.value.errno == 22

    asyncio.run(play())


def test_one_that_dies_is_noticed(world: World) -> None:
    async def play() -> None:
        async with world.device() as device:
            gone = asyncio.create_task(device.gone())
            os.kill(device.process[0], signal.SIGKILL)
            await asyncio.wait_for(gone, 10)
            with pytest.raises(WireGuardError, match=r"re6stnet1: wireguard-go: .* \(SIGKILL\)"):
                await device.state()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("#!/bin/false\n", r"exit status 1\. It may be that each link needs an inotify"),
        ("#!/nowhere\n", ""),
    ],
)
def test_one_that_does_not_start_is_an_error_and_leaves_nothing(world: World, program: str, reason: str) -> None:
    async def play() -> None:
        world.program.write_text(program)
        with pytest.raises(WireGuardError, match=f"wireguard-go: {reason}"):
            await world.implementation.make("re6stnet1")
        assert list(world.sockets.iterdir()) == []

    asyncio.run(play())


def test_where_it_cannot_work_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netlink, program = PlayNetlink(tmp_path), str(tmp_path / "wireguard-go")
    monkeypatch.setattr(os, "access", lambda path, _mode: path == "/dev/net/tun")
    with pytest.raises(NoWireGuard, match="cannot be written"):
        WireGuardGo(netlink, program, tmp_path)
    with pytest.raises(NoWireGuard, match="cannot be written"):
        WireGuardGo(netlink, program, tmp_path / "no" / "where")
    monkeypatch.setattr(os, "access", lambda path, _mode: path != "/dev/net/tun")
    with pytest.raises(NoWireGuard, match="/dev/net/tun"):
        WireGuardGo(netlink, program, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os.path, "isfile", lambda _path: False)
    with pytest.raises(NoWireGuard, match="not installed"):
        WireGuardGo(netlink, None, tmp_path)


def test_the_first_implementation_that_there_is_is_taken_or_all_reasons_are_told(world: World) -> None:
    def absent() -> Implementation:
        raise NoWireGuard("the kernel has no module wireguard")

    assert choose((absent, lambda: world.implementation)) is world.implementation
    with pytest.raises(NoWireGuard, match="the kernel has no module wireguard; the kernel has no module wireguard"):
        choose((absent, absent))
