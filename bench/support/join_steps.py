"""Where the time goes while a node joins: what its log and the babelds of all nodes tell, step by step."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv6Network

from re6st.core.routing.babel_lines import INFINITY, LineError, Table
from testbed import Node
from testbed.background import in_background

LOUD = ("--verbose", "3", "--log-format", "json")
"""Options with which a node writes down what is needed here, with milliseconds."""
PATIENCE = 0.005
"""Seconds between two looks whether a babeld speaks."""
DONE = 0.1
"""Seconds for the last words of babelds and logs."""

Told = tuple[float, str]
"""When something was written, in Unix time, and what."""

PROGRAM = "Python starts, and imports the program"
KEYS = "it reads its keys, and finds out what this machine has"
PARAMETERS = "the registry sends the network's parameters"
CLEARED = "what an earlier run left is looked for; packet filter"
ASKED = "addresses; babeld and its servers are started"
NAMED = "the registry names a first peer"
STARTED = "OpenVPN starts"
SPEAKS = "the other end speaks TLS"
UP = "handshake; the other end's node lets it in"
USED = "babeld uses the interface"
HEARD = "both hear each other: hello, and IHU"
KNOWN = "all others have a route to it"
KNOWS = "it has a route to all others"
ANSWERED = "all others answer"


@dataclass
class BabelWords:
    """What the babeld of a node tells, with the time."""

    node: Node
    told: list[Told] = field(default_factory=list)

    def listen(self, stop: threading.Event) -> None:
        """Until `stop` is set; a babeld that does not speak yet is waited for."""
        while not stop.is_set():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as own:
                own.settimeout(DONE)
                own.connect(str(self.node.host.run_directory / self.node.babel_socket))
                own.sendall(b"monitor\n")
                self._read(own, stop)
            stop.wait(PATIENCE)

    def _read(self, own: socket.socket, stop: threading.Event) -> None:
        rest = b""
        while not stop.is_set():
            with suppress(TimeoutError):
                if not (data := own.recv(1 << 16)):
                    return
                now = time.time()
                *lines, rest = (rest + data).split(b"\n")
                self.told += [(now, line.decode("ascii", "replace")) for line in lines]

    def when(self, holds: Callable[[Table], bool]) -> float | None:
        """When its table was so for the first time; None: never."""
        table = Table()
        for at, line in self.told:
            with suppress(LineError):
                table.feed(line)
            if holds(table):
                return at
        return None


@contextmanager
def listening(nodes: Sequence[Node]) -> Iterator[list[BabelWords]]:
    """What the babelds of these nodes tell while the block runs, and a moment longer."""
    words = [BabelWords(node) for node in nodes]
    with ExitStack() as stack:
        for each in words:
            stack.enter_context(in_background(each.listen))
        yield words
        time.sleep(DONE)


def logged(node: Node) -> list[Told]:
    """The log of a node that was started with LOUD."""
    found = []
    for line in (node.host.log / "re6stnet.log").read_text().splitlines():
        told = json.loads(line)
        found.append((datetime.fromisoformat(told["time"]).timestamp(), told["message"]))
    return found


def moments(
    began: float, log: Sequence[Told], newcomer: BabelWords, others: Sequence[BabelWords], answered: float
) -> dict[str, float]:
    """When each step was done, in seconds since the start of the program; what nobody told is left out."""

    def line(pattern: str) -> re.Match[str] | None:
        return next((found for _, text in log if (found := re.match(pattern, text))), None)

    def said(pattern: str) -> float | None:
        return next((at for at, text in log if re.match(pattern, text)), None)

    up = line(r"tunnel to .* is up, on (\S+)")
    interface = up[1] if up else ""
    old = {number: _before(words, began) for number, words in enumerate(others)}

    def has_neighbour(table: Table) -> bool:
        return any(each.interface == interface and each.cost < INFINITY for each in table.neighbours.values())

    def has_new_neighbour(number: int) -> Callable[[Table], bool]:
        return lambda table: any(
            each.cost < INFINITY and each.address not in old[number] for each in table.neighbours.values()
        )

    heard = _last((newcomer.when(has_neighbour), _first(w.when(has_new_neighbour(n)) for n, w in enumerate(others))))
    found: dict[str, float | None] = {
        PROGRAM: said("the program is loaded"),
        KEYS: said("this node is "),
        PARAMETERS: said("the network parameters are there"),
        CLEARED: said("nothing of an earlier run is left|taking over "),
        ASKED: said(r"AskBootstrap\("),
        NAMED: said(r"OpenTunnel\("),
        STARTED: said("tunnel to .*: OpenVPN runs"),
        SPEAKS: said("tunnel to .*: OpenVPN says AUTH"),
        UP: said("tunnel to .* is up, on "),
        USED: newcomer.when(lambda table: table.is_up(interface)),
        HEARD: heard,
        KNOWN: _last([words.when(_leads_to([newcomer.node.subnet])) for words in others]),
        KNOWS: newcomer.when(_leads_to([words.node.subnet for words in others])),
        ANSWERED: answered,
    }
    return {name: at - began for name, at in found.items() if at is not None}


def durations(steps: Mapping[str, float]) -> dict[str, float]:
    """How many seconds each step took from the end of the one before: nothing for one that was done by then."""
    found, before = {}, 0.0
    for name, at in steps.items():
        found[name] = max(0.0, at - before)
        before = max(at, before)
    return found


def _leads_to(subnets: Sequence[IPv6Network]) -> Callable[[Table], bool]:
    def holds(table: Table) -> bool:
        usable = {route.destination for route in table.routes.values() if route.usable}
        return usable.issuperset(subnets)

    return holds


def _before(words: BabelWords, began: float) -> set[object]:
    """The neighbours that a babeld had before the node began."""
    table = Table()
    for at, line in words.told:
        if at < began:
            with suppress(LineError):
                table.feed(line)
    return {each.address for each in table.neighbours.values()}


def _first(found: Iterator[float | None]) -> float | None:
    return min((at for at in found if at is not None), default=None)


def _last(found: Sequence[float | None]) -> float | None:
    known = [at for at in found if at is not None]
    return max(known) if len(known) == len(found) else None
