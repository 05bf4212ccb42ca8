"""Whether every node reaches every other one, all the time: pings between all pairs, by one thread.

A ping of each pair is sent every `pace` seconds, spread evenly. What is kept is when each pair last got through, and
the gaps: so an hour of 40 nodes (1,560 pairs) costs no more memory than a minute.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from testbed.background import in_background
from testbed.network import Node
from testbed.pings import HEADER, echo_request, echo_socket

LATE = 2.0
"""Seconds after which an answer comes too late."""
STEP = 0.02
"""Seconds between two rounds of the loop, at least."""
READ_AT_ONCE = 256

Pair = tuple[Node, Node]


@dataclass(frozen=True)
class Gap:
    """A pair was silent: the pings at `since` and `until` were answered (by the monotonic clock), none between."""

    pair: Pair
    since: float
    until: float


class Watch:
    """Pings between all pairs of `nodes`. `gaps` are those longer than two paces."""

    def __init__(self, nodes: Sequence[Node], pace: float = 1.0) -> None:
        self.pace = pace
        self.pairs = list(permutations(nodes, 2))
        self.gaps: list[Gap] = []
        self.through: dict[Pair, float] = {}
        """When the last ping was sent that was answered."""
        self.sent = 0
        self.longest_pause = 0.0
        """The longest time in which this thread itself did not run, in seconds: gaps may be that much too long."""
        self._waiting: dict[int, tuple[Pair, float]] = {}
        self._order: deque[tuple[float, int]] = deque()

    def silent(self, since: float) -> list[Pair]:
        """The pairs of which no ping that was sent since then was answered."""
        return [pair for pair in self.pairs if self.through.get(pair, 0.0) < since]

    @contextlib.contextmanager
    def running(self) -> Iterator[Watch]:
        """Watch while the block runs; every pair that is silent at the end has a gap until then."""
        with in_background(self._run):
            yield self

    def _run(self, stop: threading.Event) -> None:
        hosts = {node.host for pair in self.pairs for node in pair}
        sockets = {host: host.shared_socket("watch", echo_socket) for host in hosts}
        begun = last = time.monotonic()
        self.through = dict.fromkeys(self.pairs, begun)
        with selectors.DefaultSelector() as selector:
            for own in sockets.values():
                selector.register(own, selectors.EVENT_READ)
            step = max(STEP, self.pace / len(self.pairs))
            while not stop.is_set():
                now = time.monotonic()
                self.longest_pause, last = max(self.longest_pause, now - last), now
                due = min(int((now - begun) / self.pace * len(self.pairs)) - self.sent, len(self.pairs))
                for _ in range(due):
                    pair = self.pairs[self.sent % len(self.pairs)]
                    self.sent += 1
                    self._send(sockets[pair[0].host], pair)
                # An answer that has come is not too late because this thread is.
                self._listen(selector, now + step)
                self._forget(time.monotonic() - LATE)
            self._listen(selector, time.monotonic() + min(LATE, 2 * self.pace))
        end = time.monotonic()
        for pair in self.pairs:
            self._note(pair, end)

    def _send(self, own: socket.socket, pair: Pair) -> None:
        token, now = secrets.randbits(64), time.monotonic()
        self._waiting[token] = pair, now
        self._order.append((now, token))
        with contextlib.suppress(OSError):  # no route: no answer then
            own.sendto(echo_request(token), (str(pair[1].address), 0))

    def _forget(self, before: float) -> None:
        while self._order and self._order[0][0] < before:
            self._waiting.pop(self._order.popleft()[1], None)

    def _listen(self, selector: selectors.BaseSelector, until: float) -> None:
        """Read answers until then, but once in any case: on a busy machine sending alone may take longer than that."""
        left = 1.0
        while left > 0:
            left = until - time.monotonic()
            for key, _ in selector.select(max(left, 0.0)):
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(OSError):
                    for _ in range(READ_AT_ONCE):
                        data = key.fileobj.recv(65536)
                        pair, sent = self._waiting.pop(HEADER.unpack_from(data)[3], (None, 0.0))
                        if pair is not None:
                            self._note(pair, sent)

    def _note(self, pair: Pair, sent: float) -> None:
        if sent - self.through[pair] > 2 * self.pace:
            self.gaps.append(Gap(pair, self.through[pair], sent))
        self.through[pair] = max(sent, self.through[pair])
