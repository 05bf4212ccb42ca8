"""The commands of the documentation: read from its pages, and run as a reader would.

A command is a line of a block marked `console` that begins with a prompt: `registry$`, `node$`, or `$` where it does
not matter. The other lines of such a block are what is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
_COMMAND = re.compile(r"(\w*)\$ (.+)")


@dataclass(frozen=True, slots=True)
class Command:
    page: str
    line: int
    machine: str
    """What the prompt says; may be empty."""
    text: str


def pages(directory: Path) -> list[Path]:
    """All pages, in order of their names."""
    return sorted(directory.rglob("*.md"))


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page, in order."""
    text = page.read_text()
    for block in _BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1)) + 1
        for number, line in enumerate(block[1].splitlines(), first):
            if match := _COMMAND.fullmatch(line):
                yield Command(page.stem, number, match[1], match[2])
