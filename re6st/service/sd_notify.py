"""Messages to systemd: ready, status, still alive (sd_notify(3)). Without systemd, they are dropped."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress

STATUS_INTERVAL = 5.0
STUCK = 15.0
"""Seconds in which a program that is well gets round: three heartbeats of a node (noded/pulse.py)."""
PATIENCE = 10.0
"""After so many seconds, we report that we are ready, so that nobody, such as `systemctl start`, waits any longer: what
we wait for may be away for long. re6st-online.target is for those who need the network.
"""

_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Sends to the socket that systemd named in the environment. It is meant for us alone, so we remove it from there.

    Otherwise OpenVPN, for example, would report itself ready in our name.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._socket: socket.socket | None = None
        self._taken = {name: environment[name] for name in _OURS if name in environment}
        address = environment.pop("NOTIFY_SOCKET", "")
        if address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._address = f"\0{address[1:]}" if address[0] == "@" else address
        watchdog = environment.pop("WATCHDOG_USEC", "")
        ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(watchdog) / 1e6 if ours and watchdog.isdigit() and len(watchdog) < 16 else None
        """The seconds within which systemd expects `alive`; None: it does not watch us."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that were removed, for a program that takes our place."""
        return dict(self._taken)

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """We are reloading; `ready` has to follow."""
        self._send("RELOADING=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    async def wait(self) -> None:
        """Runs while something is waited for, until cancelled: reports after a while that we are ready, then that we
        are alive.
        """
        await asyncio.sleep(PATIENCE)
        self._send("READY=1")
        while True:
            self.alive()
            await asyncio.sleep(self._interval)

    async def go_on(
        self, started: Sequence[asyncio.Event], status: Callable[[], str], ticked: Callable[[], float]
    ) -> None:
        """Reports that we are ready, once all of `started` are set, or after a while; then what we do, and that we are
        alive.

        Runs until cancelled. `ticked` says when the program last ran its loop, by the monotonic clock.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for event in started:
                    await event.wait()
        self.ready(status())
        while True:
            await asyncio.sleep(self._interval)
            self.status(status())
            if time.monotonic() - ticked() < STUCK:
                self.alive()

    @property
    def _interval(self) -> float:
        return min(STATUS_INTERVAL, (self.watchdog or STATUS_INTERVAL) / 3)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            try:
                self._socket.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                pass  # systemd is gone or busy: nothing here depends on it
