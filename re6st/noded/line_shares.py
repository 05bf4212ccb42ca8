"""Has connections use all lines of this machine once one of them is full (docs/uplinks.md).

core/routing/spreading.py decides what goes over which line, and core/routing/line_ways.py by which neighbour. An
nftables table of ours marks packets accordingly (core/machine/share_rules.py), and the kernel has a table of routes for
each mark. Where any of that is missing, all goes as babel says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Protocol

from re6st.core.machine.share_rules import TABLE, ShareRules, kernel_rules, placing, read_counter, ruleset
from re6st.core.machine.uplinks import Uplink
from re6st.core.machine.wanted_state import Fault, KernelRule
from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.core.prefix import Prefix, address, subnet
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.counter_rates import CounterRates
from re6st.core.routing.detours import LowestCosts
from re6st.core.routing.line_ways import LineWays, line_ways
from re6st.core.routing.spreading import LineRate, Spreading
from re6st.core.telemetry.report import Link, Record
from re6st.linux import interface_counters
from re6st.linux.nftables import NftError
from re6st.noded.link_counts import TableSource
from re6st.noded.own_table import NftTables, OwnTable

BUSY, IDLE = 0.25, 0.5
"""Seconds between two looks at what goes out: while a line is nearly full or something was moved, and else."""
LEAD_EVERY, LEAD_SHARE = 1.0, 50
"""Seconds between two looks at the lines and routes; of routes at least so many times what the last one took."""
SUSPECT = 3.0
"""Seconds for which no more goes over a line by choice, after a link on it died: it may not be the only one. Hellos
have shown by then which live."""
ANEW = 60.0
"""Seconds after which all routes are put there again: others may have removed some."""
AGAIN = 30.0
"""Seconds until it is tried again, where nft or the kernel has refused."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LineTunnel:
    """A tunnel that is up, and goes over the line of this slot."""

    slot: int
    interface: str
    peer: Prefix


class LinesInUse(Protocol):
    """The lines of this machine, and the tunnels over them."""

    def lines(self) -> Mapping[int, Uplink]:
        """Those that are up, by slot."""

    def interfaces(self) -> Mapping[str, int]:
        """The slots of those that tunnels go over, by the tunnels' interfaces."""


class TunnelLines:
    """The LinesInUse of a node: `choice` knows the lines, `tunnels` tells all tunnels."""

    def __init__(self, choice: UplinkChoice, tunnels: Callable[[], Iterable[Link]]) -> None:
        self._choice = choice
        self._tunnels = tunnels

    def lines(self) -> Mapping[int, Uplink]:
        return self._choice.up()

    def interfaces(self) -> Mapping[str, int]:
        """Of those that are up. By which line a peer's tunnel came in is known where the peer has told it."""
        slots = ((link.interface, self._choice.slot(link.uplink)) for link in self._up())
        return {interface: slot for interface, slot in slots if slot is not None}

    def tunnels(self) -> list[LineTunnel]:
        """Those that we opened, and that are up: the first link of each."""
        found: dict[Prefix, LineTunnel] = {}
        for link in self._up():
            slot = self._choice.slot(link.uplink) if link.outgoing else None
            if slot is not None:
                found.setdefault(link.peer, LineTunnel(slot, link.interface, link.peer))
        return list(found.values())

    def _up(self) -> Iterator[Link]:
        return (link for link in self._tunnels() if link.uplink and link.since is not None)


class ShareKernel(Protocol):
    """Who has the kernel lead marked packets by the table of a line."""

    async def lead_shares(self, rules: tuple[KernelRule, ...]) -> list[Fault]:
        """Raises OSError."""


class LineRoutes(Protocol):
    """linux/share_routes.py."""

    async def follow(self, wanted: LineWays, source: IPv6Address, *, anew: bool = False) -> object: ...


@dataclass(frozen=True, slots=True)
class ShareMachine:
    """What is asked of this machine. Without `nft` nothing is shared."""

    lines: LinesInUse
    kernel: ShareKernel
    routes: LineRoutes
    nft: NftTables | None
    interfaces: Path = interface_counters.INTERFACES
    apart: IPv6Network | None = None
    """What has such a source goes over a certain line anyway (noded/mptcp.py)."""


