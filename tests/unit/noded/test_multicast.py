"""pim-dm: its configuration, and a program of that name that is played by a shell script (wire.md 10.8)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from re6st.linux import address_monitor
from re6st.linux.process import Backoff
from re6st.noded import multicast
from re6st.noded.multicast import Multicast, configuration

STAYS = 'case "$1" in -config) exec sleep 60;; esac'
LEAVES = "exit 0"
ENDS = 'case "$1" in -config) exit 3;; esac'
REFUSES = 'case "$1" in -config) exec sleep 60;; *) exit 1;; esac'


def test_the_configuration_names_each_interface_in_both_protocols() -> None:
    assert configuration(["eth0", "re6stnet1"]) == (
        "PIM-DM:\n"
        "  Interfaces:\n"
        "    'eth0':\n"
        "      ipv6:\n"
        "        enabled: true\n"
        "        state_refresh: true\n"
        "    're6stnet1':\n"
        "      ipv6:\n"
        "        enabled: true\n"
        "        state_refresh: true\n"
        "MLD:\n"
        "  Interfaces:\n"
        "    'eth0':\n"
        "      enabled: true\n"
        "    're6stnet1':\n"
        "      enabled: true\n"
    )
    assert configuration([]) == "PIM-DM:\n  Interfaces: {}\nMLD:\n  Interfaces: {}\n"


class Quick(Backoff):
    def next(self) -> float:
        return 0.01


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a script as pim-dm until something was said to it; what was said to it, to its end."""
    monkeypatch.setattr("re6st.linux.process.Backoff", Quick)

    def play(script: str, until: str, up: set[str], then_up: set[str] | None = None) -> list[str]:
        said = tmp_path / "said"
        said.touch()
        program = tmp_path / "pim-dm"
        program.write_text(f'#!/bin/sh\necho "$*" >> {said}\n{script}\n')
        program.chmod(0o755)
        now_up = set(up)

        async def is_up() -> set[str]:
            return now_up

        async def run() -> None:
            changed = asyncio.Event()

            async def changes() -> AsyncGenerator[None, None]:
                yield
                while True:
                    await changed.wait()
                    changed.clear()
                    yield

            monkeypatch.setattr(address_monitor, "changes", changes)
            keeper = Multicast(str(program), tmp_path, lambda: ("re6stnet-tcp", "re6stnet1", "eth0"), is_up)
            task = asyncio.create_task(keeper.run())
            deadline = time.monotonic() + 20
            while until not in said.read_text():
                if then_up and "-config" in said.read_text():
                    now_up.update(then_up)
                    changed.set()
                assert time.monotonic() < deadline, said.read_text()
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(run())
        return said.read_text().splitlines()

    return play


def test_interfaces_that_come_up_later_are_added(play: Callable[..., list[str]], tmp_path: Path) -> None:
    file = tmp_path / "re6stnet-multicast.yaml"
    said = play(STAYS, "-aimld re6stnet1", {"eth0", "lo"}, {"re6stnet1"})
    assert said == [f"-config {file}", "-6 -aisr re6stnet1", "-aimld re6stnet1"]
    assert file.read_text() == configuration(["eth0"])


def test_it_is_started_again_when_it_ends(
    play: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = f"-config {tmp_path}/re6stnet-multicast.yaml"
    assert play(ENDS, f"{config}\n{config}\n", {"eth0"})[:2] == [config, config]
    assert "pim-dm ended (exit status 3)" in caplog.text


def test_one_that_leaves_a_daemon_behind_is_told_to_stop(play: Callable[..., list[str]]) -> None:
    assert play(LEAVES, "-aimld re6stnet1", {"eth0"}, {"re6stnet1"})[-1] == "-6 -stop"


def test_a_command_that_fails_is_given_again(play: Callable[..., list[str]], caplog: pytest.LogCaptureFixture) -> None:
    again = "-6 -aisr re6stnet1\n-6 -aisr re6stnet1\n"
    assert play(REFUSES, again, set(), {"re6stnet1"})
    assert "pim-dm -6 -aisr re6stnet1: exit status 1" in caplog.text


def test_a_command_that_hangs_is_ended(
    play: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(multicast, "COMMAND_TIME", 0.05)
    play("exec sleep 60", "-6 -aisr re6stnet1\n-6 -aisr re6stnet1\n", set(), {"re6stnet1"})
    assert "pim-dm -6 -aisr re6stnet1: not done in 0.05 s" in caplog.text
