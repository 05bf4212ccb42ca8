"""Looks after what a node gave the kernel: others remove or change it at any moment (linux/kept_state.py puts it back).

Of links and addresses the kernel tells at once; the rest is looked at every few seconds, since babel's routes, which it
would tell of too, are very many.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from re6st.core.limits.said import Said
from re6st.core.machine.wanted_state import Fault, Setting
from re6st.linux import address_monitor
from re6st.linux.kept_state import KeptState
from re6st.linux.netlink import NetlinkError
from re6st.noded.router_advertisements import Advertisements

LOOK_EVERY = 2.0

log = logging.getLogger(__name__)


class Caretaker:
    """Keeps `state` as it is declared. `settings` are the sysctls that are wanted now; `restore` makes the tunnels of
    an interface anew which others deleted."""

    def __init__(
        self,
        state: KeptState,
        settings: Callable[[], tuple[Setting, ...]],
        restore: Callable[[str], Awaitable[None]],
        advertisements: Advertisements,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._settings = settings
        self._restore = restore
        self._advertisements = advertisements
        self._clock = clock
        self._said = Said()
        self._news = asyncio.Event()
        self._faults: list[Fault] = []
        self.present = asyncio.Event()
        """Set while our addresses are there."""

    def problems(self) -> list[str]:
        """What is missing and cannot be put back, in words."""
        return [str(fault) for fault in self._faults if fault.trouble]

    async def run(self) -> None:
        """Until cancelled. Raises OSError where the kernel tells nothing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="news of links and addresses")
            group.create_task(self._look_again(), name="what the kernel was given")

    async def _listen(self) -> None:
        async with aclosing(address_monitor.changes()) as changes:
            async for _ in changes:
                self._news.set()

    async def _look_again(self) -> None:
        told = True
        while True:
            try:
                await self.look(told=told)
            except NetlinkError as error:  # it changed all the time
                log.debug("what the kernel was given: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._news.wait()
            told = self._news.is_set()
            self._news.clear()

    async def look(self, *, told: bool = True) -> None:
        """Look once, and put back what is missing; at links and addresses where the kernel has `told` of a change, or
        something was wrong. Raises NetlinkError.
        """
        self._state.wanted = replace(self._state.wanted, settings=self._settings())
        self._faults = self._state.put_back(told=told)
        if any(fault.trouble and fault.thing in self._state.wanted.addresses for fault in self._faults):
            self.present.clear()
        else:
            self.present.set()
        texts = {str(fault): fault for fault in self._faults}
        for text in self._said.news(texts, self._clock()):
            if texts[text].trouble:
                log.error("%s", text)
            else:
                log.warning("another program removed or changed %s: restoring it", text)
        for name in self._advertisements.again():
            log.warning("another program set accept_ra of %s to 1: it is 2 again, since this machine forwards", name)
        while self._state.deleted:
            name = self._state.deleted.pop()
            log.warning("another program deleted the interface %s: opening its tunnels again", name)
            await self._restore(name)
