"""What tests of a client start from."""

from __future__ import annotations

import asyncio

import pytest

from re6st import cert
from re6st.client.registry_client import (
    RegistryClient,
)
from tests.unit.fake_registry import FakeRegistry, Play, Scenario, serving


@pytest.fixture
def node(nodes: dict[str, cert.Identity]) -> cert.Identity:
    return nodes["1/16"]


@pytest.fixture
def play(authority: cert.Authority, node: cert.Identity) -> Play:
    """Runs a scenario with a registry and a client of it."""

    def run(
        scenario: Scenario, *, base: str = "", slash: str = "/", timeout: float = 30, anonymous: bool = False
    ) -> None:
        async def main() -> None:
            registry = FakeRegistry(authority, node)
            registry.base = base
            async with serving(registry) as url:
                await scenario(registry, RegistryClient(url + slash, None if anonymous else node, timeout=timeout))

        asyncio.run(main())

    return run
