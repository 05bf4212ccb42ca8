"""Shared by --check of re6stnet and --check-config of re6st-registry: whether files can be written, and how problems
are printed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

EX_CONFIG = 78
"""Exit status if something is wrong (sysexits.h)."""


def tell(program: str, problems: Sequence[str]) -> int:
    """Print one line for each problem, or that there is none. Returns the exit status."""
    for problem in problems:
        print(f"{program}: {' '.join(problem.split())}", file=sys.stderr)
    if not problems:
        print(f"{program}: the configuration is good")
    return EX_CONFIG if problems else 0


def cannot_write(path: Path, *, directory: bool = False) -> str | None:
    """Why a file, or files in a directory, cannot be written or made; None if they can."""
    if path.exists():
        if path.is_dir() != directory:
            return "no directory" if directory else "a directory"
        mode = os.W_OK | (os.X_OK if directory else os.R_OK)
        return None if os.access(path, mode) else "this user may not write it"
    parent = next(each for each in path.absolute().parents if each.exists())
    if not parent.is_dir():
        return f"{parent} is not a directory"
    return None if os.access(parent, os.W_OK | os.X_OK) else f"cannot be made, this user may not write in {parent}"
