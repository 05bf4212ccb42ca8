"""Which links are dead, by the packets that go over them: in less than half a second where there is traffic.

Packets went out on a link, and nothing has come in since for SILENCE: the neighbour is asked for a sign of life, again
and again. Whatever comes in ends that. If nothing does for longer than a machine may stand still (STALLED), the link is
dead, until it has been heard again for a while. What was silent before the first question may have been lost, so that
does not count; and where questions were lost lately, the wait is longer (WARY): a loss and a stall may come together.

Silence is counted from the moment at which we saw that nothing came any more, so it is never longer than it was. The
time in which we did not look, as on a machine that stalls, is not counted. A neighbour that never answered a probe, for
a firewall perhaps, is not judged by its silence. Times are in seconds, of one monotonic clock.

Both ends have to find a link dead before answers come again: each has a reason to ask, as a packet of babel's that
comes after the last one of ours does not answer it (OWED).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from re6st.core.routing.babel_lines import NextHop

SILENCE, MORE = 0.06, 0.05
"""After which a neighbour is asked, or so much more than a round trip if that is longer."""
PROBES, APART, ON_THE_WAY = 12, 0.026, 8
"""So many must get lost at least: where every fifth packet does, each way, that is one case in 200,000. There is so
much time between two, or more where so many would be on their way at once."""
QUESTION_AGAIN = 1.0
"""Seconds between two questions that are asked since others seem dead."""
DYING = 4
"""Where so many are not answered, a link is most often dead: it does not wait for a look (look_pace.py)."""
STALLED = 0.32
"""A machine may stall for 0.3: so long we ask, and so much longer than the link's pauses were lately we wait."""
PAUSE_LIMIT, PAUSE_LASTS = 0.2, 0.9
"""The longest of those, which a probe ends; and what is left of it with each look at which something had come."""
WARY, WARY_FOR = 0.1, 150.0
"""How much longer we wait, and for how long after a probe that was not answered in time, though the link was alive;
longer than it took then in any case."""
HELD_UP, RESENT = 0.15, 2.0
"""An answer that took so long in a tunnel over TCP waited for a lost packet to be sent again: after 0.2 s, and if that
is lost too, after 0.4 s more, then 0.8 s. From then on we wait for so long. No wait is longer."""
TOO_LONG = STALLED + WARY
"""The same, whatever carries the link: a machine that takes so long has too much to do."""
LAG_FOR = 10.0
"""Where we looked later than a machine may stall, it has too much to do, and so has what carries the links: for so long
after that we wait for that time too."""
LATE = 0.1
"""A look that comes so much later than it was due says nothing of the time in between."""
ASK_ANEW = 6
"""So many probes go out after it at least, before a link is dead: answers to those before may wait in a tunnel, whose
program stood still too."""
CATCH_UP = 4
"""Probes that go out at once at most, where a look comes late."""
OWED = 0.3
"""How long something is awaited for what went out, whatever comes meanwhile."""
IN_FLIGHT, FLIGHT = 64, 0.5
"""Packets that may be counted as babel's before they are counted as sent, and for how many seconds: afterwards they
were lost in between."""
ANSWER, ROUND_TRIPS = 0.03, 1.5
"""The least time for an answer to come, in seconds and in round trips."""
LEAST, EARLY, SOONER = 0.01, 0.001, 0.02
"""Between two looks; and how much sooner than it is due something may be done, or asked first: with many links, a look
may be too early for one, and the next one too late.
"""
BUSY, IDLE, QUIET = 0.06, 0.1, 0.2
"""Between two looks: while packets go out somewhere, a moment after that, and else."""
BUSY_FOR, IDLE_FOR = 1.0, 10.0
AGAIN, AGAIN_LATER, SOON = 0.1, 1.0, 2.0
"""Between two probes of a dead link: at first, and after SOON, as long as nothing comes."""
GAP, BACK = 0.3, 0.4
"""A dead link is alive when it was heard for BACK, with no pause longer than GAP."""
GREET, GREETINGS, GREET_LATER, MEASURE = 1.0, 6, 60.0, 30.0
"""Between two probes at first, to learn whether the neighbour answers and how long a round trip is; after GREETINGS of
them, of one that does not, and of one that does."""
RTT_LASTS = 0.6
"""What is left of the longest round trip with each one that is shorter."""
LONGER, MEASURE_ANEW = 2.0, 4
"""A round trip so many times as long as those before may be one that a machine stalled in: it is measured so many times
more, as at first, so that it does not make us wait for minutes."""
RTT_LIMIT = 2.0
LIMIT = 1000
"""Links that are watched."""
PROBES_AT_ONCE = 100
"""Neighbours that are asked in one look. The rest waits for the next one."""


