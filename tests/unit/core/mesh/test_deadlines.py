"""The policy says when it is to be asked again: it decides the same as if asked every second, and wakes less often."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from re6st.core.mesh.closing import DEAD_TIME, DEGRADED_TIME
from re6st.core.mesh.policy import (
    HEARTBEAT,
    Action,
    ClientUp,
    CloseAsked,
    EnsureSession,
    Event,
    TunnelDown,
    TunnelsLossy,
    TunnelsOutdated,
)
from re6st.sim.names import name
from re6st.sim.network import Network
from tests.unit.mesh_policy import CLOSE_TIME, PEERS, REFRESH, REGISTRY, Driver, near

P, Q, R = PEERS[:3]
EVERYBODY = (REGISTRY, *PEERS)
SLACK = 1.01
"""Seconds by which the pause between two decisions may be shorter than by the second."""


class Watched(Driver):
    """Two policies that are told the same: one follows its deadlines, the other one is asked every second."""

    def __init__(self, by_the_second: bool, **more: Any) -> None:
        super().__init__(**more)
        self.by_the_second = by_the_second
        self.wakes = 0
        self.settled_at = 0.0
        self.story: list[tuple[float, Action]] = []

    def tell(self, event: Event) -> list[Action]:
        return self._note(super().tell(event))

    def wait(self, seconds: float) -> list[Action]:
        found, end = list[Action](), self.now + seconds
        while True:
            due = self.now + 1 if self.by_the_second else self.mesh.next_deadline(self.now)
            if due > end:
                break
            self.now = due
            self.wakes += 1
            found += self._note([a for a in self.mesh.tick(due) if not isinstance(a, EnsureSession)])
        self.now = end
        return found

    def _note(self, actions: list[Action]) -> list[Action]:
        self.story += [(self.now, action) for action in actions]
        return actions


def falls_silent(node: Watched) -> None:
    node.sees(*EVERYBODY, **near(P))
    node.wait(2 * DEAD_TIME)


def gets_worse(node: Watched) -> None:
    costs = {name(P): 96, name(Q): 96, name(R): 96}
    node.sees(*EVERYBODY, **near(P, Q, R), costs=costs)
    node.wait(20)
    node.sees(*EVERYBODY, **near(P, Q, R), costs=costs | {name(Q): 1500})
    node.wait(2 * DEGRADED_TIME)


def loses_packets(node: Watched) -> None:
    node.tell(TunnelsLossy(frozenset({P})))
    node.wait(30)
    node.tell(TunnelsLossy(frozenset()))
    node.wait(600)


def is_outdated(node: Watched) -> None:
    node.tell(TunnelsOutdated(frozenset({P, Q, R})))
    node.wait(2 * CLOSE_TIME)


def client_wants_to_leave(node: Watched) -> None:
    node.tell(ClientUp(PEERS[9]))
    node.sees(*EVERYBODY, **near(P, Q, R, PEERS[9]))
    node.tell(CloseAsked(PEERS[9]))
    node.wait(2 * CLOSE_TIME)


def is_replaced(node: Watched) -> None:
    node.wait(REFRESH + 1)
    node.wait(2 * CLOSE_TIME)


def ends(node: Watched) -> None:
    node.tell(TunnelDown(Q))
    node.sees(*[peer for peer in EVERYBODY if peer != Q], **near(P, R))
    node.wait(60)


HAPPENS = [falls_silent, gets_worse, loses_packets, is_outdated, client_wants_to_leave, is_replaced, ends]


def settled(by_the_second: bool) -> Watched:
    """A node with all the tunnels that it wants, and others that it could meet."""
    node = Watched(by_the_second, client_count=3)
    node.up(P, Q, R)
    node.sees(*EVERYBODY, **near(P, Q, R))
    node.wait(40)
    node.settled_at = node.now
    return node


@pytest.mark.parametrize("happens", HAPPENS)
def test_the_same_is_decided_at_the_same_times_as_by_the_second(happens: Callable[[Watched], None]) -> None:
    stories = []
    for by_the_second in (True, False):
        node = settled(by_the_second)
        node.story.clear()
        happens(node)
        stories.append(node.story)
    before, after = stories
    assert before, "something was decided"
    assert [action for _, action in after] == [action for _, action in before]
    for slow, quick in zip(pauses(before, node), pauses(after, node), strict=True):
        assert abs(slow - quick) <= SLACK


def pauses(story: list[tuple[float, Action]], node: Watched) -> list[float]:
    """Seconds from one decision to the next, the first one since what happened."""
    moments = [node.settled_at, *(moment for moment, _ in story)]
    return [later - earlier for earlier, later in pairwise(moments)]


def test_an_idle_policy_wakes_by_its_heartbeat_alone() -> None:
    wakes = []
    for by_the_second in (True, False):
        node = settled(by_the_second)
        node.sees(*EVERYBODY[:4], **near(P, Q, R))
        node.wait(10)
        node.wakes = 0
        assert node.wait(240) == []
        wakes.append(node.wakes / 4)
    assert wakes == [60, 60 / HEARTBEAT]


def test_a_deadline_is_never_put_off_by_asking_for_it() -> None:
    node = settled(by_the_second=False)
    node.sees(*EVERYBODY, **near(P))
    due = node.mesh.next_deadline(node.now)
    assert node.mesh.next_deadline(due - 0.5) == due
    assert node.mesh.next_deadline(due + 3) == due + 3, "it is late, and has still to be done"


def test_what_a_decision_made_way_for_does_not_wait_for_the_heartbeat() -> None:
    node = Driver(client_count=1)
    assert node.sees(*EVERYBODY, **near(REGISTRY))
    assert node.mesh.next_deadline(node.now) <= node.now + 1


def test_an_idle_network_wakes_less_often(record_property: Callable[[str, object], None]) -> None:
    """Twelve nodes that have met, and have nobody else to meet."""
    network = Network(7, client_count=4)
    for number in range(12):
        network.add(number)
    network.run(120)
    for member in network.alive:
        member.wakes = 0
    network.run(120)
    rates = [member.wakes / 2 for member in network.alive]
    record_property("wakes per minute", rates)
    assert network.connected()
    assert max(rates) < 30, "it was 60"
    assert sum(rates) / len(rates) < 20
