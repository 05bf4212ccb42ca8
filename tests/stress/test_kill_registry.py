"""Nothing that a client was told is lost when the registry is killed: a short run of kill_registry.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.stress.kill_registry import rounds


def test_nothing_is_lost_by_kills_at_random_moments(tmp_path: Path) -> None:
    load = asyncio.run(rounds(tmp_path, 15, 3, 8))
    assert load.problems == []
    assert load.count["rounds"] == 15
    assert load.count["certificates"] > 50
    assert load.count["lost"] == 0
