"""A certificate whose renewal does not work: said 30, 14, 7, 3 and 1 days before its end, and when it has ended."""

from __future__ import annotations

import random

import pytest

from re6st.core.telemetry.expiry import AUTHORITY, DAY, OURS, THRESHOLDS, Expiry, expires

END = 1000 * DAY
HOUR = 3600.0


def said(expiry: Expiry, first: float, last: float, step: float = HOUR) -> list[tuple[int, str, bool]]:
    """What is said from `first` to `last` days before the end, and when."""
    found = []
    now = END - first * DAY
    while now <= END - last * DAY:
        if notice := expiry.notice(OURS, END, now):
            found.append((round((END - now) / DAY), notice.text, notice.serious))
        now += step
    return found


def test_once_at_each_threshold_and_later_as_an_error() -> None:
    lines = said(Expiry(), 60, -30)
    assert [(days, serious) for days, _, serious in lines] == [
        *((30, False), (14, False), (7, False)),
        *((3, True), (1, True), (0, True)),
    ]
    assert lines[0][1] == "our certificate expires in 30 days and is not renewed yet"
    assert lines[-2][1] == "our certificate expires in 23 h and is not renewed yet"
    assert lines[-1][1] == "our certificate has expired and is not renewed yet"


def test_right_after_a_start_where_it_stands() -> None:
    assert [days for days, _, _ in said(Expiry(), 5, 4)] == [5]
    assert [text for _, text, _ in said(Expiry(), -2, -3)] == ["our certificate has expired and is not renewed yet"]


def test_a_clock_that_leaps_costs_the_thresholds_between() -> None:
    assert [days for days, _, _ in said(Expiry(), 60, 0, 20 * DAY)] == [20, 0]
    assert [days for days, _, _ in said(Expiry(), 29, 1, 13 * DAY)] == [29, 3]


def test_another_certificate_begins_anew_and_each_has_its_own_memory() -> None:
    expiry = Expiry()
    assert expiry.notice(OURS, END, END - 2 * DAY)
    assert not expiry.notice(OURS, END, END - 2 * DAY)
    assert expiry.notice(AUTHORITY, END, END - 2 * DAY)
    assert not expiry.notice(OURS, END + 365 * DAY, END)
    assert expiry.notice(OURS, END + 20 * DAY, END), "a renewed one, near its end"
    assert not expiry.notice(OURS, END + 20 * DAY, END)


@pytest.mark.parametrize("seed", range(20))
def test_at_most_one_line_a_threshold_whenever_somebody_looks(seed: int) -> None:
    chance, expiry, lines = random.Random(seed), Expiry(), 0
    for now in sorted(END - chance.uniform(-50, 100) * DAY for _ in range(500)):
        lines += expiry.notice(OURS, END, now) is not None
    assert 1 <= lines <= len(THRESHOLDS)


def test_in_words() -> None:
    assert expires(OURS, 13 * DAY) == "our certificate expires in 13 days"
    assert expires(OURS, 2 * HOUR) == "our certificate expires in 2 h"
    assert expires(AUTHORITY, -1) == "the CA certificate has expired"
