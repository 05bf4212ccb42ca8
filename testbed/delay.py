"""A slow way between two hosts: a tun interface on each, and this process between them, which takes its time.

For kernels without netem. Routes lead what the hosts send to each other into these interfaces; addresses stay as they
are, so that connections go on, slower.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import struct
import threading
import time
from collections import deque
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.host import Host

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
IFREQ = struct.Struct("16sH22x")  # linux/if.h, struct ifreq
PACKET = 65536
QUEUE = 20_000
"""Packets under way at most, each way; the rest is lost."""


class SlowWay:
    """What each of two hosts sends to the addresses of the other on the switch arrives so many seconds later.

    With `jitter` each packet takes longer than that by chance, as in the queues of routers: that long on the average, a
    few times as long now and then. Packets keep their order.
    """

    def __init__(self, one: Host, other: Host, seconds: float, jitter: float = 0) -> None:
        self._seconds = seconds
        self._jitter = jitter
        self._chance = Random(f"{one.name} {other.name}")
        self._ends = [_end(one, other), _end(other, one)]
        self._under_way: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in self._ends}
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The hosts reach each other over the switch again."""
        os.write(self._stop, b".")
        self._thread.join()
        for end in (*self._ends, self._stop, self._stopped):
            os.close(end)

    def _carry(self) -> None:
        one, other = self._ends
        opposite = {one: other, other: one}
        with selectors.DefaultSelector() as selector:
            for end in (one, other, self._stopped):
                selector.register(end, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(self._wait())}
                if self._stopped in ready:
                    return
                now = time.monotonic()
                for end, queue in self._under_way.items():
                    while queue and queue[0][0] <= now:
                        _, packet = queue.popleft()
                        with contextlib.suppress(OSError):
                            os.write(end, packet)
                for end in ready:
                    queue = self._under_way[opposite[end]]
                    with contextlib.suppress(OSError):
                        while packet := os.read(end, PACKET):
                            if len(queue) < QUEUE:
                                queue.append((self._arrives(queue, now), packet))

    def _arrives(self, queue: deque[tuple[float, bytes]], now: float) -> float:
        at = now + self._seconds + (self._chance.expovariate(1 / self._jitter) if self._jitter else 0)
        return max(at, queue[-1][0]) if queue else at

    def _wait(self) -> float | None:
        due = [queue[0][0] for queue in self._under_way.values() if queue]
        return max(0.0, min(due) - time.monotonic()) if due else None


def _end(host: Host, other: Host) -> int:
    """A tun interface of a host that everything to the other one goes into."""
    name = f"slow-{other.name}"[:15]

    def make() -> int:
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(file, TUNSETIFF, IFREQ.pack(name.encode(), IFF_TUN | IFF_NO_PI))
        except OSError:
            os.close(file)
            raise
        return file

    file = host.namespace.call(make)
    host.namespace.ip(
        f"link set {name} addrgenmode none",  # no address of its own, or the host had one more uplink
        f"link set {name} up",
        f"route add {other.address}/32 dev {name} src {host.address}",
        *([f"route add {other.ipv6}/128 dev {name} src {host.ipv6}"] if host.ipv6 and other.ipv6 else []),
    )
    return file
