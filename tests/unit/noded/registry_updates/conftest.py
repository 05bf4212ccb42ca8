"""A node that asks its registry without long pauses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from re6st import cert
from re6st.linux.process import Backoff
from re6st.noded import registry_updates
from tests.unit.registry_updates_world import YEAR, World


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_updates, "FETCH_DELAY", 0.0)
    monkeypatch.setattr(registry_updates, "FETCH_RETRY", 0.01)
    monkeypatch.setattr(Backoff, "next", lambda self: 0.001)


@pytest.fixture
def make_world(
    tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(ends: timedelta) -> World:
        made.append(World(tmp_path, authority, nodes["1/16"], ends=ends))
        return made[-1]

    yield make
    for world in made:
        world.cache.close(())


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(ends=YEAR)
