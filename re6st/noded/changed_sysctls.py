"""What babeld_sysctls.py and router_advertisements.py share: settings of the kernel, and notes of what was changed."""

from __future__ import annotations

import json
from pathlib import Path


def value(setting: Path) -> str:
    """What a setting is; empty where it went away, with its interface."""
    try:
        return setting.read_text().strip()
    except OSError:
        return ""


def noted(note: Path, limit: int) -> object:
    """What an earlier run noted as JSON, in so many bytes at most; None where that cannot be read."""
    try:
        with note.open("rb") as file:
            found: object = json.loads(file.read(limit))
            return found
    except (OSError, ValueError, RecursionError):
        return None
