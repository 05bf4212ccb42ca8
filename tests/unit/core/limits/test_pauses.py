"""Pauses with peers: how long, why, and how many."""

from __future__ import annotations

from re6st.core.limits.pauses import Pauses
from re6st.core.prefix import Prefix

ONE, OTHER, THIRD = (Prefix(number, 16) for number in range(3))


def test_a_pause_has_a_reason_and_an_end() -> None:
    pauses: Pauses[str] = Pauses(2)
    pauses.begin(ONE, "full", 10.0, 100.0)
    assert [pauses.reason(ONE, now) for now in (100.0, 109.9, 110.0)] == ["full", "full", None]
    assert pauses.reason(OTHER, 100.0) is None
    pauses.begin(ONE, "silent", 5.0, 101.0)
    assert [pauses.reason(ONE, now) for now in (105.9, 106.0)] == ["silent", None], "the last one counts"
    pauses.end(ONE)
    assert pauses.reason(ONE, 101.0) is None


def test_the_pause_that_began_first_is_forgotten() -> None:
    pauses: Pauses[str] = Pauses(2)
    for peer in (ONE, OTHER, ONE, THIRD):
        pauses.begin(peer, "full", 10.0, 0.0)
    assert [pauses.reason(peer, 1.0) for peer in (ONE, OTHER, THIRD)] == ["full", None, "full"]
