"""Waiting for a condition, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.05


def wait_until(condition: Callable[[], T], timeout: float, what: str, context: Callable[[], str] | None = None) -> T:
    """The first true value of `condition`, which is asked again and again.

    Raises AssertionError after `timeout` seconds: what was waited for, and what `context` tells (the logs, mostly).
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            raise AssertionError(f"not within {timeout:g} s: {what}" + (f"\n{context()}" if context else ""))
        time.sleep(PAUSE)
