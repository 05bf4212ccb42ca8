"""Whatever is lost, doubled, late or ended at whatever moment, two nodes soon have the same WireGuard link, or none."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import PAUSE, LinkPhase, LinkSettings
from tests.unit.wireguard_world import A, B, World, other

nodes = st.sampled_from((A, B))
KEY_LIFE = 40.0


class BadLuck(RuleBasedStateMachine):
    """At the end, luck turns: nothing is lost any more, and nobody opens or closes anything."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(settings=LinkSettings(range(51820, 51823), ("re6stnet11", "re6stnet12"), key_life=KEY_LIFE))
        self.world.makes_at_once = False

    @rule(own=nodes)
    def opens(self, own: Prefix) -> None:
        self.world.open(own)

    @rule(own=nodes)
    def closes(self, own: Prefix) -> None:
        self.world.close(own)

    @precondition(lambda self: self.world.flying)
    @rule(data=st.data(), keep=st.booleans())
    def arrives(self, data: st.DataObject, keep: bool) -> None:
        self.world.deliver(data.draw(st.integers(0, min(len(self.world.flying), 6) - 1)), keep=keep)

    @precondition(lambda self: self.world.flying)
    @rule()
    def all_arrive(self) -> None:
        self.world.exchange()

    @precondition(lambda self: self.world.flying)
    @rule()
    def all_are_lost(self) -> None:
        self.world.flying.clear()

    @rule(own=nodes)
    def interfaces_are_made(self, own: Prefix) -> None:
        for interface in list(self.world.ends[own].making):
            self.world.make(own, interface)

    @rule(own=nodes, port_taken=st.booleans())
    def an_interface_is_lost(self, own: Prefix, port_taken: bool) -> None:
        end, world = self.world.ends[own], self.world
        for link in [*end.making.values(), *end.interfaces.values()]:
            world.carry(own, end.agreement.failed(link.peer, link.number, world.now, port_taken=port_taken))

    @rule(seconds=st.sampled_from((0.5, 1.0, 3.0, 20.0, 60.0)), passes=st.booleans())
    def time_passes(self, seconds: float, passes: bool) -> None:
        self.world.passes = passes
        self.world.traffic()
        self.world.step(seconds)

    @rule(seconds=st.sampled_from((0.5, 4.0, 15.0)))
    def all_is_well_for_a_while(self, seconds: float) -> None:
        self.world.passes = True
        for own in (A, B):
            self.interfaces_are_made(own)
        self.world.run(seconds)

    @rule(own=nodes, late=st.sampled_from((0, 10, 100_000)))
    def starts_anew(self, own: Prefix, late: int) -> None:
        self.world.clock -= late
        self.world.start(own)

    @rule(own=nodes)
    def is_replaced_by_the_next_daemon(self, own: Prefix) -> None:
        self.world.take_over(own)

    @invariant()
    def each_is_right_in_itself(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        world = self.world
        world.passes = True
        world.settle()
        assert world.agree(30)
        # And they can have a link again: nothing of the past is in the way, but a pause.
        if world.link(A) is None:
            world.step(PAUSE)
            world.attempt(A, 3.0)
            assert world.is_linked()
        assert all(world.ends[own].agreement.phase(other(own)) is LinkPhase.UP for own in (A, B))


TestBadLuck = BadLuck.TestCase
TestBadLuck.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


@pytest.mark.parametrize("seed", range(40))
def test_minutes_of_a_bad_channel_with_restarts(seed: int) -> None:
    """A third of what is said gets lost, or all of it for a while; some of it comes twice, or late."""
    rng = Random(seed)
    world = World(seed, LinkSettings(range(51820, 51823), ("re6stnet11", "re6stnet12"), key_life=KEY_LIFE))
    down = 0.0
    world.lose = lambda _to, _message: rng.random() < 0.33 or world.now < down
    for _ in range(rng.randrange(100, 1200)):
        own = rng.choice((A, B))
        match rng.randrange(200):
            case 0:
                world.start(own)
            case 1:
                world.take_over(own)
            case 2:
                world.close(own)
            case 3:
                world.clock -= rng.randrange(100_000)
            case 4:
                down = world.now + rng.choice((3, 10, 40))
            case 5:
                world.passes = not world.passes
            case 6 | 7 | 8 | 9 | 10 | 11:
                world.open(own)
        for _ in range(rng.randrange(4)):
            if world.flying:
                world.deliver(rng.randrange(min(3, len(world.flying))), keep=rng.random() < 0.1)
        if rng.random() < 0.8:
            world.traffic()
        world.step(rng.choice((0.05, 0.25, 0.5)))
        world.check()
    world.lose, world.passes = lambda _to, _message: False, True
    world.settle()
    assert world.agree(30)
