"""Figures in words."""

from __future__ import annotations

import pytest

from re6st.core.words import away, duration, moment, plural, short, size

DAY = 86400


@pytest.mark.parametrize(
    ("seconds", "words", "column"),
    [
        (None, "-", "-"),
        (-1, "0.0 s", "0s"),
        (0.04, "0.0 s", "0s"),
        (2.34, "2.3 s", "2s"),
        (9.94, "9.9 s", "10s"),
        (9.96, "10 s", "10s"),
        (59.6, "1 min", "1m"),
        (125, "2 min 5 s", "2m"),
        (3600, "1 h", "1h"),
        (3605, "1 h", "1h"),
        (3 * 3600 + 61, "3 h 1 min", "3h1m"),
        (3 * DAY + 4 * 3600 + 59, "3 d 4 h", "3d4h"),
        (400 * DAY, "1 y 34 d", "1y34d"),
    ],
)
def test_durations(seconds: float | None, words: str, column: str) -> None:
    assert duration(seconds) == words
    assert short(seconds) == column


def test_moments() -> None:
    assert moment(1_800_000_000) == "2027-01-15"
    assert away(1000, 1000) == "0 s ago"
    assert away(1012, 1000) == "in 12 s"
    assert away(1000 - 119, 1000) == "119 s ago"
    assert away(1000 - 121, 1000) == "2 min ago"
    assert away(331 * DAY, 0) == "in 331 d"
    assert away(-8 * 366 * DAY, 0) == "8 y ago"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        *[(None, "-"), (0, "0 B"), (999, "999 B"), (1023, "1.0 KiB"), (1 << 20, "1.0 MiB"), (310 << 20, "310 MiB")],
        *[((1 << 30) * 6 // 5, "1.2 GiB"), (1 << 70, "1048576 PiB")],
    ],
)
def test_sizes(count: int | None, words: str) -> None:
    assert size(count) == words


def test_plurals() -> None:
    assert [plural(n, "route") for n in (0, 1, 2)] == ["0 routes", "1 route", "2 routes"]
    assert plural(2, "entry", "entries") == "2 entries"
