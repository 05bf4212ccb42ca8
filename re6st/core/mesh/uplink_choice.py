"""Over which uplink each of our tunnels goes: spread by what the lines carry (core/machine/uplinks.py).

Each line that is up gets a tunnel before another one gets a second, then each as many as it carries beside the others.
One by which nobody is reached is avoided for a while, longer and longer, and a metered one used only where no other is
up. A peer that was not reached by one line is tried by another.

A line on which a tunnel died, or seems dead, is doubted: it is to be proved whether peers answer over it, before they
are given up one by one. Once one that was away is good, and has been for a while, tunnels are to move back to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from re6st.core.machine import uplink_numbers as numbers
from re6st.core.machine.uplinks import Uplink
from re6st.core.machine.wanted_state import Address
from re6st.core.tunnel_protocols import Transport
from re6st.core.wire.datagrams import Endpoint

SILENT_PEERS = 2
"""Peers in a row that were not reached over a line, until it is avoided: one alone may be away itself."""
BAD_TIME, BAD_LAST = 60.0, 600.0
"""Seconds that it is avoided, doubling."""
DOUBT_TIME = 10.0
"""Seconds in which others are preferred after a tunnel over it died."""
PROOF = 60.0
"""Seconds for which it is proved that peers answer over a line."""
PROVE_AGAIN, PROVE_METERED = 10.0, 60.0
"""Seconds between two proofs of one by which nobody is reached."""
CALM, CALM_LAST, CALM_AGAIN = 20.0, 600.0, 3600.0
"""Seconds that a line must be up until tunnels move to it; twice as many each time that it goes down, until it has been
up for the third."""
WORTH = 0.8
"""Tunnels move where that makes the load of the line that has most, beside what it carries, so much smaller."""
PLACES = 4
"""At so many addresses it is asked whether peers answer over a line."""
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
    doubted: bool = False
    """It is to be proved."""
    doubted_until: float = float("-inf")
    asked: float = float("-inf")
    """When that was last tried."""
    proved: float = float("-inf")
    up_since: float = float("-inf")
    calm: float = CALM

    def forget(self) -> None:
        """Somebody answers over it, or it is another line by now."""
        self.missed.clear()
        self.times, self.until, self.doubted, self.doubted_until = 0, float("-inf"), False, float("-inf")


class UplinkChoice:
    """For one node. Times are seconds of one clock."""

    def __init__(self) -> None:
        self.news: Callable[[], object] = lambda: None
        """Called when a line is to be proved at once."""
        self._uplinks: dict[str, Uplink] = {}
        self._slots: dict[str, int] = {}
        self._records: dict[str, _Record] = {}
        self._used: dict[Peer, str] = {}
        self._reached: set[Peer] = set()
        """Whose tunnels are up."""
        self._places: dict[Peer, Endpoint] = {}
        """Where they were reached."""
        self._missed_by: dict[Peer, str] = {}
        self._begun = False

    def follow(self, slots: Mapping[int, Uplink], now: float) -> None:
        """These there are now, by slot; none where tunnels are not bound to any."""
        before, records = self._uplinks, self._records
        self._uplinks = {each.name: each for each in slots.values()}
        self._slots = {each.name: slot for slot, each in slots.items()}
        self._records = {}
        for name, uplink in self._uplinks.items():
            record = self._records[name] = records.get(name) or _Record(up_since=now if self._begun else float("-inf"))
            if (was := before.get(name)) is None or was.ways == uplink.ways:
                continue
            record.forget()
            record.proved = float("-inf")
            if uplink.is_up and not was.is_up:
                record.up_since = now
            elif was.is_up and not uplink.is_up:
                record.calm = CALM if now - record.up_since >= CALM_AGAIN else min(2 * record.calm, CALM_LAST)
        self._begun = True

    # -- tunnels --

    def choose(self, peer: Peer, endpoints: Collection[Endpoint], now: float) -> Uplink | None:
        """The line for a tunnel to one of these endpoints, which is that peer's from now on; None: whichever."""
        able = [each for each in self._uplinks.values() if each.is_up and carried(each, endpoints)]
        if not able:
            return None
        chosen = min(able, key=lambda uplink: self._rank(uplink, peer, now))
        self._used[peer] = chosen.name
        self._reached.discard(peer)
        return chosen

    def resume(self, peer: Peer, mark: int, place: Endpoint | None = None) -> None:
        """A tunnel with a peer, of an earlier daemon, goes over the line with this mark; it was reached at a place."""
        name = next((name for name, slot in self._slots.items() if numbers.mark(slot) == mark), None)
        if name is not None:
            self._used[peer] = name
            self._reached.add(peer)
        if place is not None:
            self._places[peer] = place

    def settle(self, peer: Peer, source: Address | None) -> None:
        """The tunnel of a peer has this address of ours, which may be that of another line: as where a peer is on the
        LAN of that. Also where it was bound to none, since there was no other line when it was opened.
        """
        having = [name for name, uplink in self._uplinks.items() if source in uplink.addresses]
        if having and self._used.get(peer) not in having:
            self._used[peer] = having[0]

    def turned_out(self, peer: Peer) -> None:
        """Whoever answered (None) is this peer."""
        if None in self._used:
            self._used[peer] = self._used.pop(None)
        if None in self._reached:
            self._reached.remove(None)
            self._reached.add(peer)

    def release(self, peer: Peer) -> None:
        """Its tunnel ended."""
        self._used.pop(peer, None)
        self._places.pop(peer, None)
        self._reached.discard(peer)

    def reached(self, peer: Peer, place: Endpoint, now: float) -> None:
        """Its tunnel is up, at that place."""
        self._places[peer] = place
        if (name := self._used.get(peer)) in self._records:
            self._records[name].forget()
            self._records[name].proved = now
            self._reached.add(peer)
            self._missed_by.pop(peer, None)

    def missed(self, peer: Peer, now: float) -> None:
        """It was not reached."""
        if (record := self._note_missed(peer)) is None or self._up_over(self._used[peer]):
            return
        record.missed.add(peer)
        if len(record.missed) >= SILENT_PEERS:
            record.missed.clear()
            self._avoid(record, now)
        else:
            record.doubted = True
            self.news()

    def lost(self, peer: Peer, now: float) -> None:
        """Its tunnel died. It may be the line that did."""
        was_up = peer in self._reached
        self._reached.discard(peer)
        if was_up and (record := self._note_missed(peer)) is not None:
            record.doubted, record.doubted_until = True, now + DOUBT_TIME
            self.news()

    def doubt(self, peer: Peer) -> None:
        """Its tunnel seems dead."""
        if (record := self._records.get(self._used.get(peer, ""))) is not None:
            record.doubted = True
            self.news()

    # -- what there is to know --

    def used(self, peer: Peer) -> str:
        """The line of a peer's tunnel; empty where it is bound to none."""
        name = self._used.get(peer, "")
        return name if name in self._uplinks else ""

    def uplink(self, peer: Peer) -> Uplink | None:
        """The same as it is now."""
        return self._uplinks.get(self.used(peer))

    def over(self, name: str) -> list[Peer]:
        """Whose tunnels go over a line."""
        return [peer for peer, used in self._used.items() if used == name]

    def places(self, name: str) -> list[Endpoint]:
        """Where to ask whether peers answer over a line: a few that took TCP connections, those over this line
        first.
        """
        if name not in self._uplinks:
            return []
        over = self.over(name)
        peers = [*over, *(peer for peer in self._places if peer not in over)]
        known = [self._places[peer] for peer in peers if peer in self._places]
        tcp = [each for each in known if each.protocol.transport is Transport.TCP and _address(each.host) is not None]
        return list(carried(self._uplinks[name], tcp))[:PLACES]

    def up(self) -> dict[int, Uplink]:
        """The lines that work, by slot; metered ones where no other does."""
        found = {
            self._slots[name]: each for name, each in self._uplinks.items() if each.is_up and not self.is_silent(name)
        }
        return {slot: each for slot, each in found.items() if not each.metered} or found

    @property
    def names(self) -> list[str]:
        """All lines, whether they are up or not; none where there is nothing to choose."""
        return list(self._uplinks)

    def slot(self, name: str) -> int | None:
        """That of a line; None where there is none of that name."""
        return self._slots.get(name)

    def mark(self, name: str) -> int:
        """That of what goes over a line; 0 for none."""
        return numbers.mark(self._slots[name]) if name in self._slots else 0

    def is_silent(self, name: str) -> bool:
        """Whether nobody was reached over a line that is up, the last times that it was tried."""
        record = self._records.get(name)
        return record is not None and record.times > 0 and not self._up_over(name)

    def counts(self) -> Counter[str]:
        """Tunnels by line, those that are being opened among them."""
        return Counter(self._used.values())

    # -- lines that may be dead, and those that are good again --

    def to_prove(self, now: float) -> list[str]:
        """Lines of which it is to be proved now whether peers answer over them; see `proved`."""
        found = [name for name in self._uplinks if self._is_to_prove(name, now)]
        target = self._target(now)
        if target is not None and now - self._records[target].proved > PROOF:
            found.append(target)
        return list(dict.fromkeys(found))

    def proved(self, name: str, answered: bool | None, now: float) -> bool:
        """Whether a peer answered over a line, None where there is nobody to ask; whether it is another than before."""
        if (record := self._records.get(name)) is None:
            return False
        record.asked, record.doubted, was_silent = now, False, record.times > 0
        if answered is None:
            record.proved = now
        elif answered:
            record.forget()
            record.proved = now
        else:
            self._reached -= {*self.over(name)}
            self._avoid(record, now)
        return answered is not None and answered == was_silent

    def misplaced(self, now: float) -> frozenset[Peer]:
        """Whose tunnels had better go over another line, which is good; any one of them."""
        target = self._target(now)
        if target is None or now - self._records[target].proved > PROOF:
            return frozenset()
        worst = self._worst(self._uplinks[target])
        return frozenset(peer for peer in self._reached if worst is not None and self._used[peer] == worst.name)

    # -- within --

    def _note_missed(self, peer: Peer) -> _Record | None:
        name = self._used.get(peer)
        if name is None or (record := self._records.get(name)) is None:
            return None
        self._missed_by.pop(peer, None)
        self._missed_by[peer] = name
        if len(self._missed_by) > REMEMBERED:
            del self._missed_by[next(iter(self._missed_by))]
        return record

    def _avoid(self, record: _Record, now: float) -> None:
        record.until = now + min(BAD_TIME * 2**record.times, BAD_LAST)
        record.times = min(record.times + 1, 10)

    def _up_over(self, name: str) -> bool:
        return any(self._used.get(peer) == name for peer in self._reached)

    def _is_avoided(self, name: str, now: float) -> bool:
        record = self._records[name]
        return record.doubted_until > now or (record.until > now and not self._up_over(name))

    def _is_good(self, name: str, now: float) -> bool:
        return not self._is_avoided(name, now) and not self.is_silent(name)

    def _rank(self, uplink: Uplink, peer: Peer, now: float) -> tuple[bool, bool, bool, bool, float]:
        count = sum(name == uplink.name and other != peer for other, name in self._used.items())
        missed = self._missed_by.get(peer) == uplink.name
        load = (count + 1) / self._weight(uplink)
        return self._is_avoided(uplink.name, now), uplink.metered, missed, count > 0, load

    def _weight(self, uplink: Uplink) -> float:
        """What it carries; the mean of the others where that is not known."""
        if uplink.capacity is not None:
            return uplink.capacity
        known = [each.capacity for each in self._uplinks.values() if each.capacity is not None]
        return sum(known) / len(known) if known else 1.0

    def _is_to_prove(self, name: str, now: float) -> bool:
        uplink, record = self._uplinks[name], self._records[name]
        pause = PROVE_METERED if uplink.metered else PROVE_AGAIN
        return uplink.is_up and (record.doubted or (self.is_silent(name) and now - record.asked >= pause))

    def _target(self, now: float) -> str | None:
        """The line that had better have one more of the tunnels."""
        good = [each for each in self._uplinks.values() if each.is_up and self._is_good(each.name, now)]
        free = [each for each in good if not each.metered] or good
        calm = [each for each in free if now - self._records[each.name].up_since >= self._records[each.name].calm]
        counts = self.counts()
        best = min(calm, key=lambda each: (counts[each.name] > 0, self._load(each, 1)), default=None)
        if best is None or (worst := self._worst(best)) is None:
            return None
        fuller = self._load(best, 1) <= WORTH * self._load(worst, 0)
        return best.name if worst.metered or fuller or not counts[best.name] else None

    def _worst(self, best: Uplink) -> Uplink | None:
        """The line that is to give one of its tunnels to the best one: a metered one, or the fullest, but not its last
        one.
        """
        counts = self.counts()
        names = {self._used[peer] for peer in self._reached} & self._uplinks.keys() - {best.name}
        lines = [self._uplinks[name] for name in names]
        metered = [line for line in lines if line.metered and not best.metered]
        return max(
            metered or [line for line in lines if counts[line.name] > 1],
            key=lambda line: (self._load(line, 0), line.name),
            default=None,
        )

    def _load(self, uplink: Uplink, more: int) -> float:
        """How many tunnels it has beside what it carries, with so many more."""
        return (self.counts()[uplink.name] + more) / self._weight(uplink)


def carried(uplink: Uplink, endpoints: Collection[Endpoint]) -> tuple[Endpoint, ...]:
    """Those of the endpoints that a line has a way to; names may be of either family."""
    return tuple(each for each in endpoints if (ip := _address(each.host)) is None or uplink.carries(ip))


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
