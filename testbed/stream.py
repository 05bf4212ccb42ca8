"""A TCP stream between two hosts, at a steady pace: how long nothing arrives."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address

from testbed.host import Host

PACE = 0.01
"""Seconds between two writes."""
CHUNK = 12_500
"""Bytes of each: 10 Mbit/s."""
STEP = 0.2
"""Seconds after which a thread looks whether it is to end."""


class Stream:
    """10 Mbit/s from a host to another one. `stall` is the longest time in which no byte arrived, less the pace.

    Its packets have that traffic class, the byte of the header.
    """

    def __init__(self, source: Host, target: Host, address: IPv6Address, traffic_class: int = 0) -> None:
        self.source, self.target, self.address = source, target, address
        self._class = traffic_class
        self.received = 0
        self.stall = 0.0
        self.broken = ""
        """Why it ended before its time."""
        self._stop = threading.Event()

    def __str__(self) -> str:
        state = f", broken: {self.broken}" if self.broken else ""
        return f"{self.received / 1e6:.1f} MB, longest stall {self.stall:.2f} s{state}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Stream]:
        """The stream flows while the block runs. Raises OSError if it cannot begin."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(self.target.namespace.call(self._listen))
            sender = stack.enter_context(self.source.namespace.call(self._connect(listener.getsockname()[1])))
            receiver = stack.enter_context(listener.accept()[0])
            receiver.settimeout(STEP)
            threads = [
                threading.Thread(target=self._guard, args=(work, own))
                for work, own in ((self._send, sender), (self._receive, receiver))
            ]
            for thread in threads:
                thread.start()
            try:
                yield self
            finally:
                self._stop.set()
                for thread in threads:
                    thread.join()

    def _listen(self) -> socket.socket:
        return socket.create_server((str(self.address), 0), family=socket.AF_INET6)

    def _connect(self, port: int) -> Callable[[], socket.socket]:
        def connect() -> socket.socket:
            own = socket.create_connection((str(self.address), port), 10)
            own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self._class)
            return own

        return connect

    def _guard(self, work: Callable[[socket.socket], None], own: socket.socket) -> None:
        try:
            work(own)
        except OSError as error:
            self.broken = self.broken or str(error)

    def _send(self, own: socket.socket) -> None:
        own.settimeout(STEP)
        due, waiting = time.monotonic(), b""
        while not self._stop.is_set():
            waiting = waiting or bytes(CHUNK)
            with contextlib.suppress(TimeoutError):
                waiting = waiting[own.send(waiting) :]
            if not waiting:
                # What was held up is not made good for in a burst.
                due = max(due + PACE, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))

    def _receive(self, own: socket.socket) -> None:
        last = time.monotonic()
        while not self._stop.is_set():
            data = b""
            with contextlib.suppress(TimeoutError):
                data = own.recv(1 << 16)
                if not data:
                    raise OSError("closed")
            now = time.monotonic()
            if self._stop.is_set():
                break  # the sender may have stopped already
            self.stall = max(self.stall, now - last - PACE)
            if data:
                self.received += len(data)
                last = now
