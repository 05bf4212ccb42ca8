"""The first peer, from the registry."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from re6st.client.registry_client import RegistryError
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import parse_addresses
from re6st.noded.first_peer import FirstPeer

PEER = Prefix(7, 16)
PLACE = "192.0.2.1,1194,tcp"


class Registry:
    """Names a peer, or refuses, and counts how often it was asked."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.asked = 0
        self._refuses = refuses

    async def get_bootstrap_peer(self) -> tuple[Prefix, str] | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self._refuses:
            raise RegistryError("not now")
        return PEER, PLACE


def test_who_is_foreseen_is_asked_for_once_and_the_next_time_anew() -> None:
    registry = Registry()

    async def run() -> None:
        first = FirstPeer(cast(Any, registry))
        first.foresee()
        await asyncio.sleep(0)
        assert registry.asked == 1
        assert await first.get() == (PEER, parse_addresses(PLACE))
        assert registry.asked == 1
        assert await first.get() == (PEER, parse_addresses(PLACE))
        assert registry.asked == 2, "they take turns"

    asyncio.run(run())


def test_a_registry_that_refuses_ahead_of_time_names_nobody() -> None:
    async def run() -> None:
        first = FirstPeer(cast(Any, Registry(refuses=True)))
        first.foresee()
        assert await first.get() is None

    asyncio.run(run())
