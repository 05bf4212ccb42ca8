"""The addresses that the network gives this machine: on it as long as the network wants them, and no longer."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

from re6st.core.machine.wanted_state import AddressPlan
from re6st.linux.kernel import KernelError
from re6st.noded.left_behind import note

log = logging.getLogger(__name__)


class AddressKernel(Protocol):
    """What puts them there; the kernel."""

    async def have(self, plans: Iterable[AddressPlan], interface: str) -> None:
        """These, and no others. Raises KernelError."""


class NetworkAddresses:
    """`main` is the interface that has the addresses."""

    def __init__(self, machine: AddressKernel, main: str, run: Path) -> None:
        """What is there is noted in the run directory, before it is."""
        self._machine = machine
        self._main = main
        self._run = run
        self._there: list[AddressPlan] = []
        """What may be."""
        self.wanted: Collection[AddressPlan] = ()
        """What was asked for last."""
        self.former: set[AddressPlan] = set()
        """What the network has given up: a babeld may have left routes there."""

    async def enter(self, wanted: Collection[AddressPlan]) -> None:
        """Have these and no others. Raises KernelError."""
        self.wanted = wanted
        self._there = list(dict.fromkeys((*wanted, *self._there)))
        note(self._run, self._there)
        await self._machine.have(wanted, self._main)
        self.former.update(each for each in self._there if each not in wanted)
        self._there = list(wanted)
        note(self._run, wanted)

    async def follow(self, wanted: Collection[AddressPlan]) -> bool:
        """The same; whether that is done. Whoever asks again has done what failed before."""
        try:
            await self.enter(wanted)
        except KernelError as error:
            log.error("%s", error)
            return False
        return True
