"""The uplinks of this machine: found, watched, given to the kernel, and shown (core/machine/uplinks.py).

The kernel has tables and rules for them if there are two or more, or the operator has named one; else nothing is
touched. Over which line each tunnel goes says core/mesh/uplink_choice.py. When a tunnel dies, peers are asked whether
they answer over its line: if none does, all tunnels over it are given up at once, and opened over others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from re6st.core.limits.rate import RateLimit
from re6st.core.limits.said import Said
from re6st.core.machine import uplink_numbers as numbers
from re6st.core.machine.uplinks import Seen, Uplink, UplinkOption, find, slot_of, things
from re6st.core.machine.wanted_state import Address, Fault, KernelRoute, KernelRule
from re6st.core.mesh import policy
from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.core.prefix import Prefix
from re6st.core.telemetry.report import Record
from re6st.core.wire.datagrams import Endpoint
from re6st.core.words import plural
from re6st.linux import address_monitor, interface_counters
from re6st.linux.netlink import NetlinkError
from re6st.noded.uplink_probes import answers

READ_AGAIN = 0.5
PAUSE = 0.3
"""Seconds between two looks at least: somebody's DHCP server may change our addresses all the time."""
LOOK_EVERY = 5.0
"""Seconds between two looks at what became of the tunnels."""
SAID_AT_ONCE, SAID_EVERY = 6, 20.0
"""Log lines about one uplink: so many at once, then one in so many seconds."""

log = logging.getLogger(__name__)


class UplinksKernel(Protocol):
    """Who has links, addresses and routes, and leads packets out: linux/kernel.py."""

    async def see_uplinks(self) -> Seen:
        """Raises NetlinkError when it changed meanwhile, and OSError where no socket can be had: ask again."""

    async def lead_out(self, things: tuple[KernelRoute | KernelRule, ...]) -> list[Fault]: ...

    def uplinks_left(self) -> list[KernelRoute]:
        """What an earlier daemon left, until something is wanted."""


@dataclass(slots=True)
class _State:
    """What an uplink is, in a word, and since when (Unix time)."""

    word: str
    since: float


class LineListener(Protocol):
    """Who hears what becomes of lines: news.py."""

    def changed(self, lines: Uplinks) -> None: ...
    def left(self, names: Collection[str]) -> None: ...


