"""Whose place at a server a newcomer may take."""

from __future__ import annotations

from re6st.core.mesh.dead_clients import FREED, HELD, DeadClients
from re6st.core.prefix import Prefix

A, B, C = Prefix(1, 16), Prefix(2, 16), Prefix(3, 16)


def test_the_place_of_one_who_is_dead_for_long_enough_is_free_the_longest_dead_first() -> None:
    clients = DeadClients()
    clients.died(A, "re6stnet-tcp", 101)
    clients.died(B, "re6stnet-tcp", 100)
    clients.died(C, "re6stnet-wgs1", 102)
    assert clients.spare(100 + FREED - 0.1) == []
    assert clients.spare(101 + FREED) == [B, A]


def test_who_gives_a_sign_of_life_now_and_then_keeps_its_place() -> None:
    """Half of its packets get lost, so it never is alive for long enough to count as that."""
    clients = DeadClients()
    for last in range(100, 130):
        clients.died(A, "re6stnet-tcp", last)
        assert clients.spare(last + 1.5) == []


def test_who_has_connected_anew_is_not_taken_for_dead_by_its_tunnel_of_before() -> None:
    clients = DeadClients()
    clients.died(A, "re6stnet-tcp", 100)
    clients.joined(A, 104)
    clients.died(A, "re6stnet-tcp", 100)
    assert clients.spare(110) == []
    clients.died(A, "re6stnet-tcp", 105)
    assert clients.spare(110) == [A]


def test_what_was_found_long_ago_or_before_links_were_not_watched_says_nothing() -> None:
    clients = DeadClients()
    clients.died(A, "re6stnet-tcp", 100)
    assert clients.spare(100 + HELD) == []
    clients.died(A, "re6stnet-tcp", 300)
    clients.forget()
    assert clients.spare(310) == []


def test_who_is_heard_keeps_its_place() -> None:
    clients = DeadClients()
    clients.died(A, "re6stnet-tcp", 100)
    clients.heard([A, B])
    assert not clients
    assert clients.spare(110) == []
