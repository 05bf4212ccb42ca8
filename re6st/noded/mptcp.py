"""Has one connection use all lines of this machine, where its programs speak MPTCP (--mptcp; core/machine/mptcp.py).

Where a line goes, its endpoints do, and the kernel sends by the other subflows what they had. A node with one line has
no endpoints, but the limits: so its connections to a node with several lines use these.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv6Network
from typing import Protocol

from re6st.core.limits.said import Said
from re6st.core.machine import mptcp_numbers
from re6st.core.machine.mptcp import MptcpEndpoint, endpoints, things
from re6st.core.machine.uplinks import Uplink
from re6st.core.machine.wanted_state import Fault, KernelRule, Placed
from re6st.core.prefix import Prefix, subnet
from re6st.core.telemetry.report import Record
from re6st.noded.mptcp_settings import MptcpSettings

LOOK_EVERY = 2.0
"""Seconds between two looks at the lines, and at whether others removed something."""

log = logging.getLogger(__name__)


class SubflowKernel(Protocol):
    """Who puts addresses and rules into the kernel: linux/kernel.py."""

    async def lead_mptcp(self, things: tuple[Placed | KernelRule, ...]) -> list[Fault]:
        """Raises OSError."""


class Mptcp:
    """For one node. `lines` are those that are up, by slot. If it is not `on`, what an earlier run left goes."""

    def __init__(
        self,
        network: IPv6Network,
        own: Prefix,
        lines: Callable[[], Mapping[int, Uplink]],
        kernel: SubflowKernel,
        settings: MptcpSettings,
        *,
        on: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._subnet = subnet(network, own)
        self._room = mptcp_numbers.reserved(self._subnet)
        self._lines = lines
        self._kernel = kernel
        self._settings = settings
        self._on = on
        self._clock = clock
        self._given: dict[str, tuple[MptcpEndpoint, ...]] = {}
        """By the name of the line."""
        self._things: tuple[Placed | KernelRule, ...] | None = None
        """What the kernel was given; None before that."""
        self._trouble = ""
        self._said = Said()

    @property
    def apart(self) -> IPv6Network | None:
        """Where the addresses are whose packets go over a certain line."""
        return self._room if self._on else None

    def record(self) -> Record:
        """For the operator: addresses by line."""
        return {
            "wanted": self._on,
            "active": bool(self._given) and not self._trouble,
            "trouble": self._trouble,
            "lines": {name: {each.use: str(each.address) for each in of} for name, of in self._given.items()},
        }

    def problem(self) -> str | None:
        """What keeps connections from using all lines, in words."""
        return f"--mptcp: {self._trouble}" if self._trouble else None

    async def run(self) -> None:
        """Until cancelled."""
        if not self._on:
            self._settings.recall()
            self._settings.undo()
        while True:
            await self.look()
            if not self._on and self._things is not None:
                return
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Look once, and put back what is missing."""
        trouble = ""
        try:
            trouble = "; ".join(await self._follow())
        except OSError as error:
            trouble = error.strerror or str(error)
        self._trouble = trouble
        for each in self._said.news([trouble] if trouble else [], self._clock()):
            log.warning("one connection uses one line: MPTCP: %s", each)

    # -- within --

    async def _follow(self) -> list[str]:
        """Have what the lines of now need; what keeps any of it away. Raises OSError."""
        lines = self._lines() if self._on else {}
        if self._room is None or len(lines) < 2:
            wanted: dict[int, tuple[MptcpEndpoint, ...]] = {}
            given: tuple[Placed | KernelRule, ...] = ()
        else:
            wanted = endpoints(self._room, lines)
            given = things(self._room, self._network, lines)
        all_of_them = [each for of in wanted.values() for each in of]
        found: list[str] = []
        if given != self._things:
            if self._on and set(self._things or ()) - set(given):
                # An endpoint goes before its address: the kernel tells the other end then.
                addresses = {each.ip for each in self._things or () if isinstance(each, Placed)}
                self._settings.follow([each for each in all_of_them if each.address in addresses], self._room)
            faults = await self._kernel.lead_mptcp(given)
            found += map(str, faults)
            self._things = None if faults else given  # then once more at the next look
        if self._on:
            # Without the rules, packets from these addresses could leave the network.
            found += self._settings.follow([] if found else all_of_them, self._room)
        named = {lines[slot].name: of for slot, of in wanted.items()}
        if named != self._given and not found:
            self._tell(named)
        self._given = named
        if self._on and self._room is None and len(lines) > 1:
            found.append(
                f"the subnet {self._subnet} has no room for an address of each line:"
                f" it needs a prefix of {mptcp_numbers.LONGEST} bits at most"
            )
        return found

    def _tell(self, named: Mapping[str, tuple[MptcpEndpoint, ...]]) -> None:
        if named:
            texts = (f"{name} from {', '.join(str(each.address) for each in of)}" for name, of in named.items())
            log.info("one connection of MPTCP uses all lines: %s", "; ".join(texts))
        else:
            log.info("one connection of MPTCP uses one line: there is one")