class Uplinks:
    """For one node. `options` are what the operator says; if they are not to be `watched`, there are none. `event` is
    the ear of the policy, and `news` that of all others.
    """

    def __init__(
        self,
        options: Sequence[UplinkOption],
        kernel: UplinksKernel,
        choice: UplinkChoice,
        event: Callable[[policy.Event], None],
        news: LineListener,
        *,
        watched: bool = True,
        ask: Callable[[Sequence[Endpoint], int], Awaitable[bool | None]] = answers,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        interfaces: Path = interface_counters.INTERFACES,
    ) -> None:
        self.trouble = ""
        """What keeps tunnels from being bound to uplinks, where there are several."""
        self._options = options
        self._kernel = kernel
        self._choice = choice
        self._event = event
        self._news = news
        self._wake = asyncio.Event()
        choice.news = self._wake.set
        self._used: policy.UplinksUsed | None = None
        """What the policy was told last."""
        self._watched = watched
        self._ask = ask
        self._wall = wall
        self._clock = clock
        self._interfaces = interfaces
        self._slots: dict[str, int] = {}
        self._uplinks: dict[str, Uplink] = {}
        self._active = False
        self._given: tuple[KernelRoute | KernelRule, ...] | None = None
        """What the kernel was given last; None before that."""
        self._states: dict[str, _State] = {}
        self._told: dict[str, str] = {}
        """What was logged last of each."""
        self._limit = RateLimit(1 / SAID_EVERY, SAID_AT_ONCE)
        self._said = Said()

    async def run(self) -> None:
        """Until cancelled. Raises OSError where the kernel tells nothing."""
        if not self._watched:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="news of uplinks")
            group.create_task(self._look_after_tunnels(), name="tunnels over uplinks")

    async def look(self) -> None:
        """Find them, and have the kernel know them."""
        seen = await self._read() if self._watched else Seen()
        found = find(self._options, seen, self._uplinks)
        if len(found) > numbers.LIMIT:
            self._say(f"this machine has {len(found)} lines to the Internet: the first {numbers.LIMIT} are used")
        before, self._uplinks = self._uplinks, {each.name: each for each in found[: numbers.LIMIT]}
        was_active, self._active = self._active, bool(self._options) or len(self._uplinks) > 1
        slots = self._assign() if self._active else {}
        given = things(slots)
        if given != self._given:
            self._given = given
            self.trouble = "; ".join(map(str, await self._kernel.lead_out(given)))
            if self.trouble:
                self._say(f"tunnels are not bound to uplinks: {self.trouble}")
        self._choice.follow({} if self.trouble else slots, self._clock())
        self._note()
        self._forget(logging.INFO if was_active else logging.DEBUG)
        devices = {link.name for link in seen.links.values()}
        was_up = {name: was.device for name, was in before.items() if was.is_up and not self._is_up(name)}
        # One that is none any more although its interface is there leads where another one does.
        if down := [name for name, device in was_up.items() if name in self._uplinks or device not in devices]:
            self._news.left(down)
        if self._uplinks != before:
            self._news.changed(self)
        self._wake.set()

    # -- for who tells others where we are --

    def outer(self) -> tuple[Address, ...]:
        """Our addresses on them, which lead outside; none where there is nothing to choose."""
        found = [ip for each in self._in_use() for ip in each.addresses if ip.version in each.ways]
        return tuple(dict.fromkeys(found))

    def inner(self) -> dict[str, IPv4Address]:
        """One of IPv4 on each, by its name."""
        own = ((each.name, ip) for each in self._in_use() for ip in reversed(each.addresses) if 4 in each.ways)
        return {name: ip for name, ip in own if isinstance(ip, IPv4Address)}

    # -- for the operator --

    def record(self) -> Record:
        """What there is."""
        counts = self._choice.counts()
        return {
            "active": self._active and not self.trouble,
            "trouble": self.trouble,
            "lines": [self._line(uplink, counts[name]) for name, uplink in self._uplinks.items()],
        }

    def states(self) -> dict[str, str]:
        """How each is, in a word; none where there is nothing to choose."""
        return {each.name: self._word(each) for each in self._in_use()}

    def problems(self) -> list[str]:
        """What is wrong with those that the operator has named."""
        found = [f"tunnels are not bound to uplinks: {self.trouble}"] if self.trouble else []
        for name, uplink in self._uplinks.items():
            if not uplink.given:
                continue
            if uplink.problem:
                found.append(f"uplink {name}{'' if uplink.is_up else ' is down'}: {uplink.problem}")
            elif self._word(uplink) == "silent":
                found.append(f"uplink {name}: nobody was reached over it at the last tries")
        return found

    # -- within --

    def _in_use(self) -> list[Uplink]:
        return list(self._uplinks.values()) if self._active and not self.trouble else []

    async def _watch(self) -> None:
        async with aclosing(address_monitor.changes(address_monitor.open_default_routes)) as changes:
            async for _ in changes:
                await self.look()
                await asyncio.sleep(PAUSE)

    async def _look_after_tunnels(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._wake.wait()
            self._wake.clear()
            await self.tend()
            await asyncio.sleep(PAUSE)

    async def tend(self) -> None:
        """See which lines are dead though they seem up, or good again; and whether tunnels had better move."""
        names = self._choice.to_prove(self._clock())
        await asyncio.gather(*(self._prove(name) for name in names))
        self._note()
        used = policy.UplinksUsed(sum(each.is_up for each in self._in_use()), self._misplaced())
        if used != self._used or used.misplaced:
            self._used = used
            self._event(used)

    async def _prove(self, name: str) -> None:
        places = self._choice.places(name)
        answered = await self._ask(places, self._choice.mark(name)) if places else None
        if not self._choice.proved(name, answered, self._clock()):
            return
        if answered:
            log.info("uplink %s: peers answer over it again", name)
            self._event(policy.UplinkUp())
        else:
            log.warning("uplink %s: none of %s answers over it any more", name, plural(len(places), "peer"))
            self._news.left([name])

    def _misplaced(self) -> frozenset[Prefix]:
        return frozenset(peer for peer in self._choice.misplaced(self._clock()) if isinstance(peer, Prefix))

    def _is_up(self, name: str) -> bool:
        return name in self._uplinks and self._uplinks[name].is_up

    async def _read(self) -> Seen:
        while True:
            try:
                return await self._kernel.see_uplinks()
            except NetlinkError as error:
                log.debug("the uplinks of this machine: %s", error)
            except OSError as error:
                self._say(f"cannot read the lines of this machine: {error}. They are what they were; trying again")
            await asyncio.sleep(READ_AGAIN)

    def _assign(self) -> dict[int, Uplink]:
        """A slot for each: the same one as long as it is there, also that which an earlier daemon gave it."""
        left = self._kernel.uplinks_left() if self._given is None else []
        slots = {name: slot for name, slot in self._slots.items() if name in self._uplinks}
        for name, uplink in self._uplinks.items():
            known = slot_of(uplink, left)
            if name not in slots and known is not None and known not in slots.values():
                slots[name] = known
        for name in self._uplinks:
            if name not in slots:
                slots[name] = next(slot for slot in numbers.SLOTS if slot not in slots.values())
        self._slots = slots
        return {slots[name]: uplink for name, uplink in self._uplinks.items()}

    def _note(self) -> None:
        """Take note of what they are by now, and log what is new."""
        now = self._clock()
        for name, uplink in self._uplinks.items():
            word = self._word(uplink)
            if name not in self._states or self._states[name].word != word:
                self._states[name] = _State(word, self._wall())
            text = _words(uplink, word)
            if self._told.get(name) == text:
                continue
            if not self._active:
                log.debug("%s", text)
            elif not self._limit.allow(name, now):
                continue
            else:
                log.log(logging.INFO if word == "up" and not uplink.problem else logging.WARNING, "%s", text)
            self._told[name] = text
        self._states = {name: state for name, state in self._states.items() if name in self._uplinks}

    def _forget(self, level: int) -> None:
        """Those that are none any more, with a word in the log."""
        for name in self._told.keys() - self._uplinks.keys():
            del self._told[name]
            log.log(level, "%s is no uplink any more: it is gone, or another one leads to the same router", name)

    def _word(self, uplink: Uplink) -> str:
        return "down" if not uplink.is_up else "silent" if self._choice.is_silent(uplink.name) else "up"

    def _say(self, text: str) -> None:
        for each in self._said.news([text], self._clock()):
            log.warning("%s", each)

    def _line(self, uplink: Uplink, tunnels: int) -> Record:
        state, slot = self._states.get(uplink.name), self._slots.get(uplink.name) if self._active else None
        return {
            "name": uplink.name,
            "device": uplink.device,
            "gateways": [str(each) for each in uplink.gateways],
            "addresses": [str(each) for each in uplink.addresses],
            "state": self._word(uplink),
            "since": None if state is None else state.since,
            "problem": uplink.problem,
            "down_mbits": uplink.down,
            "up_mbits": uplink.up,
            "metered": uplink.metered,
            "mark": None if slot is None else numbers.mark(slot),
            "table": None if slot is None else numbers.table(slot),
            "tunnels": tunnels,
            "received_bytes": self._count(uplink, "rx_bytes"),
            "sent_bytes": self._count(uplink, "tx_bytes"),
        }

    def _count(self, uplink: Uplink, counter: str) -> int | None:
        return interface_counters.count(uplink.device, counter, self._interfaces)


def _words(uplink: Uplink, word: str) -> str:
    if word == "down":
        return f"uplink {uplink.name} is down: {uplink.problem}"
    if word == "silent":
        return f"uplink {uplink.name}: nobody was reached over it at the last tries, others are used"
    by = ", ".join(map(str, uplink.gateways)) or "the other end of the line"
    text = f"uplink {uplink.name} is up: {uplink.device}, by {by}, from {', '.join(map(str, uplink.addresses))}"
    return f"{text}, but {uplink.problem}" if uplink.problem else text
