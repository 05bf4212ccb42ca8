"""The addresses that the network gives this machine: on it as long as the network wants them, and no longer."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from re6st.core.machine.wanted_state import AddressPlan
from re6st.linux.kernel import KernelError
from re6st.noded.left_behind import note

log = logging.getLogger(__name__)


class Machine(Protocol):
    """What puts them there; the kernel."""

    async def enter(self, plan: AddressPlan, main: str) -> None: ...

    async def leave(self, plan: AddressPlan, main: str) -> None: ...


class NetworkAddresses:
    """`main` is the interface that has the addresses."""

    def __init__(self, machine: Machine, main: str, run: Path) -> None:
        """What is there is noted in the run directory, before it is."""
        self._machine = machine
        self._main = main
        self._run = run
        self._there: list[AddressPlan] = []
        self.wanted: Collection[AddressPlan] = ()
        """What was asked for last."""
        self.former: set[AddressPlan] = set()
        """What the network has given up: a babeld may have left routes there."""

    async def enter(self, wanted: Collection[AddressPlan]) -> None:
        """Have these at the start. Raises KernelError."""
        self.wanted = wanted
        note(self._run, wanted)
        for plan in wanted:
            await self._machine.enter(plan, self._main)
            self._there.append(plan)

    async def follow(self, wanted: Collection[AddressPlan]) -> bool:
        """Have these and no others; whether that is done. Whoever asks again has done what failed before."""
        done = True
        self.wanted = wanted
        note(self._run, list(dict.fromkeys((*wanted, *self._there))))
        for plan in (*(each for each in self._there if each not in wanted), *wanted):
            try:
                if plan not in wanted:  # the network gave IPv4 up, or has another one
                    await self._machine.leave(plan, self._main)
                    self._there.remove(plan)
                    self.former.add(plan)
                elif plan not in self._there:  # IPv4 was brought to the network, or another one
                    await self._machine.enter(plan, self._main)
                    self._there.append(plan)
            except KernelError as error:
                log.error("%s", error)
                done = False
        note(self._run, self._there)
        return done
