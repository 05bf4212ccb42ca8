"""Which links lose packets, by echo requests: within two seconds where there is traffic.

While packets go out on a link, its neighbour is asked now and then (CALM). When an answer is overdue, or a hello of
babel's was missed, it is asked often (TRAIN). A request counts as lost once a later one was answered. So what is only
late is not lost, be it for a machine that stalls or for a long queue. And a link by which nothing comes any more is
none of those that lose packets: liveness.py finds out that it is dead.

Each that was lost adds 1 to a score, each answer takes ANSWERED from it, and at LOSSY the link is lossy. A request is
lost if it is, or its answer: of 3% each way that is 6%, of 10% 19%, of 30% 51%. So the score grows where more than 13%
are lost, ANSWERED / (1 + ANSWERED), and else it is 0 most of the time. Where 6% are, it reaches n about once in
exp(1.4 n) requests, of which there are 40,000 an hour: 7 is seen in some hours, and LOSSY in none. Losses must also
last, for which the score grows by LASTING a second at most: for 1.2 seconds at least, from two losses on. A second in
which 20% get lost each way, among 3%, brings it to 10 in the median, to 22 once in a hundred times, and to LOSSY 3
times in 30,000: if there is one each minute, that is once in a week.

Some firewalls let few echo requests pass. So each neighbour is asked once in a train while nothing is wrong. Who
answers nearly all is asked in trains from then on. Who answers some only is asked now and then, so that a loss is seen
later (LOSSY_SLOWLY): after some five seconds where 30% get lost. Others are left to babel's hellos.

Where most links of a machine lose packets it is its own line that does, and none of them is better; or a firewall has
one limit for all neighbours. So when one is about to be lossy, others that have no traffic are asked as well, and have
to bear witness that they lose less (echo_outcomes.py). If they do not, nobody is asked for a while.

A lossy link is asked on, seldom, also while it is avoided and nothing goes over it, until hardly anything is lost.

What it costs: a request, and an answer, is 124 bytes on a line of IPv4 where WireGuard carries it. That is 0.8 kB/s
each way where there are seven packets a second or more, and less where there are fewer; 8.3 kB/s in a train, which may
be long where 5 to 7% get lost each way; 0.12 kB/s for one that is lossy or avoided; 7.4 kB once for each new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import Enum, auto

from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.echo_outcomes import Outcomes, are_its_own

CALM, TRAIN, SELDOM = 0.15, 0.015, 1.0
"""Seconds between two requests: where packets go out, where some seem to be lost, and where that is known."""
ANSWERED, LOSSY, LASTING, FEW = 0.15, 30.0, 24.0, 1.0
"""What an answer takes from the score; the score of a lossy link; and how much it grows in a second, above a few."""
LOSSY_SLOWLY = 12.0
"""For a link without trains: what lasts for a second is a few requests only."""
OVERDUE, ROUND_TRIPS = 0.05, 1.5
"""So much later than the longest round trip of late, and so many of them, an answer is overdue."""
SHORTER = 0.9
"""What is left of the longest round trip with each one that is shorter."""
OVERTAKEN = 0.012
"""So much later the request must have been sent whose answer tells that others are lost."""
FORGOTTEN = 3.0
"""Seconds after which no answer is awaited any more."""
LEAST = 10
"""Answers, or losses, that a train lasts for at least."""
MUTE = 1.0
"""A train ends where nothing was answered for so long, and it is asked anew whether anybody answers. So much later at
least a missed hello begins another one."""
TRAINS, ENOUGH = 4, 15.0
"""Links with a train at one time, and how long each has one. Others that want one are asked as those with traffic."""
WARNING, SUSPECTED = 6.0, 1.5
"""The score from which on others are asked too; and theirs from which on they are suspected."""
COMPARED, COMPARING = 12, 2.0
"""So many of them at least, and so much longer than some link may be about to be lossy."""
COMPARE_LONGEST, COMPARE_AGAIN = 10.0, 60.0
"""The longest time for that, and between two times that it begins: a neighbour may always seem to be about to."""
REST_FIRST, REST_LAST, REST_FORGOTTEN = 60.0, 600.0, 300.0
"""Seconds for which nobody is asked where most links lose answers: twice as long each time, unless the last one was so
long ago.
"""
HELLOS, MISSED_TOO = 3.0, 3
"""Where no other link can be asked, each says something by its hellos: after so many seconds, one of so many others has
missed one if all go over a bad line.
"""
QUIETED = 1.0
"""Seconds after a first train, at which no link is found lossy."""
RECENT, MENDED = 60, 5
"""Of so many requests so many may be lost for a lossy link to be a good one again."""
PROVING, SETTLED, WELL, SOMEWHAT = 60, 10, 9, 3
"""Requests of the first train, and how many of the last ones count; of these, answers of one that is asked in trains,
and of one that is asked at all. A firewall lets some more pass at first."""
PROVE, PROVE_FIRST, PROVE_LAST = 0.01, 1.0, 3600.0
"""Seconds between two requests of it: it is quicker than all that follow. Seconds until it after a link came; and,
twice as long each time, after one of which not nearly all was answered."""
SILENT = 60.0
"""Seconds without an answer, after which it is not known any more that a link is lossy."""
LIMIT = 200
"""Links that are measured."""
EARLY, CALM_EARLY = 0.001, 0.03
"""How much sooner than it is due something may be done; and a request that is none of a train."""
AT_ONCE = 5
"""Requests to one neighbour in one look, where looks are rarer than the requests of a train (look_pace.py)."""


class Pace(Enum):
    """How often a neighbour can be asked, as far as that is known."""

    UNKNOWN = auto()
    OFTEN = auto()
    SOMETIMES = auto()
    NEVER = auto()


@dataclass(slots=True)
class _FirstTrain:
    """The train that tells how often a neighbour can be asked."""

    left: int = PROVING
    """How many requests are to go out."""
    sent: list[int] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    until: float = float("inf")
    """When all have gone out: how long answers are awaited."""

    @property
    def pace(self) -> Pace:
        came = sum(number in self.answered for number in self.sent[-SETTLED:])
        return Pace.OFTEN if came >= WELL else Pace.SOMETIMES if came >= SOMEWHAT else Pace.NEVER


@dataclass(slots=True)
class _MeasuredLink:
    sent: int
    """Packets that went out so far."""
    prove_at: float
    prove_pause: float = PROVE_FIRST
    pace: Pace = Pace.UNKNOWN
    proof: _FirstTrain | None = None
    proved: float = float("-inf")
    """When the last one ended."""
    carries: bool = False
    """Whether packets went out since the last request."""
    asked: float = float("-inf")
    """When that was."""
    waiting: dict[int, float] = field(default_factory=dict)
    """Requests that may be answered yet, in the order in which they went, and when."""
    lost: dict[int, float] = field(default_factory=dict)
    """The same that count as lost."""
    trip: float = 0.0
    """The longest round trip of late."""
    score: float = 0.0
    begun: float = 0.0
    """When the first request went that the score counts as lost."""
    train: float | None = None
    """Since when it is asked often."""
    judged: int = 0
    """Answers and losses since then."""
    heard: float = float("-inf")
    """When something was answered."""
    outcomes: Outcomes = field(default_factory=Outcomes)
    missed: float = float("-inf")
    """When a hello was missing last."""
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Of those that were judged last, whether they were lost, since the link is lossy or avoided."""
    lossy: bool = False
    avoided: bool = False
    compared: bool = False

    def judge(self, number: int, moment: float, *, lost: bool) -> None:
        """A request that went at a moment was answered, or lost."""
        self.outcomes.note(number, moment, lost=lost)
        self.judged += 1
        self.recent.append(lost)
        if lost:
            self.begun = moment if self.score <= FEW else self.begun
            self.score = min(self.score + 1, FEW + 1 + LASTING * max(0.0, moment - self.begun))
        else:
            self.score = max(0.0, self.score - ANSWERED)

    def answered(self, number: int, seconds: float, now: float) -> None:
        """One was answered after a round trip of so many seconds."""
        self.heard = now
        self.trip = max(seconds, SHORTER * self.trip)
        if self.proof is not None:
            self.proof.answered.add(number)
        if number in self.lost:  # it was late, and another one came sooner
            self.outcomes.note(number, self.lost.pop(number), lost=False)
            self.score = max(0.0, self.score - 1 - ANSWERED)
            return
        if (moment := self.waiting.pop(number, None)) is None:
            return
        for other, sent in list(self.waiting.items()):
            if sent > moment - OVERTAKEN:
                break
            self.lost[other] = self.waiting.pop(other)
            self.judge(other, sent, lost=True)
        self.judge(number, moment, lost=False)

    def forget(self, now: float) -> None:
        """Await nothing any more that went long ago."""
        for requests in (self.waiting, self.lost):
            for number, moment in list(requests.items()):
                if now - moment < FORGOTTEN:
                    break
                del requests[number]

    @property
    def overdue(self) -> float:
        """When the oldest answer that is awaited is overdue."""
        patience = max(ROUND_TRIPS * self.trip, self.trip + OVERDUE)
        return next(iter(self.waiting.values()), float("inf")) + patience

    @property
    def is_judged(self) -> bool:
        return self.pace in (Pace.OFTEN, Pace.SOMETIMES) and self.proof is None

    @property
    def is_rare(self) -> bool:
        """Whether it is asked seldom, as it is known what it is like, or nothing goes over it."""
        return self.lossy or self.avoided

    @property
    def may_depart(self) -> bool:
        """Whether a train may begin."""
        return self.train is None and self.is_judged and self.pace is Pace.OFTEN and not self.is_rare

    def requests_due(self, apart: float, now: float) -> int:
        """How many are to go out now, where one goes out in so many seconds: some at once, where we look less often."""
        early = EARLY if apart < CALM else CALM_EARLY
        if not now >= self.asked + apart - early:
            return 0
        count = int(min((now - self.asked + EARLY) / apart, AT_ONCE)) if apart < CALM else 1
        return max(1, count if self.proof is None else min(count, self.proof.left))

    @property
    def limit(self) -> float:
        """The score of a lossy link."""
        return LOSSY if self.pace is Pace.OFTEN else LOSSY_SLOWLY

    def depart_or_arrive(self, now: float, *, missed: bool) -> None:
        """Begin or end a train, if it is time."""
        if self.train is None:
            if self.may_depart and (now >= self.overdue - EARLY or (missed and now - self.asked >= MUTE)):
                self.train, self.judged = now, 0
        elif now - max(self.heard, self.train) >= MUTE:
            self.train = None
            self.doubt(now)
        elif self.is_rare or (self.judged >= LEAST and not self.score):
            self.train = None

    def doubt(self, now: float) -> None:
        """It is not known any more how often it can be asked."""
        self.pace, self.score, self.prove_at = Pace.UNKNOWN, 0.0, now + self.prove_pause
        self.prove_pause = min(2 * self.prove_pause, PROVE_LAST)
        self.waiting.clear()

    def prove(self, now: float) -> None:
        """Go on with the first train."""
        if self.proof is None:
            return
        if not self.proof.left:
            self.proof.until = min(self.proof.until, now + MUTE)
        if now < self.proof.until:
            return
        pace, self.proof, self.proved = self.proof.pace, None, now
        self.doubt(now)
        self.pace = pace
        if pace is Pace.OFTEN:
            self.prove_at, self.prove_pause = float("inf"), PROVE_FIRST

    def apart(self, now: float, *, trains: bool) -> float:
        """Seconds between two requests. `trains`: it may have one."""
        if self.proof is not None:
            return PROVE if self.proof.left else float("inf")
        if not self.is_judged:
            return float("inf")
        if self.is_rare:
            return SELDOM
        if self.train is not None:
            return TRAIN if trains and now - self.train < ENOUGH else CALM
        return CALM if self.carries or self.compared else float("inf")


