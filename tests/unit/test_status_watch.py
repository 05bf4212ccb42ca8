"""re6st-status watch ends when its terminal is gone."""

from __future__ import annotations

import os
import sys

import pytest

from re6st.cli import status_watch


def test_it_leaves_when_the_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    woken, wake = os.pipe()
    with open(os.devnull) as gone:
        monkeypatch.setattr(sys, "stdin", gone)
        assert status_watch._key(woken, 10.0) == b"q"
    os.close(woken)
    os.close(wake)
