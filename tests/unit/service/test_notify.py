"""What systemd is told, on a socket of the test's."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from re6st.service import sd_notify
from re6st.service.sd_notify import Notifier


def test_words_of_a_life(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
        notifier = Notifier(environment)
        assert notifier.watchdog == 30
        notifier.ready("connected")
        assert systemd.recv(100) == b"READY=1\nSTATUS=connected"
        notifier.status("alone")
        assert systemd.recv(100) == b"STATUS=alone"
        notifier.alive()
        assert systemd.recv(100) == b"WATCHDOG=1"
        notifier.stopping()
        assert systemd.recv(100) == b"STOPPING=1"
        notifier.close()
        notifier.alive()


async def heard(systemd: socket.socket) -> str:
    return (await asyncio.get_running_loop().sock_recv(systemd, 100)).decode()


def test_nobody_waits_for_ever_with_a_node_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`systemctl start` returns though the registry is away, and the watchdog knows that we live."""
    monkeypatch.setattr(sd_notify, "PATIENCE", 0.01)

    async def run(systemd: socket.socket) -> None:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"})
        waiting = asyncio.create_task(notifier.wait())
        assert [await heard(systemd) for _ in range(3)] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
        waiting.cancel()
        told = asyncio.create_task(notifier.go_on([asyncio.Event()], lambda: "alone", time.monotonic))
        words = [await heard(systemd) for _ in range(3)]
        assert words == ["READY=1\nSTATUS=alone", "STATUS=alone", "WATCHDOG=1"], "babeld says nothing"
        told.cancel()
        notifier.close()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        asyncio.run(run(systemd))


def test_an_abstract_socket() -> None:
    name = f"re6st-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        systemd.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.alive()
        notifier.close()
        assert systemd.recv(100) == b"WATCHDOG=1"


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        notifier = Notifier(environment)
        notifier.ready("x")
        notifier.close()
    assert Notifier({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog is None
    assert Notifier({"WATCHDOG_USEC": "soon"}).watchdog is None
