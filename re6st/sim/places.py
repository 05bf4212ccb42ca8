"""Where the nodes of a large simulation are, and the round trips between them: a model fitted to published figures.

No set of measured round trips is at hand as a package, so this is a model with the structure that Vivaldi found in such
sets (Dabek, Cox, Kaashoek, Morris: "Vivaldi: a decentralized network coordinate system", SIGCOMM 2004): each node has a
place on a plane, and a height above it, which is the way to the next large router and is part of each of its round
trips. The planes are six continents, with the shares of machines and the round trips between continents in `LANDS` and
`OVERSEAS`, of the order that clouds publish between their regions. The last three figures fit the whole to the King
data set, which that paper used (1,740 name servers; Gummadi, Saroiu, Gribble, IMW 2002), with a median of 159 ms and a
mean of 180 ms, quoted from memory: a test shows how far the model is from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, log
from random import Random


@dataclass(frozen=True, slots=True)
class Land:
    """A continent: its share of all machines, and milliseconds from one side to the other, there and back."""

    share: float
    size: float


LANDS = (Land(0.28, 60), Land(0.30, 45), Land(0.29, 90), Land(0.06, 60), Land(0.03, 50), Land(0.04, 90))
"""North America, Europe, Asia, South America, Oceania, Africa."""
OVERSEAS = (
    (0, 85, 150, 115, 150, 190),
    (85, 0, 170, 190, 250, 100),
    (150, 170, 0, 270, 110, 210),
    (115, 190, 270, 0, 280, 290),
    (150, 250, 110, 280, 0, 290),
    (190, 100, 210, 290, 290, 0),
)
"""Milliseconds from one continent to another, there and back, beside the ways on both."""
HEIGHT, SPREAD = 8.0, 1.5
"""The median way to the next large router, in milliseconds there and back, and the spread of its logarithm."""
STRETCH = 0.83
"""How much longer all ways over land and sea are."""
LEAST = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    land: int
    x: float
    y: float
    height: float


def place(rng: Random) -> Place:
    """Somewhere, as machines are spread over the world."""
    (land,) = rng.choices(range(len(LANDS)), [each.share for each in LANDS])
    size = LANDS[land].size * STRETCH
    return Place(land, rng.uniform(0, size), rng.uniform(0, size), rng.lognormvariate(log(HEIGHT), SPREAD))


def round_trip(one: Place, other: Place) -> float:
    """Milliseconds between two machines, there and back."""
    ways = hypot(one.x - other.x, one.y - other.y)
    if one.land != other.land:
        # The shore may lie anywhere: half of the way on land is saved in the mean.
        ways = ways / 2 + OVERSEAS[one.land][other.land] * STRETCH
    return max(LEAST, ways + one.height + other.height)


def neighbourhoods(places: Sequence[Place], parts: int) -> list[list[int]]:
    """The indices of all places in so many parts of about the same size, each of places that are near each other.

    So a registry gives prefixes that knows where machines are. Continents are cut in halves again and again.
    """
    by_land = sorted(range(len(places)), key=lambda index: (places[index].land, index))
    return _cut(by_land, parts, places)


def _cut(indices: list[int], parts: int, places: Sequence[Place]) -> list[list[int]]:
    if parts == 1:
        return [indices]
    lands = {places[index].land for index in indices}
    if len(lands) == 1:
        widest = max(("x", "y"), key=lambda axis: _width([getattr(places[index], axis) for index in indices]))
        indices = sorted(indices, key=lambda index: float(getattr(places[index], widest)))
    first = parts // 2
    middle = len(indices) * first // parts
    return _cut(indices[:middle], first, places) + _cut(indices[middle:], parts - first, places)


def _width(values: list[float]) -> float:
    return max(values) - min(values) if values else 0.0
