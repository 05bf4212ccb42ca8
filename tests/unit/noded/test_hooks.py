"""The user's own commands, run by a real shell."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

import pytest

from re6st.linux.process import birth
from re6st.noded.hooks import HookError, Hooks
from re6st.service.run_names import DAEMONS


def test_up_runs_to_its_end_before_the_daemons(tmp_path: Path) -> None:
    async def run() -> None:
        up = [f"echo one $re6stnet_ip >> {tmp_path}/said", f"echo two >> {tmp_path}/said"]
        hooks = Hooks(up, [f"echo three >> {tmp_path}/said; exec sleep 60"], {"re6stnet_ip": "2001:db8::1"}, tmp_path)
        await hooks.start()
        deadline = time.monotonic() + 10
        while "three" not in (tmp_path / "said").read_text() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await hooks.stop()
        await hooks.stop()

    asyncio.run(run())
    assert (tmp_path / "said").read_text() == "one 2001:db8::1\ntwo\nthree\n"


@pytest.mark.parametrize(("command", "reason"), [("exit 1", "exit status 1"), ("kill -9 $$", "SIGKILL")])
def test_up_that_fails_is_an_error_and_starts_no_daemon(tmp_path: Path, command: str, reason: str) -> None:
    hooks = Hooks([command], [f"touch {tmp_path}/started"], {}, tmp_path)
    with pytest.raises(HookError, match=reason):
        asyncio.run(hooks.start())
    assert not (tmp_path / "started").exists()


def test_a_daemon_that_ends_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        hooks = Hooks([], ["exit 3", "PASSWORD=SECRET exit 4"], {}, tmp_path)
        await hooks.start()
        watching = asyncio.create_task(hooks.watch())
        deadline = time.monotonic() + 10
        while caplog.text.count("ended") < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait([watching])
        await hooks.stop()

    asyncio.run(run())
    assert "'exit ...' ended: exit status 3" in caplog.text
    assert "'...' ended: exit status 4" in caplog.text, "the log is told to others, and sent with a report"


def test_the_daemons_of_a_run_that_was_killed_are_ended_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def hooks() -> Hooks:
        return Hooks([], ["exec sleep 60"], {}, tmp_path)

    async def run() -> None:
        killed = hooks()
        await killed.start()
        (pid, born), *others = json.loads((tmp_path / DAEMONS).read_text())
        assert not others
        await hooks().clear()
        async with asyncio.timeout(10):
            while birth(pid) == born:
                await asyncio.sleep(0.01)
        assert f"ended process {pid} of --daemon" in caplog.text
        caplog.clear()
        await hooks().clear()
        bystander = subprocess.Popen(["sleep", "60"])
        try:
            for text in (f"[[{bystander.pid}, {(birth(bystander.pid) or 0) + 1}]]", "[[1]]", "{", "", "[[0, null]]"):
                (tmp_path / DAEMONS).write_text(text)
                await hooks().clear()
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()
        assert not [record for record in caplog.records if record.name.startswith("re6st")]

    asyncio.run(run())
