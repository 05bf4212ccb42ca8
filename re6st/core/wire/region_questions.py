"""How somebody of another region is found: whoever is nearest there names one, who is asked where it is.

The question goes to the region's anycast address, as a greeting. Who gets it greets us from its own address, so its
certificate says who it is. We ask it (message 123), it names a node of its region by chance, itself or another one, and
that node tells us its addresses itself (message 1). So nobody tells where others are.
"""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.prefix import Prefix, PrefixError

ANSWER_TIME = 10.0
"""Seconds after which a question has no answer any more."""
LIMIT = 32
"""Regions that are asked at one time."""
ANSWER_RATE = 0.2, 5.0, 20.0, 100.0
"""Answers a second, and at once, to one peer and to all."""


@dataclass(slots=True)
class _RegionQuestion:
    until: float
    asked: Prefix | None = None
    """Who greeted us from there, and was asked for somebody."""
    named: Prefix | None = None
    """Whom it named."""


class RegionQuestions:
    """Those under way. Times are monotonic."""

    def __init__(self) -> None:
        self._waiting: dict[Prefix, _RegionQuestion] = {}

    def ask(self, region: Prefix, now: float) -> bool:
        """Whether to greet a region now."""
        self._waiting = {each: question for each, question in self._waiting.items() if now < question.until}
        if region in self._waiting or len(self._waiting) >= LIMIT:
            return False
        self._waiting[region] = _RegionQuestion(now + ANSWER_TIME)
        return True

    def is_met(self, peer: Prefix, region: Prefix, now: float) -> bool:
        """Whether a peer that has said something is to be asked for somebody of its region."""
        question = self._at(region, now)
        if question is None or question.asked is not None:
            return False
        question.asked = peer
        return True

    def named(self, peer: Prefix, region: Prefix, answer: bytes, longest: int, now: float) -> Prefix | None:
        """Whom the one that was asked has named; None for what we have not asked for, or nobody of its region.

        `longest`: how many bits the prefix of a member has at most. Beyond those of an address, there is nobody to ask.
        """
        question = self._at(region, now)
        if question is None or question.asked != peer or question.named is not None:
            return None
        try:
            found = Prefix.from_bits(answer.decode("ascii"))
        except (PrefixError, UnicodeDecodeError):
            return None
        # The region itself is somebody only where that is the one that was asked, as its certificate says.
        if not region.contains(found) or found.length > longest or found == region != peer:
            return None
        question.named = found
        return found

    def told(self, peer: Prefix, now: float) -> Prefix | None:
        """The region whose question is answered, now that a peer has told where it is."""
        for region, question in self._waiting.items():
            if question.named == peer and now < question.until:
                del self._waiting[region]
                return region
        return None

    def _at(self, region: Prefix, now: float) -> _RegionQuestion | None:
        question = self._waiting.get(region)
        return question if question is not None and now < question.until else None
