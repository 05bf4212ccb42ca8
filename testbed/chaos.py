"""Chaos: faults at random, from a seed, while every pair that could talk is watched.

A fault is one of FAULTS, on a node picked at random; it is undone some seconds later. Several go on at once. A pair
could talk while neither of its ends was off the network; the time in which it then did not is an outage. It is counted
for the last fault, or undoing of one, before it began.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from testbed.host import Host
from testbed.network import Network, Node
from testbed.watch import Gap, Watch

PAUSE = 0.05
RESTART = 1.0
"""Seconds after which a daemon that was killed is started again, as a supervisor would."""
FOLLOWS = 10.0
"""Seconds after what happened to one of its own ends, in which an outage is put down to that."""

Undo = Callable[[], bool]
"""Undo a fault; whether that is done, else it is called again."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault: `start` breaks something, and returns how to undo it. None where there was nothing to break."""

    name: str
    start: Callable[[Network, Node, Random], Undo | None]
    isolates: bool
    """Whether the node is off the network meanwhile."""
    seconds: tuple[float, float] = (2.0, 30.0)
    weight: int = 1


@dataclass
class Fault:
    """One that happened; times by the monotonic clock."""

    kind: Kind
    node: Node
    began: float
    undo: Undo
    due: float
    ended: float = float("inf")
    """When it was undone."""


@dataclass(frozen=True)
class Outage:
    """So many seconds in which a pair could have talked and did not, `since` the beginning of the chaos."""

    source: str
    target: str
    reason: str
    since: float
    seconds: float
    lasting: bool
    """Whether it was still so at the end."""


@dataclass
class Report:
    """What happened, and what it did."""

    seed: int
    seconds: float
    faults: dict[str, int]
    failures: list[str] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    watch_pause: float = 0.0
    """The longest pause of the watch itself."""

    @property
    def longest(self) -> dict[str, float]:
        """The longest outage of each reason."""
        found: dict[str, float] = {}
        for outage in self.outages:
            found[outage.reason] = max(found.get(outage.reason, 0.0), outage.seconds)
        return found


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _all(network: Network, node: Node) -> list[int]:
    """Every process of a node, not those of a registry on its host."""
    registry = network.registry_process
    return [pid for pid in node.host.processes() if registry is None or pid != registry.pid]


def _kill_one(*programs: str) -> Callable[[Network, Node, Random], Undo | None]:
    def start(network: Network, node: Node, chance: Random) -> Undo | None:
        pids = sorted(pid for name in programs for pid in node.pids(name))
        if not pids:
            return None
        _kill([chance.choice(pids)])
        return lambda: True

    return start


def _kill_daemon(network: Network, node: Node, chance: Random) -> Undo:
    node.kill()
    return lambda: _start(node)


def _power_off(network: Network, node: Node, chance: Random) -> Undo:
    assert node.process is not None
    process, node.process = node.process, None
    _kill(_all(network, node))
    process.wait(10)
    return lambda: _start(node)


def _restart(network: Network, node: Node, chance: Random) -> Undo:
    assert node.process is not None
    process, node.process = node.process, None
    process.terminate()
    return lambda: process.poll() is not None and _start(node)


def _start(node: Node) -> bool:
    node.start()
    return True


def _freeze(network: Network, node: Node, chance: Random) -> Undo:
    pids = _all(network, node)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def thaw() -> bool:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return True

    return thaw


def _cut(network: Network, node: Node, chance: Random) -> Undo:
    node.host.cut()

    def restore() -> bool:
        node.host.restore()
        return True

    return restore


def _lossy(percent: int) -> Callable[[Network, Node, Random], Undo | None]:
    def start(network: Network, node: Node, chance: Random) -> Undo | None:
        other: Host = chance.choice([n for n in network.nodes if n is not node]).host
        if f"lose_{other.name}" in node.host.run(["nft", "list", "tables"]).stdout:
            return None
        node.host.lose(other, percent)

        def find() -> bool:
            node.host.find(other)
            return True

        return find

    return start


FAULTS = (
    Kind("OpenVPN killed", _kill_one("openvpn"), isolates=False, seconds=(0, 0), weight=2),
    Kind("babeld killed", _kill_one("babeld"), isolates=False, seconds=(0, 0)),
    Kind("daemon killed", _kill_daemon, isolates=False, seconds=(RESTART, RESTART)),
    Kind("restarted", _restart, isolates=True, seconds=(0, 0)),
    Kind("power lost", _power_off, isolates=True),
    Kind("frozen", _freeze, isolates=True),
    Kind("cut off", _cut, isolates=True, weight=2),
    Kind("link cut", _lossy(100), isolates=False, weight=2),
    Kind("link loses 30%", _lossy(30), isolates=False),
)
WIREGUARD_FAULTS = (
    Kind("tunnel's program killed", _kill_one("openvpn", "wireguard-go"), isolates=False, seconds=(0, 0), weight=2),
    *FAULTS[1:],
)
"""The same, of nodes with WireGuard links: OpenVPN carries few of their tunnels."""