class LineShares:
    """For one node. `bulk_apart` says whether bulk traffic has a plane of its own now."""

    def __init__(
        self,
        network: IPv6Network,
        own: Prefix,
        routing: TableSource,
        machine: ShareMachine,
        bulk_apart: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._address, self._subnet = address(network, own), subnet(network, own)
        self._routing = routing
        self._machine = machine
        self._table = None if machine.nft is None else OwnTable(machine.nft, TABLE, clock)
        self._bulk_apart = bulk_apart
        self._clock = clock
        self._spreading = Spreading()
        self._lowest = LowestCosts()
        self._rules: ShareRules | None = None
        """What the kernel was given; None for nothing."""
        self._ways: dict[int, dict[IPv6Network, NextHop]] = {}
        self._dead: frozenset[NextHop] = frozenset()
        self._suspect: dict[int, float] = {}
        """Until when nothing goes over a line by choice."""
        self._sent: dict[int, tuple[float, int]] = {}
        """When we looked, and the bytes that had gone out over each line."""
        self._rates: dict[int, LineRate] = {}
        self._counted = CounterRates()
        self._stale = False
        """The table has changed since the ways were found."""
        self._put_anew = self._try_at = self._led_at = self._lead_again = float("-inf")
        self._trouble = ""
        self._news = asyncio.Event()
        self._lock = asyncio.Lock()

    def record(self) -> Record:
        """For the operator: by the name of the line."""
        placed = Counter(self._spreading.placed.values())
        names = {slot: uplink.name for slot, uplink in self._machine.lines.lines().items()}
        return {
            "active": self._rules is not None,
            "trouble": self._trouble,
            "lines": {
                names[slot]: {
                    "destinations": len(self._ways.get(slot, ())),
                    "sent_mbits": round(rate.mbits, 1),
                    "groups": placed[slot],
                }
                for slot, rate in self._rates.items()
                if slot in names
            },
        }

    def follow(self) -> None:
        """Babel's table has changed."""
        self._stale = True

    async def avoid(self, dead: frozenset[NextHop]) -> None:
        """These links are dead, and no others: nothing goes over their lines by choice for a while."""
        new, self._dead = dead - self._dead, dead
        if self._rules is None or not new:
            return
        slots, now = self._machine.lines.interfaces(), self._clock()
        self._suspect |= {slots[hop.interface]: now + SUSPECT for hop in new if hop.interface in slots}
        await self._lead()
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        if self._table is None:
            return
        try:
            await self._table.remove_earlier()
            while True:
                await self.look()
                pause = BUSY if self._rules is not None and self._spreading.is_busy(self._rates) else IDLE
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()
                self._news.clear()
        finally:
            await self._rest(self._table)

    async def look(self) -> None:
        """Look once, and do what follows."""
        now, table = self._clock(), self._table
        if table is None or now < self._try_at:
            return
        try:
            if now - self._led_at >= LEAD_EVERY:
                await self._follow_lines(table, now)
            if self._rules is not None:
                await self._spread(table, self._rules, now)
        except (NftError, OSError) as error:
            self._try_at = now + AGAIN
            if self._trouble != (text := str(error)):
                self._trouble = text
                log.warning("connections are not spread over the lines: %s. It is tried again", text)
            await self._rest(table)
        else:
            self._trouble = ""

    # -- within --

    async def _follow_lines(self, table: OwnTable, now: float) -> None:
        """Have what the lines and routes of now need. Raises NftError, OSError."""
        self._led_at = now
        wanted = self._wanted()
        if wanted is None:
            await self._rest(table)
            return
        if wanted != self._rules or not self._is_there(table, now):
            await self._begin(table, wanted)
        over = any(until <= now for until in self._suspect.values())
        if (self._stale or over or now - self._put_anew >= ANEW) and now >= self._lead_again:
            await self._lead()

    def _wanted(self) -> ShareRules | None:
        """None where there is nothing to choose from."""
        lines, names = self._machine.lines.lines(), defaultdict(list)
        for name, slot in sorted(self._machine.lines.interfaces().items()):
            if slot in lines:
                names[slot].append(name)
        if len(names) < 2:
            return None
        by_slot = {slot: tuple(names[slot]) for slot in sorted(names)}
        return ShareRules(self._network, self._subnet, by_slot, self._bulk_apart(), self._machine.apart)

    @staticmethod
    def _is_there(table: OwnTable, now: float) -> bool:
        there = table.is_there(now)
        if not there:
            log.warning("another program removed our nftables table re6stnet_lines: it is set up again")
        return there

    async def _begin(self, table: OwnTable, wanted: ShareRules) -> None:
        """Have the kernel know these lines. Raises NftError, OSError."""
        self._spreading.follow(frozenset(wanted.lines))
        await table.load(ruleset(wanted, self._spreading.placed))
        if faults := await self._machine.kernel.lead_shares(kernel_rules(wanted)):
            raise OSError(str(faults[0]))
        if self._rules is None:
            log.info("connections use all %s lines once one is full", len(wanted.lines))
        self._rules = wanted
        self._counted.forget()
        self._stale, self._lead_again = True, float("-inf")

    async def _rest(self, table: OwnTable) -> None:
        """Have all go as babel says."""
        if not table.is_begun:
            return
        self._rules = None
        self._counted.forget()
        self._ways, self._sent, self._rates = {}, {}, {}
        self._spreading = Spreading()
        async with self._lock:
            await self._machine.routes.follow({}, self._address)
        with suppress(OSError):
            await self._machine.kernel.lead_shares(())
        await table.remove()

    async def _lead(self) -> None:
        """Have the routes over each line."""
        async with self._lock:
            if self._rules is None:
                return
            now, self._stale = self._clock(), False
            self._suspect = {slot: until for slot, until in self._suspect.items() if now < until}
            slots = {
                name: slot for slot, names in self._rules.lines.items() if slot not in self._suspect for name in names
            }
            costs = {each.key: each.cost for each in self._routing.table.neighbours.values()}
            lowest = self._lowest.note(costs, now)
            found = line_ways(self._routing.table, self._network, slots, self._dead, lowest, self._ways)
            anew = now - self._put_anew >= ANEW
            if found != self._ways or anew:
                self._ways = found
                self._put_anew = now if anew else self._put_anew
                await self._machine.routes.follow(found, self._address, anew=anew)
            self._lead_again = now + LEAD_SHARE * (self._clock() - now)

    async def _spread(self, table: OwnTable, rules: ShareRules, now: float) -> None:
        """Have connections go over the lines where there is room. Raises NftError."""
        self._rates = self._measure(rules, now)
        if not self._spreading.is_busy(self._rates):
            self._counted.forget()
            return
        flows = self._flows(table, now)
        if flows is None:
            return
        usable = {slot: rate for slot, rate in self._rates.items() if slot not in self._suspect}
        moved = self._spreading.follow(frozenset(usable))
        if self._spreading.look(usable, flows, now) or moved:
            await table.load(placing(rules, self._spreading.placed))

    def _flows(self, table: OwnTable, now: float) -> dict[tuple[int, int], float] | None:
        """What goes out by line and bucket, in Mbit/s; None where that is not known yet."""
        rates = self._counted.read(table.counted_bytes(), now)
        if rates is None:
            return None
        return {key: rate for name, rate in rates.items() if (key := read_counter(name)) is not None}

    def _measure(self, rules: ShareRules, now: float) -> dict[int, LineRate]:
        """What goes out over each line."""
        lines, rates = self._machine.lines.lines(), {}
        devices = [uplink.device for uplink in lines.values()]
        for slot, names in rules.lines.items():
            if (uplink := lines.get(slot)) is None:
                continue
            # Of two lines behind one interface it says nothing.
            alone = uplink.device if devices.count(uplink.device) == 1 else ""
            count = sum(self._sent_by(name) for name in ((alone,) if alone else names))
            at, before = self._sent.get(slot, (now, count))
            self._sent[slot] = now, count
            mbits = 8 * max(0, count - before) / (now - at) / 1e6 if now > at else 0.0
            rates[slot] = LineRate(mbits, uplink.up)
        return rates

    def _sent_by(self, name: str) -> int:
        return interface_counters.count(name, "tx_bytes", self._machine.interfaces) or 0
