"""Finds out which user of this machine sent a datagram from the loopback interface."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from re6st.core.limits.budget import Bucket

SOCKETS = Path("/proc/self/net/udp6")
LOOPBACK = "00000000000000000000000001000000"
"""::1 as this file writes it."""
ANY = "0" * 32
NOBODY = -1
"""Stands for a user that is not known."""
KEPT, KEPT_TIME = 256, 60.0
"""Number of ports that are remembered, and for how many seconds: the same port may belong to somebody else later."""


class PortOwners:
    """`of` returns the user of a port of ::1. The file is read at most some ten times a second, since a large one takes
    time.
    """

    def __init__(self, read: Callable[[], str] = lambda: SOCKETS.read_text("ascii")) -> None:
        self._read = read
        self._known: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._reads = Bucket(10, 20)

    def of(self, port: int, now: float) -> int:
        """The user id, or NOBODY if it cannot be known now."""
        uid, until = self._known.get(port, (NOBODY, now))
        if until <= now and self._reads.take(now):
            uid = self._look(port)
            self._known[port] = uid, now + KEPT_TIME
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        if port in self._known:
            self._known.move_to_end(port)
        return uid

    def _look(self, port: int) -> int:
        try:
            lines = self._read().splitlines()[1:]
        except (OSError, ValueError):
            return NOBODY
        wanted = {f"{address}:{port:04X}" for address in (LOOPBACK, ANY)}
        for line in lines:
            fields = line.split()
            if len(fields) > 7 and fields[1] in wanted and fields[7].isdecimal():
                return int(fields[7])
        return NOBODY
