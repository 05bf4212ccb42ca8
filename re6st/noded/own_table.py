"""A table of nftables that a room has for itself, while it has something to do for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from re6st.core.machine.nftables_text import removal
from re6st.linux.nftables import NftError

THERE_EVERY = 5.0
"""Seconds between two looks at whether it is there: others may remove it, as by `nft flush ruleset`."""


class NftTables(Protocol):
    """nftables: linux/nftables.py."""

    async def load(self, commands: str, *, only_check: bool = False) -> None:
        """Raises NftError."""

    def counters(self, table: str) -> Mapping[str, int]: ...
    def counted_bytes(self, table: str) -> Mapping[str, int]: ...


class OwnTable:
    """For one room, which alone changes it. It has counters: by these it is seen whether it is there."""

    def __init__(self, nft: NftTables, name: str, clock: Callable[[], float]) -> None:
        self.is_begun = False
        """Whether the kernel may have it. It may also where the room ended while it was loaded: nft goes on then."""
        self._nft = nft
        self._name = name
        self._clock = clock
        self._seen_at = float("-inf")

    async def load(self, commands: str) -> None:
        """Make it, or change it. Raises NftError."""
        self.is_begun = True
        await self._nft.load(commands)
        self._seen_at = self._clock()

    async def remove(self) -> None:
        """Remove it, if there may be one."""
        if self.is_begun:
            with suppress(NftError):
                await self._nft.load(removal(self._name))
            self.is_begun = False

    async def remove_earlier(self) -> None:
        """Remove that of an earlier daemon. Where nft fails, it is replaced by the first one of ours."""
        if self.counted_bytes():
            with suppress(NftError):
                await self._nft.load(removal(self._name))

    def is_there(self, now: float) -> bool:
        """Whether it was there lately."""
        if now - self._seen_at < THERE_EVERY:
            return True
        self._seen_at = now
        return bool(self.counted_bytes())

    def counters(self) -> Mapping[str, int]:
        """Numbers of packets, by the name of the counter; empty if it does not exist."""
        return self._nft.counters(self._name)

    def counted_bytes(self) -> Mapping[str, int]:
        """Numbers of bytes, in the same way."""
        return self._nft.counted_bytes(self._name)
