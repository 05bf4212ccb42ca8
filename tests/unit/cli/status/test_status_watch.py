"""re6st-status watch ends when its terminal is gone."""

from __future__ import annotations

import os
import sys

import pytest

from re6st.cli.status import live
from re6st.view.screen import Span, line


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (b"\x1b[B", live.DOWN),
        (b"\x1bOB", live.DOWN),
        (b"\x1b[6~", live.PAGE_DOWN),
        (b"\x1b[6~\x1b[6~", live.PAGE_DOWN),
        (b" ", live.PAGE_DOWN),
        (b"\x1b[A", live.UP),
        (b"\x1b", live.LEAVE),
        (b"q", live.LEAVE),
    ],
)
def test_an_arrow_is_no_escape(read: bytes, key: tuple[bytes, ...]) -> None:
    assert live.first_key(read) in key


@pytest.mark.parametrize("read", [b"\x1b[1;5C", b"\x1b[3~", b"\x1bOP", b"x"])
def test_another_key_does_nothing(read: bytes) -> None:
    key = live.first_key(read)
    assert key not in live.LEAVE
    assert live.scrolled(key, 3, 100, 25) == 3


def test_scrolling_reaches_every_line_and_no_further() -> None:
    def after(*keys: tuple[bytes, ...]) -> int:
        top = 0
        for key in keys:
            top = live.scrolled(key[0], top, 100, 25)
        return top

    w = live
    assert [after(w.DOWN), after(w.DOWN, w.UP), after(w.UP), after(w.PAGE_DOWN)] == [1, 0, 0, 24]
    assert [after(w.LAST), after(*[w.PAGE_DOWN] * 9), after(w.LAST, w.FIRST)] == [76, 76, 0]
    assert w.scrolled(w.DOWN[0], 0, 10, 25) == 0, "all is on the screen"


def test_the_last_line_tells_what_is_above_and_below() -> None:
    lines = [line(Span(f"line {number}")) for number in range(100)]
    shown = live.frame(lines, 80, 25, 76, colour=False)
    assert "line 76" in shown
    assert "line 99" in shown
    assert "line 75" not in shown
    assert "q: leave   lines 77 to 100 of 100: arrows and PageUp, PageDown scroll" in shown
    assert "scroll" not in live.frame(lines[:5], 80, 25, colour=False)


def test_it_leaves_when_the_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    woken, wake = os.pipe()
    with open(os.devnull) as gone:
        monkeypatch.setattr(sys, "stdin", gone)
        assert live._key(woken, 10.0) == b"q"
    os.close(woken)
    os.close(wake)