class Chaos:
    """One run on a network whose nodes all run. A node has one fault at a time."""

    def __init__(self, network: Network, seed: int, kinds: Sequence[Kind] = FAULTS, *, every: float = 5.0) -> None:
        """A fault `every` so many seconds, on average; at most a third of the nodes have one at a time."""
        self.network = network
        self.faults: list[Fault] = []
        self.failures: list[str] = []
        """Nodes that ended by themselves: they were started again, as systemd would."""
        self.said: Callable[[str], None] = lambda text: None
        """Called with each thing that happens."""
        self._seed = seed
        self._chance = Random(seed)
        self._kinds = kinds
        self._every = every

    def run(self, watch: Watch, seconds: float, calm: float) -> Report:
        """Faults for so many seconds; then all are undone, and it goes on for `calm` seconds more."""
        began = now = time.monotonic()
        next_fault = began
        while now < began + seconds or self._open():
            if began + seconds > now >= next_fault:
                next_fault = now + self._chance.expovariate(1 / self._every)
                self._start(began)
            self._undo(began, everything=now >= began + seconds)
            self._revive(began)
            time.sleep(PAUSE)
            now = time.monotonic()
        while time.monotonic() < now + calm:
            self._revive(began)
            time.sleep(PAUSE)
        return self._report(watch, began, time.monotonic())

    def _revive(self, began: float) -> None:
        for node in self.network.nodes:
            if node.process is not None and (status := node.process.poll()) is not None:
                self.failures.append(f"{time.monotonic() - began:.1f} s {node.name} ended with status {status}")
                self.said(self.failures[-1])
                node.start()

    def _open(self) -> list[Fault]:
        return [fault for fault in self.faults if fault.ended == float("inf")]

    def _start(self, began: float) -> None:
        busy = {fault.node for fault in self._open()}
        free = [node for node in self.network.nodes if node not in busy]
        if not free or len(busy) * 3 >= len(self.network.nodes):
            return
        node = self._chance.choice(free)
        kind = self._chance.choices(self._kinds, [kind.weight for kind in self._kinds])[0]
        length = self._chance.uniform(*kind.seconds)
        at = time.monotonic()
        undo = kind.start(self.network, node, self._chance)
        if undo is not None:
            self.faults.append(Fault(kind, node, at, undo, at + length))
            self.said(f"{at - began:6.1f} s {node.name}: {kind.name} for {length:.1f} s")

    def _undo(self, began: float, *, everything: bool) -> None:
        for fault in self._open():
            if (everything or time.monotonic() >= fault.due) and fault.undo():
                fault.ended = time.monotonic()
                self.said(f"{fault.ended - began:6.1f} s {fault.node.name}: no longer {fault.kind.name}")

    def _report(self, watch: Watch, began: float, end: float) -> Report:
        names = [fault.kind.name for fault in self.faults]
        counts = {kind.name: names.count(kind.name) for kind in self._kinds}
        report = Report(
            self._seed, round(end - began, 1), counts, self.failures, watch_pause=round(watch.longest_pause, 2)
        )
        for gap in [*watch.gaps, *(Gap(pair, watch.through[pair], end) for pair in watch.silent(end - 2 * watch.pace))]:
            since, until = longest_free(gap, [fault for fault in self.faults if fault.kind.isolates])
            seconds = until - since - watch.pace
            if seconds > watch.pace:
                source, target = gap.pair
                reason, lasting = self._reason(gap, since + watch.pace), until >= end
                report.outages.append(
                    Outage(source.name, target.name, reason, round(since - began, 2), round(seconds, 2), lasting)
                )
        return report

    def _reason(self, gap: Gap, before: float) -> str:
        """The last thing that happened to its ends before an outage began, or to any other node."""
        moments = [(fault.began, fault.node in gap.pair, fault.kind.name) for fault in self.faults]
        moments += [(fault.ended, fault.node in gap.pair, f"{fault.kind.name}, over") for fault in self.faults]
        past = [moment for moment in moments if moment[0] <= before]
        near = [moment for moment in past if moment[1] and moment[0] > before - FOLLOWS]
        return max(near or past, default=(0.0, False, "nothing"))[2]


def longest_free(gap: Gap, isolating: Sequence[Fault]) -> tuple[float, float]:
    """The longest part of a gap in which neither end was off the network."""
    taken = sorted((fault.began, fault.ended) for fault in isolating if fault.node in gap.pair)
    best, at = (gap.since, gap.since), gap.since
    for began, ended in [*taken, (gap.until, gap.until)]:
        if min(began, gap.until) - at > best[1] - best[0]:
            best = at, min(began, gap.until)
        at = max(at, ended)
    return best
