"""The properties of the terminal on which a program prints, and how it prints there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from re6st.view.screen import Line, paint


def width() -> int | None:
    """Columns of the terminal; None if the output is not a terminal, where nothing needs to be cut."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None
    except OSError:
        return None


def has_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(lines: Iterable[Line]) -> None:
    """Print lines, none wider than the terminal."""
    for each in paint(lines, colour=has_colour(), width=width()):
        print(each, flush=True)
