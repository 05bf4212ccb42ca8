"""Whose place at a server a newcomer may take."""

from __future__ import annotations

from re6st.core.mesh.dead_clients import FREED, DeadClients
from re6st.core.prefix import Prefix

A, B, C = Prefix(1, 16), Prefix(2, 16), Prefix(3, 16)


def test_the_place_of_one_who_is_dead_for_long_enough_is_free_the_longest_dead_first() -> None:
    clients = DeadClients()
    clients.died(A, "re6stnet-tcp", 101)
    clients.died(B, "re6stnet-tcp", 100)
    clients.died(C, "re6stnet-wgs1", 102)
    assert clients.spare(100 + FREED - 0.1) == []
    assert clients.spare(101 + FREED) == [B, A]


def test_one_that_is_told_of_again_and_again_is_dead_since_the_first_time() -> None:
    clients = DeadClients()
    clients.died(A, "re6stnet-tcp", 100)
    clients.died(A, "re6stnet-tcp", 103)
    assert clients.spare(100 + FREED) == [A]


def test_who_is_heard_keeps_its_place() -> None:
    clients = DeadClients()
    clients.died(A, "re6stnet-tcp", 100)
    clients.heard([A, B])
    assert not clients
    assert clients.spare(200) == []