@dataclass(frozen=True, slots=True)
class Packets:
    """How many packets came by a link so far, and how many went, those between the two neighbours alone left out."""

    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class LivenessFindings:
    """What a look has shown."""

    probe: tuple[NextHop, ...] = ()
    """Who is to be asked for a sign of life, and as often as it is named."""
    died: Mapping[NextHop, float] = field(default_factory=dict)
    """Links that are dead from now on, and how long nothing had come."""
    revived: tuple[NextHop, ...] = ()


@dataclass(slots=True)
class _WatchedLink:
    packets: Packets
    since: float
    """When the silence began: nothing has come since."""
    owes: bool = False
    """Something went out that nothing that came answers."""
    active: float = float("-inf")
    """When something went out last."""
    fewer: float | None = None
    """Since when fewer packets are counted as sent than before."""
    heard: bool = False
    """A probe was answered since the last look."""
    probes: int = 0
    """How many went out in this silence."""
    asked: float = 0.0
    """When the first of them did."""
    probed: float = float("-inf")
    answers: bool = False
    """Whether the neighbour answers probes."""
    greeted: int = 0
    gap: float = PAUSE_LIMIT
    """The longest time without anything, lately."""
    lost: float = float("-inf")
    """When a probe was not answered in time."""
    longest: float = 0.0
    """The longest time that the answer then took, lately."""
    rtt: float = 0.0
    died: float | None = None
    back: float | None = None
    """Since when a dead one is heard again."""
    answered: bool = False
    """Whether it answered a probe since it was dead."""
    over_tcp: bool = False
    ended: float | None = None
    """When it was first seen that its tunnel has ended."""
    questioned: float = float("-inf")
    """When it was asked as others on its line seemed dead."""
    is_questioned: bool = False
    """Whether nothing has come since."""
    lag: float = 0.0
    """By how much we looked too late, lately."""
    lagged: float = float("-inf")
    """When that was."""

    def note(self, packets: Packets, now: float) -> None:
        """Take in what has come and gone."""
        # Where there are fewer than before, they are counted from 0 again.
        came, went = self.heard or packets.received > self.packets.received, packets.sent > self.packets.sent
        self.heard = False
        fewer = 0 < self.packets.sent - packets.sent <= IN_FLIGHT
        self.fewer = (now if self.fewer is None else self.fewer) if fewer else None
        in_flight = self.fewer is not None and now - self.fewer < FLIGHT
        self.packets = Packets(packets.received, self.packets.sent) if in_flight else packets
        if went:
            self.active = now
            if not self.owes and not came:
                self.since, self.gap = now, 0.0  # the first one after a pause, which is none of the neighbour's
            self.owes = True
        elif came and now - self.active >= OWED:
            self.owes = False
        if came:
            self.is_questioned = False
            took = now - self.asked
            if (self.suspect and took > self.answer_time + APART / 2) or (self.is_first_sign and took <= RESENT):
                self.longest = took if now - self.lost >= WARY_FOR else max(took, self.longest)
                self.lost = now
            if self.died is not None and (self.back is None or now - self.since > GAP):
                self.back = now
            self.gap = max(min(now - self.since, PAUSE_LIMIT), PAUSE_LASTS * self.gap)
            self.since, self.probes = now, 0

    @property
    def patience(self) -> float:
        return max(SILENCE, self.round_trip + MORE)

    @property
    def round_trip(self) -> float:
        return min(self.rtt, RTT_LIMIT)

    @property
    def is_overdue(self) -> bool:
        """Whether an answer would have come by the last probe."""
        return self.suspect and self.probed - self.asked > self.answer_time

    @property
    def answer_time(self) -> float:
        return max(ANSWER, ROUND_TRIPS * self.round_trip)

    @property
    def apart(self) -> float:
        return max(APART, self.round_trip / ON_THE_WAY)

    @property
    def wait(self) -> float:
        """How long nothing may come once it is asked."""
        wait = STALLED
        if self.asked - self.lost < WARY_FOR:
            held_up = self.longest >= (HELD_UP if self.over_tcp else TOO_LONG)
            wait = RESENT if held_up else max(STALLED, self.longest) + WARY
        return min(wait + self.lag, RESENT) if self.asked - self.lagged < LAG_FOR else wait

    @property
    def end(self) -> float:
        """When it is dead, if nothing comes until then."""
        return max(self.asked, self.since + self.gap) + self.wait

    @property
    def has_asked(self) -> bool:
        """Whether the last probe that can be answered before the end has gone out."""
        return self.probes >= PROBES and self.probed + self.apart + self.answer_time > self.end

    @property
    def is_first_sign(self) -> bool:
        """Whether what comes now is the first since it was found dead: if that is soon, it was not."""
        return self.died is not None and self.back is None

    @property
    def suspect(self) -> bool:
        """Whether it is being asked."""
        return self.died is None and self.probes > 0

    @property
    def due(self) -> float:
        """When the next probe is due, or the end, if nothing comes until then."""
        if self.died is not None:
            often = self.probed - self.died < SOON or (self.back is not None and self.probed - self.since < AGAIN_LATER)
            return self.probed + (AGAIN if often else AGAIN_LATER)
        if not self.answers:
            return self.probed + (GREET if self.greeted < GREETINGS else GREET_LATER)
        if self.has_asked:
            return max(self.end, self.probed + self.answer_time)
        if self.probes:
            return self.probed + self.apart
        measure = self.probed + (GREET if self.greeted < GREETINGS else MEASURE)
        return min(measure, self.since + self.patience) if self.owes else measure

    @property
    def seems_dead(self) -> bool:
        """Whether it is likely to be found dead in a moment."""
        return self.is_overdue and self.probes >= DYING

    @property
    def is_urgent(self) -> bool:
        """Whether the next probe does not just wait for a look that comes anyway."""
        return self.died is not None or self.probes > 0 or (self.answers and self.owes)

    def wants_probe(self, now: float) -> bool:
        first = self.answers and self.owes and not self.probes and self.died is None
        return now >= self.due - (SOONER if first else EARLY) and not (self.suspect and self.has_asked)

    def probes_due(self, now: float) -> int:
        """How many are to go out now, where one is."""
        return max(1, min(CATCH_UP, round((now - self.probed) / self.apart))) if self.suspect else 1

    def is_dying(self, now: float) -> bool:
        """Whether it has had its time."""
        return self.suspect and self.has_asked and now >= self.due - EARLY

    def note_end(self, ended: bool, now: float) -> None:
        """Whether its tunnel has ended."""
        self.ended = (now if self.ended is None else self.ended) if ended else None

    @property
    def is_used_although_ended(self) -> bool:
        """Whether something went out since it was first seen that its tunnel has ended."""
        return self.died is None and self.ended is not None and self.active > self.ended

    def is_back(self, now: float) -> bool:
        return self.back is not None and self.since - self.back >= BACK and now - self.since <= GAP


