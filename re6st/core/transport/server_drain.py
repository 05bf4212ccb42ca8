"""How long the drain of a server may take before it is restarted, and whether it has worked (noded/server_rollout.py).

Times of hellos are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey

DRAIN_HELLOS = 8
"""Hellos that are missed in a drain: each doubles the cost of the link, and from the tenth on it is lost."""
DRAIN = 12
"""Hellos that a server has to get empty; usually six or seven."""
DRAIN_TRIES, DRAIN_AGAIN = 3, 5.0
"""How often that is tried, and seconds in between: the other way may just be drained by somebody else."""
SPREAD_PER_PEER, SPREAD_LAST = 12, 600.0
"""Hellos for each node of the network, and seconds at most, over which the nodes spread this."""


def spread(hello: float, peers: int) -> float:
    """Seconds over which the nodes of a network restart their servers, so that they do not do it all at one time."""
    return min(SPREAD_PER_PEER * hello * peers, SPREAD_LAST)


def first_pause(hello: float, peers: int, chance: Random) -> float:
    """Seconds until a node begins with a server: others do the same at the same time."""
    return chance.uniform(0, spread(hello, peers))


def pause_again(chance: Random) -> float:
    """Seconds until a server that was needed is drained again."""
    return chance.uniform(1, 2) * DRAIN_AGAIN


def is_worth_it(survey: Survey, interface: str) -> bool:
    """Whether to drain it first: who has no other way loses less by a short end than by a drain."""
    return bool(survey.carried_by(interface)) and not survey.sole_by(interface)


class Verdict(Enum):
    GOES_ON = auto()
    EMPTY = auto()
    """Nothing goes through the interface any more."""
    NEEDED = auto()
    """Somebody has no other way, or it takes too long."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The drain of an interface, which began at a time and carried these destinations then."""

    interface: str
    hello: float
    began: float
    carried: frozenset[Prefix]

    def verdict(self, survey: Survey, now: float) -> Verdict:
        if not survey.carried_by(self.interface):
            return Verdict.EMPTY
        taken = now - self.began
        late = taken > DRAIN_HELLOS * self.hello and survey.sole_by(self.interface)
        lost = self.carried - survey.peers
        return Verdict.NEEDED if late or lost or taken > DRAIN * self.hello else Verdict.GOES_ON
