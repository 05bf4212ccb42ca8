"""What tests of what is sent start from."""

from __future__ import annotations

import pytest

from tests.unit.session_world import A, B, World


@pytest.fixture
def world() -> World:
    world = World()
    world.add(A)
    world.add(B)
    return world
