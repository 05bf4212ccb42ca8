"""A daemon that is told to end while it looks whether its successor could start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import asyncio, os, sys, time
from pathlib import Path

if "--test" in sys.argv:
    Path("checker").write_text(f"{os.getpid()}\\n")
    time.sleep(60)

from re6st.successor import Successor

async def main():
    stop = asyncio.Event()
    Successor(None, stop).take_our_place()
    while not Path("checker").exists() or not Path("checker").read_text().endswith("\\n"):
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


def test_nothing_is_left_of_the_look_and_no_traceback_is_printed(tmp_path: Path) -> None:
    (tmp_path / "program").write_text(PROGRAM)
    # Faults of objects that are thrown away while the interpreter ends are printed, not raised.
    done = subprocess.run(
        [sys.executable, "-X", "dev", "program"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
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
