"""What older ways of installing read: setup.py, as zc.recipe.egg calls it, and extras that others ask for."""

from __future__ import annotations

import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_setup_py_tells_of_the_extras_that_slapos_asks_for(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    metadata = Parser().parsestr((tmp_path / "re6stnet.egg-info/PKG-INFO").read_text())
    assert {"geoip", "multicast", "test"} <= set(metadata.get_all("Provides-Extra", []))
    always, *extras = (tmp_path / "re6stnet.egg-info/requires.txt").read_text().split("[")
    assert "maxminddb>=1.5.4" in always.split(), "what it has pinned"
    needed = {name: more.split() for name, _, more in (each.partition("]") for each in extras)}
    assert needed.get("geoip", []) == needed.get("multicast", []) == []
