"""Sends neighbours with several lines what is for them by the line that they wish (docs/uplinks.md).

core/routing/handing.py decides. An nftables table of ours marks packets accordingly (core/machine/handing_rules.py),
and the kernel has a table of routes for each mark. Nothing of that is there while nobody wishes anything; and where any
of it is missing, nobody is told that we are ready.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Protocol

from re6st.core.machine import share_numbers
from re6st.core.machine.handing_rules import HANDED, HOME, TABLE, HandingRules, filling, kernel_rules, ruleset
from re6st.core.machine.wanted_state import Fault, KernelRule
from re6st.core.prefix import Prefix, address, subnet
from re6st.core.routing.babel_lines import DRAINED, NextHop
from re6st.core.routing.handing import Handed, Handing, NeighbourLinks
from re6st.core.routing.line_ways import LineWays, silent
from re6st.core.routing.line_wishes import Message, Ready, Wish
from re6st.core.telemetry.report import Record
from re6st.linux.nftables import NftError
from re6st.noded.link_counts import TableSource
from re6st.noded.own_table import NftTables, OwnTable

LOOK, LEAST = 0.5, 0.1
"""Seconds between two looks while somebody wishes something, and at least, whoever says what."""
WRITE = 0.7
"""Seconds between two changes of our table, whoever wishes what."""
ANEW = 10.0
"""Seconds after which all routes are put there again: others may remove some, or the kernel, with an interface that was
down."""
AGAIN = 30.0
"""Seconds until it is tried again, where nft or the kernel has refused."""

log = logging.getLogger(__name__)


class HandingKernel(Protocol):
    """Who has the kernel lead marked packets."""

    async def lead_handed(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        """Raises OSError."""


class HandingRoutes(Protocol):
    """linux/share_routes.py."""

    async def follow(
        self, wanted: LineWays, source: IPv6Address, *, anew: bool = False
    ) -> frozenset[tuple[int, IPv6Network]]:
        """Returns what is missing then."""


class LinkOwners(Protocol):
    """Who is at the other ends of our tunnels."""

    def owner_at(self, hop: NextHop) -> Prefix | None: ...


class LineTeller(Protocol):
    """Who tells others: line_words.py."""

    def tell(self, peer: Prefix, message: Message) -> None: ...


@dataclass(frozen=True, slots=True)
class HandingMachine:
    """What is asked of this machine. Without `nft` nothing is handed."""

    kernel: HandingKernel
    routes: HandingRoutes
    nft: NftTables | None


class HandingRoom:
    """For one node. `bulk_apart` says whether bulk traffic has a plane of its own now."""

    def __init__(
        self,
        network: IPv6Network,
        own: Prefix,
        routing: TableSource,
        owners: LinkOwners,
        machine: HandingMachine,
        words: LineTeller,
        bulk_apart: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._address = address(network, own)
        self._routing = routing
        self._owners = owners
        self._machine = machine
        self._table = None if machine.nft is None else OwnTable(machine.nft, TABLE, clock)
        self._words = words
        self._bulk_apart = bulk_apart
        self._clock = clock
        self._handing = Handing(own)
        self._dead: frozenset[NextHop] = frozenset()
        self._best: dict[Prefix, NextHop] = {}
        self._rules: HandingRules | None = None
        self._leading: frozenset[int] | None = None
        """The slots of the lines that there are rules for."""
        self._ways: LineWays = {}
        self._missing: frozenset[tuple[int, IPv6Network]] = frozenset()
        """Of those, what the kernel does not have."""
        self._put_anew = self._written_at = self._try_at = float("-inf")
        self._trouble = ""
        self._news = asyncio.Event()

    def record(self) -> Record:
        """For the operator: to whom packets go by the line that they wish, and how many did so lately."""
        rules = self._rules if self._rules is not None else HandingRules(self._network)
        counted = self._table.counters() if self._table is not None and self._rules else {}
        return {
            "trouble": self._trouble,
            "for": [str(each) for each in sorted(rules.buckets)],
            "handed_packets": counted.get(HANDED, 0),
            "home_packets": counted.get(HOME, 0),
        }

    # -- what neighbours say --

    def wished(self, by: Prefix, wish: Wish) -> None:
        """Somebody has said by which lines it wants what; it counts if it is a neighbour."""
        now = self._clock()
        if self._table is not None and now >= self._try_at and self._handing.wished(by, wish, self._links(), now):
            self._news.set()

    def ready(self, by: Prefix, word: Ready) -> None:
        """A neighbour of another one is ready to take what is for that, or is not any more."""
        if self._handing.ready(by, word, self._clock()):
            self._news.set()

    async def avoid(self, dead: frozenset[NextHop]) -> None:
        """These links are dead, and no others."""
        if self._dead != dead:
            self._dead = dead
            self._news.set()

    # -- within --

    async def run(self) -> None:
        """Until cancelled."""
        if self._table is None:
            return
        try:
            await self._table.remove_earlier()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK if self._handing.is_active or self._rules else None):
                        await self._news.wait()
                self._news.clear()
                await self.look()
                await asyncio.sleep(LEAST)
        finally:
            await self._end(self._table)

    async def look(self) -> None:
        """Look once, and do what follows."""
        now, table = self._clock(), self._table
        if table is None:
            return
        handed = self._handing.look(self._links(), now) if self._handing.is_active else Handed()
        try:
            if handed.ways or handed.handing:
                done = await self._follow(table, handed, now)
                self._trouble = ""
            elif done := now - self._written_at >= WRITE:
                await self._rest(table)
        except (NftError, OSError) as error:
            if self._trouble != (text := str(error)):
                self._trouble = text
                log.warning("packets do not go by the lines that neighbours wish: %s. It is tried again", text)
            self._try_at = now + AGAIN
            await self._end(table)
            return
        if done:
            # nft may have taken its time, and a promise counts from now.
            for to, message in self._handing.say(self._clock(), self._lacked(handed)):
                self._words.tell(to, message)

    def _links(self) -> dict[Prefix, NeighbourLinks]:
        """With each neighbour; of several links the one that was taken before, as long as it lives."""
        table = self._routing.table
        bad = self._dead | silent(table)
        lives: defaultdict[Prefix, dict[NextHop, int]] = defaultdict(dict)
        names: defaultdict[Prefix, set[str]] = defaultdict(set)
        for each in table.neighbours.values():
            if (owner := self._owners.owner_at(each.key)) is not None:
                names[owner].add(each.interface)
                if each.key not in bad and each.cost < DRAINED:
                    lives[owner][each.key] = each.cost
        before, self._best = self._best, {}
        for owner, hops in lives.items():
            held = before.get(owner)
            self._best[owner] = held if held in hops else min(hops, key=lambda hop: (hops[hop], hop.interface))
        return {
            owner: NeighbourLinks(
                best := self._best.get(owner), 0 if best is None else lives[owner][best], frozenset(interfaces)
            )
            for owner, interfaces in names.items()
        }

    async def _follow(self, table: OwnTable, handed: Handed, now: float) -> bool:
        """Have the kernel do it. Returns whether it does, but for what is `_missing`: where something is new that
        others hand to us, that may take a moment. Raises NftError, OSError.
        """
        ways: dict[int, dict[IPv6Network, NextHop]] = {
            slot: {self._subnet(to): hop for to, hop in hops.items()} for slot, hops in sorted(handed.ways.items())
        }
        ways[share_numbers.HOME] = {self._subnet(to): hop for to, hop in handed.home.items()}
        if (anew := now - self._put_anew >= ANEW) or ways != self._ways or self._missing:
            self._put_anew = now if anew else self._put_anew
            self._ways = ways
            self._missing = await self._machine.routes.follow(ways, self._address, anew=anew)
        rules = HandingRules(
            self._network,
            {self._subnet(to): buckets for to, buckets in handed.buckets.items()},
            {self._subnet(to): names for to, names in handed.handing.items()},
            self._bulk_apart(),
        )
        await self._lead(ways.keys() - {share_numbers.HOME})
        if self._rules is not None and not table.is_there(now):
            self._rules = None
        elif self._rules == rules:
            return True
        if now - self._written_at >= WRITE:
            await self._write(table, rules)
            return True
        # Until then it goes by the line of before, where that has a way, else as babel says.
        there = None if self._rules is None else self._rules.handing
        return there is not None and all(names <= there.get(to, set()) for to, names in rules.handing.items())

    async def _lead(self, slots: Set[int]) -> None:
        """Have rules for these lines, too. Those of others harm nobody. Raises OSError."""
        if self._leading is not None and slots <= self._leading:
            return
        leading = frozenset(slots | (self._leading or frozenset()))
        if faults := await self._machine.kernel.lead_handed(kernel_rules(self._network, leading)):
            raise OSError(str(faults[0]))
        self._leading = leading

    async def _write(self, table: OwnTable, rules: HandingRules) -> None:
        """Have our table as it is to be. Raises NftError."""
        before, self._rules = self._rules, None
        if before is not None and before.bulk_apart == rules.bulk_apart:
            with suppress(NftError):  # somebody removed it
                await table.load(filling(rules))
                self._rules = rules
        if self._rules is None:
            await table.load(ruleset(rules))
        self._rules = rules
        self._written_at = self._clock()

    def _lacked(self, handed: Handed) -> Handed:
        """What of this the kernel does not have."""
        ways: defaultdict[int, dict[Prefix, NextHop]] = defaultdict(dict)
        for slot, hops in (handed.ways | {share_numbers.HOME: handed.home}).items():
            ways[slot] |= {to: hop for to, hop in hops.items() if (slot, self._subnet(to)) in self._missing}
        return Handed(ways=ways, home=ways.pop(share_numbers.HOME))

    async def _end(self, table: OwnTable) -> None:
        """Do nothing for anybody any more. Those that rely on us hear it before."""
        for to, message in self._handing.end():
            self._words.tell(to, message)
        await self._rest(table)

    async def _rest(self, table: OwnTable) -> None:
        """Have all go as babel says."""
        if not table.is_begun and not self._ways:
            return
        self._rules, self._leading, self._ways, self._missing = None, None, {}, frozenset()
        self._put_anew, self._written_at = float("-inf"), self._clock()
        await table.remove()
        with suppress(OSError):
            await self._machine.kernel.lead_handed(())
        await self._machine.routes.follow({}, self._address)

    def _subnet(self, of: Prefix) -> IPv6Network:
        return subnet(self._network, of)
