"""The owner of our nftables table: what it shall hold is declared here, and put back when others change or remove it.

Debian's `systemctl reload nftables` begins with `flush ruleset`, and firewalls may do the like at any moment: so the
table is read where the number moved that the kernel gives to each change of nftables; of changes it tells by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Any

from re6st.core.machine.nftables_text import removal
from re6st.core.machine.packet_rules import (
    ALL,
    COUNTERS,
    LINK_SENDERS,
    SENDERS,
    TABLE,
    Part,
    Rules,
    add_and_delete,
    muted,
    ruleset,
)
from re6st.core.routing.babel_lines import NextHop
from re6st.linux.nft_news import looks
from re6st.linux.nftables import Nft, NftError, Ruleset, connections_tracked
from re6st.linux.process import MissingProgram

LOOK_EVERY = 1.0
"""Seconds between two looks, at least; and where the kernel does not tell of changes."""
READ_EVERY = 5.0
"""Seconds between two readings of the table, where others change theirs all the time."""
READ_AFTER = 1.0
"""Seconds until the table is read that was just loaded: nft runs four times, and a node that starts has more urgent
work."""
READ_ANYWAY = 60.0
"""Where the kernel does not tell that something changed."""
TRY_AGAIN, TRY_LAST = 1.0, 60.0
"""Seconds until nft is called again after it failed, at first and at last."""
PROBE_AGAIN = 600.0
"""Seconds until parts of the table that the kernel refused are tried again."""
FORGET_GATEWAY = 300.0
"""Seconds that packets from outside still come after the last way to a gateway was seen."""
TELL_EVERY = 10.0
REMEDY = "Install nftables (Debian: apt install nftables)."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sender:
    """Where packets came from that were dropped, and how many of them since this was told last."""

    interface: str
    hardware_address: str
    """Empty on an interface of WireGuard."""
    packets: int


class PacketFilter:
    """Our table, from the first `follow` to `close`; `run` keeps it as it shall be.

    Babel can be muted, which drains a tunnel without losing a packet: its packets are dropped in and out,
    every hello that is missed raises the cost of the link on both sides, so the routes move away while it still
    forwards. `available` says whether that can be done now; `changed` hears when it can no longer, or again. `told`
    hears who sent what was dropped.
    """

    def __init__(
        self,
        make: Callable[[], Ruleset] = Nft,
        changed: Callable[[], object] = lambda: None,
        told: Callable[[list[Sender]], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.available = True
        self.missing: frozenset[Part] = frozenset()
        """What this kernel cannot do."""
        self._changed = changed
        self.told = told
        self._clock = clock
        self._rules: Rules | None = None
        """What the node and its network want."""
        self._outside = False
        self._exits: frozenset[NextHop] = frozenset()
        self._tracked = False
        self._loaded: Rules | None = None
        self._muted: set[str] = set()
        """What shall be muted: elements of sets."""
        self._there: set[str] = set()
        """What is."""
        self._content: object = None
        """The table as nft lists it; None: not read yet. That takes longer than to load it, and nobody waits for it."""
        self._generation: int | None = None
        self._gateway_seen = 0.0
        self._failures = 0
        self._news = asyncio.Event()
        """Something is to be looked at before its time."""
        self._again_at = float("inf")
        """When a change is to be looked at that followed another one too soon."""
        self._try_at = self._read_at = self._tell_at = self._probe_at = self._first_read_at = 0.0
        self._dropped: Counter[str] = Counter()
        """By tables that were replaced."""
        self._accused: dict[tuple[str, str], int] = {}
        """By interface and hardware address: packets that were told of."""
        self._counted = 0
        self._lock = asyncio.Lock()
        self._nft: Ruleset | None = None
        try:
            self._nft = make()
        except MissingProgram:
            log.warning(
                "nft: program not found: tunnels are not refreshed, packets out of them are not filtered, and"
                " connections to our servers not limited. %s",
                REMEDY,
            )
            self.available = False

    @property
    def active(self) -> bool:
        """Whether packets of tunnels are filtered."""
        return self._loaded is not None and self._loaded.filtered and Part.SOURCES not in self.missing

    @property
    def counts(self) -> bool:
        """Whether packets of tunnels are counted (`Rules.counted`), also while the table is being replaced."""
        wanted = self._rules is not None and self._rules.counted
        return wanted and self.available and Part.TRAFFIC not in self.missing

    @property
    def leads(self) -> bool:
        """Whether packets that leave the throughput plane lose their class: else it must not be there."""
        wanted = self._rules is not None and self._rules.planes
        return wanted and self.available and Part.PLANES not in self.missing

    @property
    def dropped(self) -> Mapping[str, int]:
        """Packets, by name of the counter (core/machine/packet_rules.py); empty while nothing is counted."""
        if self._nft is None or self._loaded is None or not self._loaded.filtered:
            return {}
        now = self._nft.counters(TABLE)
        return {name: self._dropped[name] + now.get(name, 0) for name in COUNTERS}

    async def follow(self, rules: Rules) -> None:
        """Have the table hold these rules; ways to gateways and names of tunnels that were there stay in them."""
        former = () if self._rules is None else self._rules.tunnels
        self._rules = replace(rules, tunnels=tuple(dict.fromkeys((*rules.tunnels, *former))))
        self._tracked = self._tracked or connections_tracked()
        await self._settle()

    async def lead_outside(self, hops: frozenset[NextHop]) -> None:
        """The way to the network's gateways leads by these neighbours; by none: it has none now."""
        if not hops or self._rules is None:
            return  # `look` forgets it: a babeld that is started anew is no reason to drop a packet
        self._gateway_seen = self._clock()
        self._outside = True
        self._exits = frozenset(hop for hop in hops if hop.interface in self._rules.lan)
        if self._unsettled():
            await self._settle()

    def expect_outside(self) -> None:
        """There was a gateway just now, before babel tells of one."""
        self._outside, self._gateway_seen = True, self._clock()

    async def mute(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """Mute babel on an interface; or no longer hear one neighbour on it, who notices by what we say of it."""
        self._muted.add(muted(interface, neighbour))
        await self._settle()

    async def unmute(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """Undo it. Where nft fails, it is tried again until it does not."""
        self._muted.discard(muted(interface, neighbour))
        await self._settle()

    async def run(self) -> None:
        """Keep the table as it shall be, until cancelled."""
        async with aclosing(looks(self._news, self.pause, LOOK_EVERY)) as moments:
            async for _ in moments:
                await self.look()

    def pause(self) -> float:
        """Seconds until `look` has something to do, if nobody changes anything."""
        due = [self._tell_at, self._again_at]
        if self._unsettled():
            due.append(self._try_at)
        if self._loaded is not None and self._content is None:
            due.append(self._first_read_at)
        return max(LOOK_EVERY, min(due) - self._clock())

    async def look(self) -> None:
        """Look once whether anything is to be done."""
        if self._nft is None or self._rules is None:
            return
        now = self._clock()
        self._tracked = self._tracked or connections_tracked()
        if self._outside and now - self._gateway_seen >= FORGET_GATEWAY:
            self._outside, self._exits = False, frozenset()
        if self.missing and now >= self._probe_at:
            self._loaded = None
        if self._unsettled() and now >= self._try_at:
            await self._settle()
        generation = self._nft.generation()
        moved = generation != self._generation if generation is not None else now >= self._read_at + READ_ANYWAY
        self._again_at = float("inf")
        if self._loaded is not None and moved and now < self._read_at:
            self._again_at = self._read_at
        elif self._loaded is not None and moved:
            self._read_at = now + READ_EVERY
            await self._settle(read=True)
        elif self._loaded is not None and self._content is None and now >= self._first_read_at:
            self._first_read_at = now + READ_EVERY
            await self._settle(read=True)
        if now >= self._tell_at:
            self._tell_at = now + TELL_EVERY
            await self._tell()

    async def hand_over(self) -> None:
        """Leave the table to the next daemon, with nothing muted: that one does not know what is."""
        await self._tell()  # the next one counts anew
        self._muted.clear()
        await self._settle()
        self._rules = None
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    async def close(self) -> None:
        """Remove our table, also one that an earlier run left."""
        async with self._lock:
            if self._nft is None:
                return
            self._rules = self._loaded = None
            self._muted.clear()
            self._there.clear()
            try:
                await self._nft.load(removal(TABLE))
            except NftError as error:
                if not self._failures:
                    log.warning("our nftables table stays: %s. To remove it: nft delete table inet %s", error, TABLE)
            self._nft.close()
            self._nft = None

    # -- within --

    def _unsettled(self) -> bool:
        return self._loaded != self._wanted() or self._there != self._muted

    def _wanted(self) -> Rules | None:
        """The rules, with what there is at this moment."""
        if self._rules is None:
            return None
        outside = self._rules.outside or self._outside
        return replace(self._rules, outside=outside, exits=self._exits, tracked=self._tracked)

    async def _settle(self, *, read: bool = False) -> None:
        """Bring about what shall be; what fails is logged, and tried again by `run`."""
        async with self._lock:
            wanted = self._wanted()
            if self._nft is None or wanted is None:
                return
            try:
                if read and not await self._is_intact(self._nft):
                    log.warning(
                        "our nftables table %s was changed or removed by another program, as by `nft flush ruleset`:"
                        " it is set up again",
                        TABLE,
                    )
                    self._loaded = None
                if self._unsettled():
                    await self._bring_about(self._nft, wanted)
            except NftError as error:
                self._failed(error)
            except BaseException:
                self._loaded = None  # nft was cut short: whether it had done it is not known
                raise
            else:
                self._failures = 0
                self._set_available(True)

    async def _bring_about(self, nft: Ruleset, rules: Rules) -> None:
        before = nft.generation()
        if self._loaded == rules:
            try:
                await nft.load(add_and_delete(self._muted - self._there, self._there - self._muted))
            except NftError as error:
                log.debug("nft: %s: the table is set up again", error)
                self._loaded = None
        if self._loaded != rules:
            self._dropped.update(nft.counters(TABLE) if self._loaded is not None else {})
            self._loaded = None
            await self._load(nft, rules)
        self._there = set(self._muted)
        self._loaded = rules
        self._content = None
        self._first_read_at = self._clock() + READ_AFTER
        self._news.set()
        # Another change than ours is looked at, even if it came in between.
        self._generation = None if before is None else before + 1

    async def _load(self, nft: Ruleset, rules: Rules) -> None:
        """Set up the table, as much of it as the kernel takes. Raises NftError."""
        try:
            await nft.load(ruleset(rules, self._muted))
        except NftError as error:
            missing = await self._probe(nft, rules, error)
            await nft.load(ruleset(rules, self._muted, ALL - missing))
        else:
            missing = frozenset()
        for part in sorted(missing - self.missing):
            log.warning("this kernel or nft lacks what is needed: %s", part.value)
        self.missing = missing
        self._probe_at = self._clock() + PROBE_AGAIN

    async def _probe(self, nft: Ruleset, rules: Rules, error: NftError) -> frozenset[Part]:
        """The parts of the table that the kernel does not take. Raises NftError where it takes none, or all."""
        await nft.load(ruleset(rules, (), ()), only_check=True)
        missing: set[Part] = set()
        for part in Part:
            try:
                await nft.load(ruleset(rules, (), {Part.SOURCES, part} - missing), only_check=True)
            except NftError as reason:
                log.debug("nft: %s: %s", part.name, reason)
                missing.add(part)
        if not missing:
            raise error
        return frozenset(missing)

    async def _is_intact(self, nft: Ruleset) -> bool:
        """Whether our table is as we loaded it. Raises NftError where it cannot be read, though nobody changed it."""
        generation = nft.generation()
        moved = generation != self._generation
        try:
            found = await self._read(nft)
        except NftError:
            if self._content is None and not moved:
                raise
            return False
        if self._content is None and moved:
            self._loaded = None  # what is there may be somebody else's already
            return True
        intact = self._content in (None, found)
        self._content, self._generation = found, generation
        return intact

    async def _read(self, nft: Ruleset) -> object:
        """The table as it is, without what packets change. Raises NftError."""
        # The sets of sources may be long.
        found = [lasting(await nft.listing("table", "inet", TABLE, contents=False))]
        names = ("muted", "unheard", *(("tunnels",) if self.active else ()))
        found += [lasting(await nft.listing("set", "inet", TABLE, name)) for name in names]
        return found

    def _failed(self, error: NftError) -> None:
        self._failures += 1
        pause = min(TRY_AGAIN * 2 ** (self._failures - 1), TRY_LAST)
        self._try_at = self._clock() + pause
        self._news.set()
        level = logging.ERROR if self._failures == 1 else logging.DEBUG
        log.log(level, "nft: %s: what is muted and filtered cannot be changed. It is tried again", error)
        if self._loaded is None:
            self._set_available(False)

    def _set_available(self, available: bool) -> None:
        if self.available != available:
            self.available = available
            log.log(logging.INFO if available else logging.ERROR, "nftables: our table is %s", _state(available))
            self._changed()

    async def _tell(self) -> None:
        """Say who sent what was dropped since the last time."""
        dropped = self.dropped
        count = dropped.get("own_source", 0) + dropped.get("foreign_source", 0)
        before, self._counted = self._counted, count
        if self._nft is None or not self.active or count <= before:
            return
        try:
            counted = senders_of(await self._nft.listing("set", "inet", TABLE, SENDERS))
            counted |= senders_of(await self._nft.listing("set", "inet", TABLE, LINK_SENDERS))
        except NftError as error:
            log.debug("nft: %s", error)
            return
        found = []
        for key, packets in counted.items():
            known = self._accused.get(key, 0)
            # The set forgets who is silent for long, and a table that is set up again everybody.
            new = packets - known if packets >= known else packets
            if new:
                found.append(Sender(*key, new))
        self._accused = counted
        if found:
            self.told(found)


def _state(available: bool) -> str:
    return "there again" if available else "missing: tunnels are not refreshed, and packets are not filtered"


def lasting(listing: Any) -> Any:
    """What `nft -j list` says, without its version and the counts."""
    if isinstance(listing, dict):
        return {k: lasting(v) for k, v in listing.items() if k not in ("metainfo", "packets", "bytes")}
    if isinstance(listing, list):
        return [lasting(each) for each in listing]
    return listing


def senders_of(listing: Any) -> dict[tuple[str, str], int]:
    """The elements of such a set: interface and hardware address, if there is one, and the packets from there. Raises
    NftError.
    """
    found: dict[tuple[str, str], int] = {}
    try:
        for each in listing.get("nftables", ()):
            for element in each.get("set", {}).get("elem", ()):
                inner = element.get("elem", {})
                value, counter = inner.get("val", {}), inner.get("counter", {})
                words = (value, "") if isinstance(value, str) else value.get("concat", ())
                if len(words) == 2:
                    found[str(words[0]), str(words[1])] = int(counter.get("packets", 0))
    except (AttributeError, TypeError, ValueError, OverflowError, KeyError):
        raise NftError("nft list: not the elements of a set") from None
    return found