class LinkLoss:
    """All links of a node that have an interface of their own. Times are monotonic."""

    def __init__(self, asked_for: int = 0) -> None:
        self.asked_for = asked_for
        """How many requests there were, those before this one began among them."""
        self._links: dict[NextHop, _MeasuredLink] = {}
        self._compare_until = self._compared = float("-inf")
        self.rests_until = float("-inf")
        """Most links lose answers, so until then nobody is asked but on links that are lossy or avoided."""
        self._rest = REST_FIRST
        self._turn = 0
        self._due = float("inf")

    @property
    def lossy(self) -> frozenset[NextHop]:
        return frozenset(hop for hop, link in self._links.items() if link.lossy)

    @property
    def suspected(self) -> frozenset[NextHop]:
        """Those on which requests get lost too, where some are lossy."""
        return frozenset(hop for hop, link in self._links.items() if link.score >= SUSPECTED and not link.lossy)

    def share(self, hop: NextHop) -> float | None:
        """Which part of the requests was lost, since the link is lossy or avoided; None where too few say so."""
        link = self._links.get(hop)
        if link is None or len(link.recent) < LEAST or not (link.lossy or link.avoided):
            return None
        return sum(link.recent) / len(link.recent)

    def pause(self, now: float) -> float:
        """Seconds until `look` has something to do that does not wait for a look that comes anyway."""
        return max(self._due - now, 0.0)

    def asked(self, hop: NextHop, number: int, now: float) -> None:
        """A request that `look` wanted has gone out. Without this it is as if there had been none."""
        link = self._links.get(hop)
        if link is not None:
            link.waiting[number] = now
            if link.proof is not None:
                link.proof.sent.append(number)

    def answered(self, hop: NextHop, number: int, seconds: float, now: float) -> None:
        """One was answered, after a round trip of so many seconds."""
        link = self._links.get(hop)
        if link is not None and seconds < FORGOTTEN:  # else it was held back, or the clock was set
            link.answered(number, seconds, now)

    def look(
        self,
        sent: Mapping[NextHop, int],
        now: float,
        missed: Set[NextHop] = frozenset(),
        avoided: Set[NextHop] = frozenset(),
    ) -> tuple[NextHop, ...]:
        """Who is to be asked now. `sent`: how many packets went out so far by each link; others are forgotten, unless
        they are `avoided`. `missed`: where the last hello was.
        """
        self._note(sent, avoided, now)
        for hop, link in self._links.items():
            link.forget(now)
            link.missed = now if hop in missed else link.missed
            self._decide(link, now)
            link.depart_or_arrive(now, missed=hop in missed)
        asking = [each for each in self._links.items() if now >= self.rests_until or each[1].is_rare]
        if now >= self.rests_until:
            self._compare(now)
            self._prove(now)
        wanted, trains = [], 0
        self._due = float("inf")
        # Where only some pass at a time, they are not always those of the same links.
        self._turn = (self._turn + 1) % max(len(asking), 1)
        for hop, link in asking[self._turn :] + asking[: self._turn]:
            trains += link.train is not None and now - link.train < ENOUGH
            apart = link.apart(now, trains=trains <= TRAINS)
            if count := link.requests_due(apart, now):
                wanted += [hop] * count
                # One that goes out a bit early, or late, makes those after it no more frequent, nor rarer.
                link.asked = now if apart < CALM else max(link.asked + apart, now - CALM_EARLY)
                link.carries = False
                if link.proof is not None:
                    link.proof.left -= count
            # What is asked now and then waits for the next look, which is soon where packets go out.
            soon = link.asked + apart if apart < CALM else float("inf")
            self._due = min(self._due, soon, link.overdue if link.may_depart else float("inf"))
        self.asked_for += len(wanted)
        return tuple(wanted)

    def _note(self, sent: Mapping[NextHop, int], avoided: Set[NextHop], now: float) -> None:
        for hop in [hop for hop in self._links if hop not in sent and hop not in avoided]:
            del self._links[hop]
        for hop, count in sent.items():
            if (link := self._links.get(hop)) is not None:
                link.carries = link.carries or count > link.sent
                link.sent = count
            elif len(self._links) < LIMIT:
                self._links[hop] = _MeasuredLink(count, now + PROVE_FIRST)
        for hop, link in self._links.items():
            link.avoided = hop in avoided

    def _decide(self, link: _MeasuredLink, now: float) -> None:
        if not link.is_judged:
            link.score = 0.0
        if not link.is_rare:
            link.recent.clear()
        if not link.lossy:
            if link.score >= link.limit:
                self._judge(link, now)
        elif len(link.recent) == RECENT and sum(link.recent) <= MENDED:
            link.lossy, link.score = False, 0.0
        elif now - link.heard >= SILENT:
            link.lossy = False
            link.doubt(now)

    def _judge(self, link: _MeasuredLink, now: float) -> None:
        """Where enough was lost: on this link, or on most."""
        link.score = min(link.score, link.limit)
        if any(now - each.proved < QUIETED for each in self._links.values()):
            return  # a first train may take what a firewall lets pass
        others = [each for each in self._links.values() if each is not link and not each.is_rare]
        own = are_its_own(link.outcomes, (each.outcomes for each in others), link.begun)
        if own is None:
            own = True if link.avoided else self._by_hellos(link, others, now)
        if own is False:
            self._begin_rest(now)
        link.lossy = own is True

    @staticmethod
    def _by_hellos(link: _MeasuredLink, others: list[_MeasuredLink], now: float) -> bool | None:
        """Whether losses are the link's own, where nobody else is asked, or can be; None: that is not known yet."""
        if link.missed < link.begun or (others and now - link.begun < HELLOS):
            return None
        return MISSED_TOO * sum(each.missed >= link.begun for each in others) < max(len(others), 1)

    def _begin_rest(self, now: float) -> None:
        """Most links lose answers: ask nobody for a while."""
        again = now - self.rests_until < REST_FORGOTTEN
        self._rest = min(2 * self._rest, REST_LAST) if again else REST_FIRST
        self.rests_until = now + self._rest
        for link in self._links.values():
            link.score, link.train, link.proof, link.compared = 0.0, None, None, False
            link.waiting.clear()

    def _prove(self, now: float) -> None:
        """Of a few at one time."""
        proving = 0
        for link in self._links.values():
            link.prove(now)
            proving += link.proof is not None
        due = [each for each in self._links.values() if each.proof is None and now >= each.prove_at]
        for link in sorted(due, key=lambda each: each.prove_at):
            if proving < TRAINS and not link.score and not link.is_rare:
                link.proof, link.train = _FirstTrain(), None
                link.waiting.clear()
                proving += 1

    def _compare(self, now: float) -> None:
        links = self._links.values()
        nearly = any(link.score >= WARNING and not link.is_rare for link in links)
        if now >= self._compared + COMPARE_AGAIN and (nearly or any(each.lossy and not each.avoided for each in links)):
            self._compared, nearly = now, True
        end = self._compared + COMPARE_LONGEST
        if nearly and now < end:
            if now >= self._compare_until:
                self._begin_comparing()
            self._compare_until = min(now + COMPARING, end)
        elif now >= self._compare_until:
            for link in links:
                link.compared = False

    def _begin_comparing(self) -> None:
        links = self._links.values()
        others = [link for link in links if link.is_judged and link.train is None and not link.is_rare]
        for link in others[: max(COMPARED, len(links) // 2 + 1)]:
            link.compared = True
            if not link.carries:
                link.score = 0.0  # it may be of long ago
