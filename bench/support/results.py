"""What the benchmarks found: kept as JSON in docs/bench/, from which `./run bench report` draws plots and tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
DIRECTORY = ROOT / "docs" / "bench"

_BEGAN = time.monotonic()


def say(text: str) -> None:
    """Tell how far it is, with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGAN:6.0f} s] {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, object]:
    """What it ran on, and when."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    versions = {name: _first_line(*argv) for name, argv in VERSIONS.items()}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown"),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
    }


VERSIONS = {"babeld": ("babeld", "-V"), "openvpn": ("openvpn", "--version")}


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    words = (done.stdout + done.stderr).split()
    return next((word.removeprefix("babeld-") for word in words if any(c.isdigit() for c in word)), "")


def keep(name: str, results: dict[str, Any], path: Path | None = None) -> Path:
    """Write results, to docs/bench/NAME.json if no other path is given; where they are."""
    path = path or DIRECTORY / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    say(f"figures: {path}")
    return path