class Liveness:
    """All links of a node."""

    def __init__(self) -> None:
        self.probes = 0
        """How many were sent."""
        self.deaths = 0
        self.quiet = False
        """Whether there are links, and nothing has gone anywhere for a while."""
        self._links: dict[NextHop, _WatchedLink] = {}
        self._next_look = float("inf")

    @property
    def dead(self) -> frozenset[NextHop]:
        return frozenset(hop for hop, link in self._links.items() if link.died is not None)

    @property
    def doubtful(self) -> frozenset[NextHop]:
        """Those that are dead, or did not answer the first probe in time."""
        links = self._links.items()
        return frozenset(hop for hop, each in links if each.died is not None or each.is_overdue or each.is_questioned)

    def dying_links(self, now: float) -> frozenset[NextHop]:
        """Those that are likely to be found dead in a moment, or just were."""
        return frozenset(
            hop
            for hop, link in self._links.items()
            if link.seems_dead or (link.died is not None and now - link.died < QUESTION_AGAIN)
        )

    def question(self, hops: Iterable[NextHop], now: float, *, doubt: bool) -> None:
        """Ask these for a sign of life, whatever goes over them. `doubt`: others that share their line seem dead, so
        they are doubtful until they give one. Not again those that were asked so lately.
        """
        for hop in hops:
            link = self._links.get(hop)
            if link is None or link.died is not None or not link.answers or now - link.questioned < QUESTION_AGAIN:
                continue
            link.questioned, link.is_questioned = now, link.is_questioned or doubt
            if not link.probes:
                link.owes, link.since = True, min(link.since, now - link.patience)
                self._next_look = now

    @property
    def dying(self) -> bool:
        """Whether one of them is likely to be found dead in a moment."""
        return any(link.seems_dead for link in self._links.values())

    def pause(self, now: float) -> float:
        """Seconds until the next look."""
        return max(min(self._next_look - now, QUIET), LEAST)

    def is_owing(self, hops: Iterable[NextHop]) -> bool:
        """Whether something is awaited from one of these: only then it matters what has come."""
        links = (self._links.get(hop) for hop in hops)
        return any(link is not None and (link.owes or link.probes > 0 or link.died is not None) for link in links)

    def silence(self, hop: NextHop, now: float) -> float:
        """For how long nothing has come by a link that is watched."""
        return now - self._links[hop].since

    def look(
        self,
        packets: Mapping[NextHop, Packets],
        now: float,
        over_tcp: Container[NextHop] = (),
        ended: Container[NextHop] = (),
    ) -> LivenessFindings:
        """What follows from what has come and gone by now. Links that are not named are forgotten. `over_tcp`: those
        in which everything waits for a lost packet. `ended`: those whose tunnel has ended, for sure: they are dead once
        something goes over them again; others were left before that.
        """
        late = now - self._next_look
        self._note(packets, now)
        if late > LATE:
            self._leave_out(late, now)
        died: dict[NextHop, float] = {}
        revived: list[NextHop] = []
        asked: list[NextHop] = []
        soonest = float("inf")
        for hop, link in self._links.items():
            if link.probes:
                link.over_tcp = hop in over_tcp
            link.note_end(hop in ended, now)
            if link.is_dying(now) or link.is_used_although_ended:
                died[hop] = now - link.since
                self._die(link, now)
            elif link.is_back(now):
                revived.append(hop)
                self._revive(link, now)
            if not link.wants_probe(now):
                soonest = min(soonest, link.due if link.is_urgent else float("inf"))
            elif len(asked) < PROBES_AT_ONCE:
                asked.append(hop)
            else:
                soonest = now
        probe = tuple(hop for hop in asked for _ in range(self._links[hop].probes_due(now)))
        self._count_probes(probe, now)
        for link in (self._links[hop] for hop in asked):
            soonest = min(soonest, link.due if link.is_urgent else float("inf"))
        pace = self._pace(now)
        self.quiet = bool(self._links) and pace == QUIET
        self._next_look = now + max(min(pace, soonest - now), LEAST)
        return LivenessFindings(probe, died, tuple(revived))

    def _note(self, packets: Mapping[NextHop, Packets], now: float) -> None:
        new = []
        for hop, count in packets.items():
            if (link := self._links.get(hop)) is not None:
                link.note(count, now)
            else:
                new.append(hop)
        if len(packets) - len(new) < len(self._links):
            for hop in [hop for hop in self._links if hop not in packets]:
                del self._links[hop]
        for hop in new[: LIMIT - len(self._links)]:
            self._links[hop] = _WatchedLink(packets[hop], now)

    def _pace(self, now: float) -> float:
        """Seconds until the next look, as far as it is not for one link."""
        quiet = now - max((link.active for link in self._links.values()), default=float("-inf"))
        return BUSY if quiet < BUSY_FOR else IDLE if quiet < IDLE_FOR else QUIET

    def answered(self, hop: NextHop, seconds: float) -> None:
        """A probe was answered, after a round trip of so many seconds. That is a sign of life, whatever is counted."""
        link = self._links.get(hop)
        if link is not None:
            link.answers = link.answered = link.heard = True
            if link.died is None:  # else it is of a request that TCP has sent again and again
                if seconds > LONGER * max(link.rtt, ANSWER):
                    link.greeted = min(link.greeted, GREETINGS - MEASURE_ANEW)
                link.rtt = max(seconds, link.rtt * RTT_LASTS)

    def _leave_out(self, late: float, now: float) -> None:
        """We did not look: neither do we know what came when, nor could it be read from the tunnels."""
        for link in self._links.values():
            link.probes = min(link.probes, PROBES - ASK_ANEW)
            if late > STALLED:
                link.lag, link.lagged = late if now - link.lagged >= LAG_FOR else max(late, link.lag), now
            if link.died is None:
                link.since, link.asked = min(link.since + late, now), min(link.asked + late, now)

    def _count_probes(self, hops: Iterable[NextHop], now: float) -> None:
        for hop in hops:
            link = self._links[hop]
            self.probes += 1
            link.probed = now
            if link.died is not None:
                continue
            if link.answers and (link.probes or (link.owes and now >= link.since + link.patience - SOONER)):
                link.asked = link.asked if link.probes else now
                link.probes += 1
            else:
                link.greeted += 1

    def _die(self, link: _WatchedLink, now: float) -> None:
        self.deaths += 1
        link.died, link.back, link.answered, link.probes = now, None, False, 0

    def _revive(self, link: _WatchedLink, now: float) -> None:
        # Who is heard and does not answer is not judged by that again, until it does.
        link.answers = link.answered
        link.greeted = 0 if link.answers else GREETINGS
        link.died, link.back, link.probes, link.owes, link.since = None, None, 0, False, now
