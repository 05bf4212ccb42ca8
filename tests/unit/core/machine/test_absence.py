"""An address that is away: waited for, unless another one can take its place."""

from __future__ import annotations

from ipaddress import ip_address

from re6st.core.machine.absence import PATIENCE, Absences

A, B, SIX = ip_address("192.0.2.1"), ip_address("198.51.100.1"), ip_address("2001:db8::1")


def test_one_that_comes_back_in_time_was_never_gone() -> None:
    own = Absences()
    assert own.note([A], [SIX], [SIX], 10.0) == frozenset()
    assert own.due(10.0 + PATIENCE - 0.1) == frozenset()
    assert own.note([], [A, SIX], [A, SIX], 12.0) == frozenset()
    assert own.due(100.0) == frozenset()


def test_one_that_does_not_is_gone_once() -> None:
    own = Absences()
    own.note([A, SIX], [], [], 10.0)
    own.note([], [SIX], [], 14.0)
    assert own.due(10.0 + PATIENCE) == {A}
    assert own.due(100.0) == frozenset()


def test_another_of_its_family_that_leads_out_takes_its_place_at_once_or_as_soon_as_it_is_there() -> None:
    own = Absences()
    assert own.note([A], [B], [B], 10.0) == {A}
    assert own.note([A], [B], [], 20.0) == frozenset(), "that of a bridge for containers does not lead out"
    assert own.note([], [B], [B], 21.0) == {A}
    assert own.due(100.0) == frozenset()
