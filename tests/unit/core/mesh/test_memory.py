"""Which peers are remembered, and who is forgotten for another one."""

from __future__ import annotations

from random import Random

from re6st.core.mesh.memory import KEPT, PEER_LIMIT, in_order, makes_room, worked_first, worth_keeping
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.sim.names import prefix_of

ONE, TWO, THREE = (Endpoint(f"192.0.2.{number}", 1194, TunnelProtocol.TCP) for number in range(3))
FULL = [prefix_of(number) for number in range(PEER_LIMIT)]


def test_addresses_that_worked_stay_first_as_long_as_the_peer_tells_them() -> None:
    assert in_order((), (ONE, TWO)) == (ONE, TWO)
    assert in_order((TWO, ONE), (ONE, TWO, THREE)) == (TWO, ONE, THREE)
    assert in_order((TWO, ONE), (THREE, ONE)) == (ONE, THREE)


def test_the_address_that_worked_comes_first_if_it_is_still_one_of_them() -> None:
    assert worked_first((ONE, TWO, THREE), TWO) == (TWO, ONE, THREE)
    assert worked_first((ONE, THREE), TWO) == (ONE, THREE)


def test_nobody_is_forgotten_while_there_is_room() -> None:
    assert makes_room(FULL[1:], lambda peer: True, Random(1)) is None


def test_who_is_spare_makes_room_and_where_nobody_is_anybody_does() -> None:
    spare = set(FULL[50:60])
    assert {makes_room(FULL, spare.__contains__, Random(seed)) for seed in range(30)} <= spare
    forgotten = {makes_room(FULL, lambda peer: False, Random(seed)) for seed in range(30)}
    assert None not in forgotten
    assert len(forgotten) > 10


def test_neighbours_are_kept_for_the_next_start_before_others() -> None:
    near = frozenset(FULL[100:103])
    kept = worth_keeping(FULL, near, client_count=1)
    assert set(kept[:3]) == near
    assert len(kept) == KEPT
    assert len(worth_keeping(FULL, near, client_count=30)) == 30
