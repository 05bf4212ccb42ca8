"""The first peer, from the registry."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from re6st.client.registry_client import RegistryError
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import parse_addresses
from re6st.noded import first_peer
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
    registry = Registry(refuses=True)

    async def run() -> None:
        first = FirstPeer(cast(Any, registry))
        first.foresee()
        assert await first.get() is None

    asyncio.run(run())
    assert registry.asked == 2, "once ahead of time, and once when it is wanted"


def test_who_could_not_be_asked_for_ahead_of_time_is_asked_for_when_wanted() -> None:
    """The first question went out before the routes of an earlier run were removed."""

    class Unreachable(Registry):
        async def get_bootstrap_peer(self) -> tuple[Prefix, str] | None:
            self._refuses = self.asked == 0
            return await super().get_bootstrap_peer()

    async def run() -> None:
        first = FirstPeer(cast(Any, Unreachable()))
        first.foresee()
        await asyncio.sleep(0)
        assert await first.get() == (PEER, parse_addresses(PLACE))

    asyncio.run(run())


def test_a_question_ahead_of_time_that_hangs_is_given_up_when_the_peer_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first_peer, "FORESEEN", 0.01)
    given_up = list[bool]()

    class Lost(Registry):
        async def get_bootstrap_peer(self) -> tuple[Prefix, str] | None:
            if not self.asked:
                self.asked += 1
                try:
                    await asyncio.Event().wait()
                finally:
                    given_up.append(True)
            return await super().get_bootstrap_peer()

    async def run() -> None:
        first = FirstPeer(cast(Any, Lost()))
        first.foresee()
        await asyncio.sleep(0)
        async with asyncio.timeout(5):  # less than the patience with a registry
            assert await first.get() == (PEER, parse_addresses(PLACE))

    asyncio.run(run())
    assert given_up == [True]
