"""What a target of the fuzzers is, and what targets share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent.parent / "vectors"


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and inputs that it takes."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def vector(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


@cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()
