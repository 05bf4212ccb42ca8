"""Threads beside the event loop, for what blocks."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor


def threads(count: int, name: str) -> ThreadPoolExecutor:
    """So many threads at most. They hear no signals: these are for the event loop alone.

    The kernel gives a signal to any thread that does not block it. One that comes while a successor takes our place
    (noded/successor.py) must wait for that: a thread that took it would lose it.
    """
    return ThreadPoolExecutor(count, name, initializer=_deaf)


def _deaf() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
