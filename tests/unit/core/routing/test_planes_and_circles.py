"""Packets make no circle between two planes, whatever routes each has at one moment, if each by itself has none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

TARGET = 0
NODES = 8


@dataclass(frozen=True)
class Moment:
    """Where nodes lead packets for node 0, by latency and by capacity; who lacks the second plane has none of these."""

    latency: dict[int, int]
    capacity: dict[int, int]
    with_plane: frozenset[int]

    def walk(self, source: int, *, forgets: bool = True) -> list[int]:
        """The nodes that a bulk packet meets; a packet that `forgets` loses its class where it leaves the plane."""
        here, bulk, met = source, True, [source]
        while here != TARGET and len(met) <= 10 * NODES:
            if bulk and here in self.with_plane:
                bulk = here in self.capacity or not forgets
            way = self.capacity if bulk and here in self.with_plane and here in self.capacity else self.latency
            if here not in way:
                break
            here = way[here]
            met.append(here)
        return met


@st.composite
def routes(draw: st.DrawFn, nodes: frozenset[int], *, complete: bool) -> dict[int, int]:
    """Next hops without a circle: each is nearer to the target by some distance, as babel sees to."""
    order = [TARGET, *draw(st.permutations(sorted(nodes - {TARGET})))]
    found = {}
    for at, node in enumerate(order[1:], 1):
        if complete or draw(st.booleans()):
            found[node] = draw(st.sampled_from(order[:at]))
    return found


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    every = frozenset(range(NODES))
    with_plane = draw(st.frozensets(st.sampled_from(sorted(every))))
    return Moment(
        draw(routes(every, complete=draw(st.booleans()))),
        # Where it converges, the next hop of a route may have none itself.
        draw(routes(with_plane | {TARGET}, complete=False)),
        with_plane,
    )


@given(moments(), st.integers(1, NODES - 1))
def test_a_packet_meets_no_node_more_than_three_times(moment: Moment, source: int) -> None:
    met = moment.walk(source)
    assert max(Counter(met).values()) <= 3
    assert len(met) <= 3 * NODES
    if len(moment.latency) == NODES - 1:
        assert met[-1] == TARGET, "and it arrives where the plane of latency has all routes"


def test_a_packet_that_kept_its_class_could_go_round_for_ever() -> None:
    """A leads by capacity to B, which has no such route at this moment, and leads by latency to A."""
    moment = Moment({2: 1, 1: TARGET}, {1: 2}, frozenset({1, 2}))
    assert len(moment.walk(1, forgets=False)) > 5 * NODES
    assert moment.walk(1) == [1, 2, 1, TARGET]


@pytest.mark.parametrize("old", range(1, 4))
def test_nodes_without_the_plane_may_stand_anywhere(old: int) -> None:
    moment = Moment({3: 2, 2: 1, 1: TARGET}, {}, frozenset(range(4)) - {old})
    assert moment.walk(3) == [3, 2, 1, TARGET]
