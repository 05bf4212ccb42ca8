"""A daemon that is told to end while it looks whether its successor could start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from re6st.noded.successor import CHECK_TIME

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import asyncio, os, sys, time
from pathlib import Path

if "--test" in sys.argv:
    Path("checker").write_text(f"{os.getpid()}\\n")
    time.sleep(60)

from re6st.noded.successor import Successor

async def main():
    # A busy machine is slow, and in development mode that is printed too.
    asyncio.get_running_loop().slow_callback_duration = 60
    stop = asyncio.Event()
    Successor(None, stop).take_our_place()
    while not Path("checker").exists() or not Path("checker").read_text().endswith("\\n"):
        await asyncio.sleep(0.01)

asyncio.run(main())
"""

ENDED = """
import asyncio, sys, time
from pathlib import Path

if "--test" in sys.argv:
    Path("checker").touch()
    while not Path("told").exists():
        time.sleep(0.01)
    {check}

from re6st.noded.successor import Successor

class Node:
    async def hand_over(self):
        print("handed over", flush=True)
        return {{}}

async def main():
    successor = Successor(Node(), asyncio.Event())
    successor.take_our_place()
    while not Path("checker").exists():
        await asyncio.sleep(0.01)
    successor.await_one()
    Path("told").touch()
    await asyncio.sleep(30)
    print("going on", flush=True)

asyncio.run(main())
"""

LATE = """
import asyncio, os, signal, sys

if "--test" in sys.argv:
    sys.exit()
if "NEXT" in os.environ:
    print("the next one is told", *(signal.Signals(number).name for number in signal.sigpending()))
    sys.exit()

from re6st.noded.successor import Successor
from re6st.service.threads import threads

NUMBER = signal.Signals[sys.argv[2]]
mask = signal.pthread_sigmask

def told(*arguments):
    os.kill(os.getpid(), NUMBER)
    return mask(*arguments)

class Node:
    async def hand_over(self):
        if sys.argv[1] == "while":
            os.kill(os.getpid(), NUMBER)
        return {"NEXT": "1"}

async def main():
    # What blocked, as the lookup of a name: its thread stays, and waits for more.
    asyncio.get_running_loop().set_default_executor(threads(1, "blocking"))
    await asyncio.to_thread(int)
    stop = asyncio.Event()
    successor = Successor(Node(), stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, successor.await_one)
    successor.take_our_place()
    if sys.argv[1] == "before":
        signal.pthread_sigmask = told
    await asyncio.sleep(30)

asyncio.run(main())
"""


def run(
    directory: Path, program: str, *arguments: str, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Have Python run a program in a directory, to its end."""
    (directory / "program").write_text(program)
    return subprocess.run(
        [sys.executable, *flags, "program", *arguments],
        cwd=directory,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_is_left_of_the_look_and_no_traceback_is_printed(tmp_path: Path) -> None:
    # Faults of objects that are thrown away while the interpreter ends are printed, not raised.
    done = run(tmp_path, PROGRAM, flags=("-X", "dev"))
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "checker").read_text())
    try:
        assert done.stderr == ""
        end = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert not Path(f"/proc/{pid}").exists()
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("check", ["time.sleep(60)", "sys.exit(1)"], ids=["slow", "failed"])
def test_who_is_told_to_end_while_it_looks_ends_at_once_whatever_it_finds(tmp_path: Path, check: str) -> None:
    """As by `systemctl restart` right behind a reload, on a busy machine, or with a certificate that has just ended."""
    began = time.monotonic()
    done = run(tmp_path, ENDED.format(check=check))
    assert (done.returncode, done.stdout) == (0, "handed over\n"), done.stderr
    assert time.monotonic() - began < CHECK_TIME


@pytest.mark.parametrize("number", ["SIGTERM", "SIGQUIT"])
@pytest.mark.parametrize("moment", ["before", "while"])
def test_who_is_told_to_end_while_it_hands_over_ends_or_tells_the_next_one(
    tmp_path: Path, moment: str, number: str
) -> None:
    """As by `systemctl stop` right behind a reload: a signal is not lost while what is remembered is written."""
    done = run(tmp_path, LATE, moment, number)
    ended = (0, "") if (moment, number) == ("before", "SIGQUIT") else (0, f"the next one is told {number}\n")
    assert (done.returncode, done.stdout) == ended, done.stderr
