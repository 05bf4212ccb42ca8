"""Looks whether another program's firewall drops what this machine forwards, whenever somebody changes nftables."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from re6st.core.interfaces import PREFIX
from re6st.core.machine.forward_chain import Blocked, blocked
from re6st.core.machine.packet_rules import TABLE
from re6st.linux.nft_news import looks
from re6st.linux.nftables import Nft, NftError
from re6st.linux.process import MissingProgram

LOOK_EVERY = 2.0
"""Seconds between two looks whether something changed, where the kernel does not tell."""
READ_EVERY = 10.0
"""Seconds between two readings of all rules, where somebody changes them all the time."""
READ_ANYWAY = 60.0
"""Where the kernel does not tell that something changed."""
REMEDY = f'let iifname "{PREFIX}*" oifname "{PREFIX}*" pass there'

log = logging.getLogger(__name__)


class FirewallCheck:
    """`changed` is told whether this machine may forward, when it becomes certain that it may not, or no longer so."""

    def __init__(self, changed: Callable[[bool], object], make: Callable[[], Nft] = Nft) -> None:
        self._changed = changed
        self._make = make
        self._generation: int | None = None
        self.found: Blocked | None = None

    @property
    def forwards(self) -> bool:
        """Whether this machine may forward, as far as we know."""
        return self.found is None or not self.found.certain

    def broken(self) -> list[str]:
        """What keeps traffic from passing, in words."""
        if self.found is None or self.forwards:
            return []
        return [f"a firewall drops all that this machine forwards ({self.found.where}): {REMEDY}"]

    def doubts(self) -> list[str]:
        """What may keep it."""
        if self.found is None or not self.forwards:
            return []
        return [f"a firewall may drop what this machine forwards ({self.found.where}): {REMEDY}"]

    async def run(self) -> None:
        """Until cancelled; without nft there is nothing to see."""
        try:
            nft = self._make()
        except MissingProgram:
            return
        try:
            async with aclosing(looks(asyncio.Event(), lambda: READ_ANYWAY, LOOK_EVERY)) as moments:
                async for _ in moments:
                    generation = nft.generation()
                    if generation is None or generation != self._generation:
                        self._generation = generation
                        await self.look(nft)
                        await asyncio.sleep(READ_ANYWAY if generation is None else READ_EVERY)
        finally:
            nft.close()

    async def look(self, nft: Nft) -> None:
        """Read all rules once."""
        try:
            found = blocked(await nft.listing("ruleset", contents=False), TABLE)
        except (NftError, KeyError, TypeError, AttributeError) as error:
            log.debug("the rules of others: %s", error)
            return
        before, forwarded = self.found, self.forwards
        self.found = found
        if found is not None and found != before:
            for text in self.broken() + self.doubts():
                log.warning("%s", text)
        elif found is None and before is not None:
            log.info("no firewall drops what this machine forwards any more")
        if self.forwards != forwarded:
            self._changed(self.forwards)
