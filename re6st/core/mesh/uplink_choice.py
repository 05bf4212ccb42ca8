"""Over which uplink each of our tunnels goes: spread by what the lines carry (core/machine/uplinks.py).

Each line that is up gets a tunnel before another one gets a second, then each as many as it carries beside the others.
One by which nobody is reached is avoided for a while, longer and longer, and a metered one used only where no other is
up. A peer that was not reached by one line is tried by another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from re6st.core.machine import uplink_numbers as numbers
from re6st.core.machine.uplinks import Uplink
from re6st.core.machine.wanted_state import Address
from re6st.core.wire.datagrams import Endpoint

SILENT_PEERS = 2
"""Peers in a row that were not reached over a line, until it is avoided: one alone may be away itself."""
BAD_TIME, BAD_LAST = 60.0, 600.0
"""Seconds that it is avoided, doubling."""
REMEMBERED = 1000
"""Peers of whom it is known by which line they were not reached."""

Peer = Hashable
"""Whom a tunnel is with; None: whoever answers."""


@dataclass(slots=True)
class _Record:
    """How it went over a line."""

    missed: set[Peer] = field(default_factory=set)
    """Who was not reached over it since somebody was."""
    times: int = 0
    """How often it was avoided since."""
    until: float = float("-inf")


class UplinkChoice:
    """For one node. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._uplinks: dict[str, Uplink] = {}
        self._slots: dict[str, int] = {}
        self._records: dict[str, _Record] = {}
        self._used: dict[Peer, str] = {}
        self._reached: set[Peer] = set()
        """Whose tunnels are up."""
        self._missed_by: dict[Peer, str] = {}

    def follow(self, slots: Mapping[int, Uplink]) -> None:
        """These there are now, by slot; none where tunnels are not bound to any."""
        self._uplinks = {each.name: each for each in slots.values()}
        self._slots = {each.name: slot for slot, each in slots.items()}
        self._records = {name: self._records.get(name) or _Record() for name in self._uplinks}

    def came_back(self, name: str) -> None:
        """A line is up again: what was seen of it before says nothing."""
        self._records[name] = _Record()

    def choose(self, peer: Peer, endpoints: Collection[Endpoint], now: float) -> Uplink | None:
        """The line for a tunnel to one of these endpoints, which is that peer's from now on; None: whichever."""
        able = [each for each in self._uplinks.values() if each.is_up and carried(each, endpoints)]
        if not able:
            return None
        chosen = min(able, key=lambda uplink: self._rank(uplink, peer, now))
        self._used[peer] = chosen.name
        self._reached.discard(peer)
        return chosen

    def resume(self, peer: Peer, mark: int) -> None:
        """A tunnel with a peer, of an earlier daemon, goes over the line with this mark."""
        name = next((name for name, slot in self._slots.items() if numbers.mark(slot) == mark), None)
        if name is not None:
            self._used[peer] = name

    def settle(self, peer: Peer, source: Address | None) -> None:
        """The tunnel of a peer has this address of ours, which may be that of another line: as where a peer is on the
        LAN of that.
        """
        having = [name for name, uplink in self._uplinks.items() if source in uplink.addresses]
        if having and self._used.get(peer, having[0]) not in having:
            self._used[peer] = having[0]

    def turned_out(self, peer: Peer) -> None:
        """Whoever answered (None) is this peer."""
        if None in self._used:
            self._used[peer] = self._used.pop(None)

    def release(self, peer: Peer) -> None:
        """Its tunnel ended."""
        self._used.pop(peer, None)
        self._reached.discard(peer)

    def used(self, peer: Peer) -> str:
        """The line of a peer's tunnel; empty where it is bound to none."""
        name = self._used.get(peer, "")
        return name if name in self._uplinks else ""

    def uplink(self, peer: Peer) -> Uplink | None:
        """The same as it is now."""
        return self._uplinks.get(self.used(peer))

    def mark(self, name: str) -> int:
        """That of what goes over a line; 0 for none."""
        return numbers.mark(self._slots[name]) if name in self._slots else 0

    def reached(self, peer: Peer) -> None:
        """Its tunnel is up."""
        if (name := self._used.get(peer)) in self._records:
            self._records[name] = _Record()
            self._reached.add(peer)
            self._missed_by.pop(peer, None)

    def missed(self, peer: Peer, now: float) -> None:
        """It was not reached."""
        name = self._used.get(peer)
        if name is None or (record := self._records.get(name)) is None:
            return
        self._missed_by.pop(peer, None)
        self._missed_by[peer] = name
        if len(self._missed_by) > REMEMBERED:
            del self._missed_by[next(iter(self._missed_by))]
        if self._up_over(name):
            return
        record.missed.add(peer)
        if len(record.missed) >= SILENT_PEERS:
            record.missed.clear()
            record.until = now + min(BAD_TIME * 2**record.times, BAD_LAST)
            record.times = min(record.times + 1, 10)

    def is_silent(self, name: str) -> bool:
        """Whether nobody was reached over a line that is up, the last times that it was tried."""
        record = self._records.get(name)
        return record is not None and record.times > 0 and not self._up_over(name)

    def counts(self) -> Counter[str]:
        """Tunnels by line, those that are being opened among them."""
        return Counter(self._used.values())

    def _up_over(self, name: str) -> bool:
        return any(self._used.get(peer) == name for peer in self._reached)

    def _rank(self, uplink: Uplink, peer: Peer, now: float) -> tuple[bool, bool, bool, bool, float]:
        count = sum(name == uplink.name and other != peer for other, name in self._used.items())
        avoided = self._records[uplink.name].until > now and not self._up_over(uplink.name)
        missed = self._missed_by.get(peer) == uplink.name
        return avoided, uplink.metered, missed, count > 0, (count + 1) / self._weight(uplink)

    def _weight(self, uplink: Uplink) -> float:
        """What it carries; the mean of the others where that is not known."""
        if uplink.capacity is not None:
            return uplink.capacity
        known = [each.capacity for each in self._uplinks.values() if each.capacity is not None]
        return sum(known) / len(known) if known else 1.0


def carried(uplink: Uplink, endpoints: Collection[Endpoint]) -> tuple[Endpoint, ...]:
    """Those of the endpoints that a line has a way to; names may be of either family."""
    return tuple(each for each in endpoints if (ip := _address(each.host)) is None or uplink.carries(ip))


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
