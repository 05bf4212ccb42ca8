"""Threads hear no signals: the event loop, or who comes after this program, gets each of them."""

from __future__ import annotations

import signal

from re6st.service.threads import threads


def test_a_thread_hears_no_signal() -> None:
    with threads(1, "one") as pool:
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
    assert {signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2} <= set(blocked)


def test_the_thread_that_asked_hears_them_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with threads(1, "one") as pool:
        pool.submit(int).result()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
