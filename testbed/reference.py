"""The deployed software, from PyPI, in a virtual environment of its own.

It is made once, in $RE6ST_INTEROP_VENV (default: .venv-interop in the checkout); Debian needs python3-venv for it, and
on machines for which miniupnpc has no wheel gcc and python3-dev. Only the programs' command lines are used.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = ("re6stnet==0.642", "pyOpenSSL<24")


class InstallError(Exception):
    """The deployed software cannot be installed."""


def install() -> Path:
    """The folder of the deployed software's programs, installed if need be. Raises InstallError."""
    venv = Path(os.environ.get("RE6ST_INTEROP_VENV") or ROOT / ".venv-interop").absolute()
    venv.parent.mkdir(parents=True, exist_ok=True)
    complete = venv / "complete"
    lock = os.open(venv.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists() or complete.read_text() != "\n".join(PINS):
            _make(venv)
            complete.write_text("\n".join(PINS))
    finally:
        os.close(lock)
    return venv / "bin"


def theirs(reference: Path, program: str) -> list[str]:
    """Command of a deployed program; -I, since our package has the same name."""
    return [str(reference / "python"), "-I", str(reference / program)]


def _make(venv: Path) -> None:
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS]
    for arguments in ([sys.executable, "-m", "venv", "--clear", str(venv)], pip):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
            raise InstallError(f"the deployed software cannot be installed: {reason}")
