"""Has others send to this machine over all its lines once one of them is full (docs/uplinks.md).

core/routing/incoming.py decides which neighbour is told what. An nftables table of ours counts what comes, while a line
is busy (core/machine/incoming_rules.py). Where that is missing, all comes as babel says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path
from typing import Protocol

from re6st.core.machine.incoming_rules import OTHERS, TABLE, IncomingRules, ruleset
from re6st.core.machine.share_rules import read_counter
from re6st.core.machine.uplinks import Uplink
from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.counter_rates import CounterRates
from re6st.core.routing.incoming import Incoming
from re6st.core.routing.line_wishes import Able, Message
from re6st.core.routing.spreading import LineRate
from re6st.core.telemetry.report import Record
from re6st.linux import interface_counters
from re6st.linux.nftables import NftError
from re6st.noded.line_shares import LineTunnel
from re6st.noded.own_table import NftTables, OwnTable

LOOK, FEW = 0.25, 2.0
"""Seconds between two looks at what comes in, and where there are fewer than two lines."""
SUSPECT = 3.0
"""Seconds for which nothing is wished over a line, after a link on it died: it may not be the only one."""
OURS = 0.1
"""The share of a line that has to come by tunnels, so that it is worth while to say anything: else others fill it."""
AGAIN = 30.0
"""Seconds until it is tried again, where nft has refused."""

log = logging.getLogger(__name__)


class LinesWithTunnels(Protocol):
    """The lines of this machine, and the tunnels over them."""

    def lines(self) -> Mapping[int, Uplink]:
        """Those that are up, by slot."""

    def tunnels(self) -> Collection[LineTunnel]: ...


class LineSpeaker(Protocol):
    """Who tells others: line_words.py."""

    def understands(self, peer: Prefix) -> bool: ...
    def tell(self, peer: Prefix, message: Message) -> None: ...


@dataclass(frozen=True, slots=True)
class IncomingMachine:
    """What is asked of this machine. Without `nft` nothing is wished."""

    lines: LinesWithTunnels
    nft: NftTables | None
    interfaces: Path = interface_counters.INTERFACES


class IncomingShares:
    """For one node. `bulk_apart` says whether bulk traffic has a plane of its own now."""

    def __init__(
        self,
        network: IPv6Network,
        own: Prefix,
        machine: IncomingMachine,
        words: LineSpeaker,
        bulk_apart: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._subnet = subnet(network, own)
        self._machine = machine
        self._table = None if machine.nft is None else OwnTable(machine.nft, TABLE, clock)
        self._words = words
        self._bulk_apart = bulk_apart
        self._clock = clock
        self._incoming = Incoming()
        self._received: dict[int, tuple[float, int, int]] = {}
        """When the counters of a line were read last, and what they were then: that of all, and that of tunnels."""
        self._rates: dict[int, LineRate] = {}
        self._rules: IncomingRules | None = None
        self._counted = CounterRates()
        self._dead: frozenset[NextHop] = frozenset()
        self._suspect: dict[int, float] = {}
        self._try_at = float("-inf")
        self._trouble = ""
        self._news = asyncio.Event()

    def record(self) -> Record:
        """For the operator: by the name of the line."""
        placed, lines = Counter(self._incoming.placed.values()), self._machine.lines.lines()
        return {
            "active": self._incoming.is_wishing,
            "trouble": self._trouble,
            "lines": {
                lines[slot].name: {"received_mbits": round(rate.mbits, 1), "groups": placed[slot]}
                for slot, rate in self._rates.items()
                if slot in lines
            },
        }

    def able(self, by: Prefix, word: Able) -> None:
        """A neighbour has said by which of our lines it can send."""
        self._incoming.able(by, word, self._clock())

    async def avoid(self, dead: frozenset[NextHop]) -> None:
        """These links are dead, and no others: nothing is wished over their lines for a while."""
        new, self._dead = {hop.interface for hop in dead - self._dead}, dead
        if not new or not self._incoming.is_wishing:
            return
        until = self._clock() + SUSPECT
        self._suspect |= {each.slot: until for each in self._machine.lines.tunnels() if each.interface in new}
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        if self._table is None:
            return
        try:
            await self._table.remove_earlier()
            while True:
                await self.look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK if len(self._rates) > 1 else FEW):
                        await self._news.wait()
                self._news.clear()
        finally:
            await self._rest(self._table)

    async def look(self) -> None:
        """Look once, and do what follows."""
        now, table = self._clock(), self._table
        if table is None or now < self._try_at:
            return
        lines = self._machine.lines.lines()
        tunnels = list(self._machine.lines.tunnels()) if len(lines) > 1 else []
        self._suspect = {slot: until for slot, until in self._suspect.items() if now < until}
        self._rates, ours = self._measure(lines, tunnels, now)
        neighbours: defaultdict[int, set[Prefix]] = defaultdict(set)
        # Nobody is asked for a session as long as there is nothing to say.
        if self._incoming.is_wishing or self._incoming.is_busy(ours):
            for each in tunnels:
                if each.slot not in self._suspect and self._words.understands(each.peer):
                    neighbours[each.slot].add(each.peer)
        self._incoming.follow(ours, {slot: tuple(each) for slot, each in neighbours.items()}, now)
        try:
            await self._count(table, tunnels, now)
        except NftError as error:
            if self._trouble != (text := str(error)):
                self._trouble = text
                log.warning("what comes in is not spread over the lines: %s. It is tried again", text)
            self._try_at = now + AGAIN
            self._incoming.follow({}, {}, now)
            await self._rest(table)
        for to, wish in self._incoming.due(now):
            self._words.tell(to, wish)

    # -- within --

    async def _count(self, table: OwnTable, tunnels: Collection[LineTunnel], now: float) -> None:
        """Look at what comes by those that were told, once some can send by other lines as well. Raises NftError."""
        movable = self._incoming.movable()
        if not movable:
            await self._rest(table)
            return
        told = self._incoming.told()
        others = {slot: each - movable.get(slot, frozenset()) for slot, each in told.items()}
        by_slot, by_others = _interfaces(tunnels, movable), _interfaces(tunnels, others)
        rules = IncomingRules(self._network, self._subnet, by_slot, by_others, self._bulk_apart())
        if rules != self._rules:
            await table.load(ruleset(rules))
            if self._rules is None:
                log.info("a line is nearly full: neighbours are told by which of them to send")
            self._rules = rules
            self._counted.begin(now)
            return
        counted = table.counted_bytes()
        if not counted:  # somebody has removed it
            self._rules = None
            return
        if (rates := self._counted.read(counted, now)) is None:
            return
        flows: dict[tuple[int, int], float] = {}
        others_flows: dict[tuple[int, int], float] = {}
        for name, rate in rates.items():
            if (key := read_counter(name.removeprefix(OTHERS))) is not None:
                found = others_flows if name.startswith(OTHERS) else flows
                found[key] = rate
        self._incoming.look(self._rates, flows, others_flows, now)
        self._trouble = ""

    async def _rest(self, table: OwnTable) -> None:
        """Count nothing."""
        if not table.is_begun:
            return
        self._rules = None
        self._counted.forget()
        await table.remove()

    def _measure(
        self, lines: Mapping[int, Uplink], tunnels: Collection[LineTunnel], now: float
    ) -> tuple[dict[int, LineRate], dict[int, LineRate]]:
        """What comes in over each line that a tunnel goes over; and the same without lines that only others fill."""
        devices = [uplink.device for uplink in lines.values()]
        rates: dict[int, LineRate] = {}
        ours: dict[int, LineRate] = {}
        for slot in sorted({each.slot for each in tunnels} & lines.keys()):
            device = lines[slot].device
            # Of two lines behind one interface it says nothing.
            alone = devices.count(device) == 1 and bool(device)
            tunnelled = self._count_of(each.interface for each in tunnels if each.slot == slot)
            count = self._count_of((device,)) if alone else tunnelled
            at, *before = self._received.get(slot, (now, count, tunnelled))
            self._received[slot] = now, count, tunnelled
            passed = (max(0, new - old) for new, old in zip((count, tunnelled), before, strict=True))
            mbits, by_tunnels = (8 * each / (now - at) / 1e6 if now > at else 0.0 for each in passed)
            capacity = lines[slot].down
            rates[slot] = LineRate(mbits, capacity)
            ours[slot] = rates[slot] if by_tunnels >= OURS * (capacity or mbits) else LineRate(0.0, capacity)
        return rates, ours

    def _count_of(self, interfaces: Iterable[str]) -> int:
        """The bytes that came by them."""
        return sum(interface_counters.count(name, "rx_bytes", self._machine.interfaces) or 0 for name in interfaces)


def _interfaces(
    tunnels: Collection[LineTunnel], neighbours: Mapping[int, frozenset[Prefix]]
) -> dict[int, tuple[str, ...]]:
    """Those of the tunnels with these neighbours, by line."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for each in tunnels:
        if each.peer in neighbours.get(each.slot, ()):
            names[each.slot].append(each.interface)
    return {slot: tuple(sorted(each)) for slot, each in sorted(names.items())}
