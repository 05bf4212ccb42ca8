"""A program that starts anew in place is called as before: in ps, in `systemctl status`, for pgrep
(noded/successor.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = f"""#!{sys.executable}
import asyncio, os, sys
from pathlib import Path
from re6st.noded.successor import Successor

class Node:
    async def hand_over(self):
        return {{"STARTED": "2"}}

async def main():
    Successor(Node(), asyncio.Event()).take_our_place()
    await asyncio.sleep(60)

if "--test" not in sys.argv:
    comm = Path("/proc/self/comm").read_text().strip()
    words = Path("/proc/self/cmdline").read_bytes().split(b"\\0")
    print(comm, *(word.decode() for word in words), flush=True)
    if "STARTED" not in os.environ:
        asyncio.run(main())
"""


@pytest.mark.parametrize("by_itself", [True, False], ids=["script", "interpreter"])
@pytest.mark.parametrize("name", ["re6stnet", "re6stnet-of-a-long-name"])
def test_the_name_stays(tmp_path: Path, name: str, by_itself: bool) -> None:
    script = tmp_path / name
    script.write_text(PROGRAM)
    script.chmod(0o755)
    argv = [script] if by_itself else [sys.executable, script]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    environment.pop("STARTED", None)
    done = subprocess.run(
        [*argv, "--registry", "http://r/"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    before, after = done.stdout.splitlines()
    assert after == before
    if by_itself:
        assert before.startswith(name[:15] + " ")
