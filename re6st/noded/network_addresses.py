"""The addresses that the network gives this machine: on it as long as the network wants them, and no longer."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from re6st.linux.kept_state import Presence
from re6st.linux.kernel import KernelError
from re6st.noded.left_behind import note

log = logging.getLogger(__name__)


class Machine(Protocol):
    """What puts them there; the kernel."""

    async def enter(self, presence: Presence, main: str) -> None: ...

    async def leave(self, presence: Presence, main: str) -> None: ...


class Presences:
    """`main` is the interface that has the addresses."""

    def __init__(self, machine: Machine, main: str, run: Path) -> None:
        """What is there is noted in the run directory, before it is."""
        self._machine = machine
        self._main = main
        self._run = run
        self._there: list[Presence] = []
        self.wanted: Collection[Presence] = ()
        """What was asked for last."""
        self.former: set[Presence] = set()
        """What the network has given up: a babeld may have left routes there."""

    async def enter(self, wanted: Collection[Presence]) -> None:
        """Have these at the start. Raises KernelError."""
        self.wanted = wanted
        note(self._run, wanted)
        for presence in wanted:
            await self._machine.enter(presence, self._main)
            self._there.append(presence)

    async def follow(self, wanted: Collection[Presence]) -> bool:
        """Have these and no others; whether that is done. Whoever asks again has done what failed before."""
        done = True
        self.wanted = wanted
        note(self._run, list(dict.fromkeys((*wanted, *self._there))))
        for presence in (*(each for each in self._there if each not in wanted), *wanted):
            try:
                if presence not in wanted:  # the network gave IPv4 up, or has another one
                    await self._machine.leave(presence, self._main)
                    self._there.remove(presence)
                    self.former.add(presence)
                elif presence not in self._there:  # IPv4 was brought to the network, or another one
                    await self._machine.enter(presence, self._main)
                    self._there.append(presence)
            except KernelError as error:
                log.error("%s", error)
                done = False
        note(self._run, self._there)
        return done
