"""Echo requests between many hosts at once, from this one process.

A raw socket stays in the namespace it was made in, so one loop here holds a socket of every host: a thousand pairs take
a fraction of a second, where a thousand ping(8) would take minutes.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from itertools import pairwise

from re6st.linux.icmpv6 import ECHO_REQUEST, raw_echo_socket
from testbed.background import in_background
from testbed.host import Host

PACE = 0.1
"""Seconds between two pings of a `Pinger`."""
LATE = 1.0
"""Seconds after which an answer to a `Pinger` comes too late."""
HEADER = struct.Struct("!BBHQ")  # type, code, checksum (the kernel's), then identifier and sequence number as our token
IPV6_HEADER = 40

Pair = tuple[Host, IPv6Address]


def ping_pairs(pairs: Iterable[Pair], timeout: float = 2.0, size: int = 64) -> dict[Pair, float | None]:
    """One echo request from each host to each address: the round trip in seconds, or None where no answer came.

    `size` is that of the whole IPv6 packet, in bytes; it is never fragmented.
    """
    results: dict[Pair, float | None] = {}
    waiting: dict[int, tuple[Pair, float]] = {}
    with selectors.DefaultSelector() as selector:
        for pair in pairs:
            host, address = pair
            results[pair] = None
            own = host.shared_socket("ping", echo_socket)
            with contextlib.suppress(KeyError):
                selector.register(own, selectors.EVENT_READ)
            token = secrets.randbits(64)
            packet = echo_request(token, size)
            waiting[token] = pair, time.monotonic()
            with contextlib.suppress(OSError):  # no route, or too big: no answer then
                own.sendto(packet, (str(address), 0))
        deadline = time.monotonic() + timeout
        while waiting and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                _receive(key.fileobj, waiting, results)
    return results


def ping(host: Host, address: IPv6Address, timeout: float = 2.0, size: int = 64) -> float | None:
    """One echo request: the round trip in seconds, or None where no answer came."""
    pair = host, address
    return ping_pairs([pair], timeout, size)[pair]


def wait_answers(pairs: Iterable[Pair], timeout: float, pace: float = 0.02) -> float:
    """Ping until each pair has got through once: how many seconds that took. Raises AssertionError."""
    began, left = time.monotonic(), set(pairs)
    while left:
        if time.monotonic() > began + timeout:
            silent = ", ".join(f"{host.name} -> {target}" for host, target in left)
            raise AssertionError(f"not within {timeout:g} s: an answer of {silent}")
        left -= {pair for pair, trip in ping_pairs(left, pace).items() if trip is not None}
    return time.monotonic() - began


class Pinger:
    """Pings an address from a host every `pace` seconds, and knows the longest time in which nothing came through.

    A ping counts as lost if its answer takes longer than LATE seconds. The figures are there once `running` has ended.
    Pings come from the address `own`, as those of a program that is bound to one, or has a connection; else the kernel
    chooses one for each.
    """

    def __init__(
        self, source: Host, target: IPv6Address, pace: float = PACE, *, own: IPv6Address | None = None
    ) -> None:
        self.source, self.target, self.pace, self.own = source, target, pace, own
        self.times: list[float] = []
        """When each ping was sent, by the monotonic clock."""
        self.trips: dict[int, float] = {}
        """Round trips in seconds of those that were answered, by position in `times`."""

    def __str__(self) -> str:
        return f"{self.lost} of {self.sent} pings lost, longest gap {self.longest:.2f} s"

    @property
    def sent(self) -> int:
        return len(self.times)

    @property
    def lost(self) -> int:
        return self.sent - len(self.trips)

    @property
    def longest(self) -> float:
        """The longest time in seconds between two pings that were answered, less the pace; all of it if none was.

        Time in which none was sent, since this process had to wait for its turn, is no gap.
        """
        if not self.trips:
            return self.times[-1] - self.times[0] if self.times else 0.0
        answered = [-1, *sorted(self.trips), self.sent]
        moments = {-1: self.times[0] - self.pace, self.sent: self.times[-1] + self.pace, **dict(enumerate(self.times))}
        gaps = (moments[later] - moments[sooner] for sooner, later in pairwise(answered) if later > sooner + 1)
        return max(0.0, max(gaps, default=0.0) - self.pace)

    @contextlib.contextmanager
    def running(self) -> Iterator[Pinger]:
        """Pings while the block runs."""
        with in_background(self._run):
            yield self

    def _run(self, stop: threading.Event) -> None:
        stream = secrets.randbits(32) << 32
        with self.source.namespace.call(echo_socket) as own, selectors.DefaultSelector() as selector:
            if self.own is not None:
                own.bind((str(self.own), 0))
            selector.register(own, selectors.EVENT_READ)
            due = time.monotonic()
            while not stop.is_set():
                number, now = len(self.times), time.monotonic()
                self.times.append(now)
                packet = echo_request(stream | number)
                with contextlib.suppress(OSError):  # no route: no answer then
                    own.sendto(packet, (str(self.target), 0))
                # A pause of this process itself must not be followed by a burst.
                due = max(due + self.pace, now)
                self._listen(own, selector, stream, due)
            self._listen(own, selector, stream, time.monotonic() + LATE, all_answers=True)

    def _listen(
        self,
        own: socket.socket,
        selector: selectors.BaseSelector,
        stream: int,
        until: float,
        *,
        all_answers: bool = False,
    ) -> None:
        while (left := until - time.monotonic()) > 0 and not (all_answers and not self.lost):
            if not selector.select(left):
                return
            with contextlib.suppress(OSError):
                data, source = own.recvfrom(65536)
                if len(data) < HEADER.size or IPv6Address(source[0]) != self.target:
                    continue
                token, now = HEADER.unpack_from(data)[3], time.monotonic()
                number = token ^ stream
                if number < self.sent and now - self.times[number] <= LATE:
                    self.trips.setdefault(number, now - self.times[number])


def _receive(own: socket.socket, waiting: dict[int, tuple[Pair, float]], results: dict[Pair, float | None]) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, source = own.recvfrom(65536)
            if len(data) < HEADER.size:
                continue
            token = HEADER.unpack_from(data)[3]
            pair, sent = waiting.get(token, (None, 0.0))
            if pair is not None and IPv6Address(source[0]) == pair[1]:
                del waiting[token]
                results[pair] = time.monotonic() - sent


def echo_request(token: int, size: int = 64) -> bytes:
    """The packet, without its IPv6 header, which is part of the size; the answer has the same token."""
    return HEADER.pack(ECHO_REQUEST, 0, 0, token).ljust(size - IPV6_HEADER, b".")


def echo_socket() -> socket.socket:
    """A socket that sends echo requests and gets the answers to those of its whole host."""
    own = raw_echo_socket()
    own.setsockopt(socket.IPPROTO_IPV6, 62, 1)  # IPV6_DONTFRAG (linux/in6.h), which Python does not name
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    own.setblocking(False)
    return own
