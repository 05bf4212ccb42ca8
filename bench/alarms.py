"""Whether links are found dead that are not: packets get lost, machines stand still, and everything is used meanwhile.

Four nodes, each of which sends to each other one, at a pace of its own, with answers or without. All the time 3% of all
packets between two machines get lost, each way; 20% for one second of each minute; and every few seconds all programs
of a machine stand still for 0.3 s, every third time those of two machines. No node may take a link for dead.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations, cycle, permutations
from pathlib import Path
from typing import Any

from bench.costs import ticks
from bench.failover import IN_JSON, logged
from bench.support.results import keep, say
from testbed import Bed, Network, Node
from testbed.background import in_background
from testbed.control import ask
from testbed.pings import Pinger

FORMS = 120
SETTLES = 10.0
LOSS, MUCH, MINUTE, MUCH_FOR = 3, 20, 60.0, 1.0
"""Percent of all packets that get lost, and of those in a second of each minute."""
STALL, STALLS = 0.3, (2.0, 8.0)
"""Seconds for which a machine stands still, and between two of these."""
TOLERATED = 0.34
"""Seconds of a stall that is still none too long, where this machine itself was late (core/routing/liveness.py)."""
PACES = (0.02, 0.05, 0.1, 0.2, 0.7)
MOMENT, LATE = 0.02, 0.03
"""Seconds that a program sleeps which sees how busy this machine is, and from which on it says so."""
LOOK = 1.0
DISCARD = 9

Alarm = tuple[float, str]
"""When, in seconds from the beginning, and which node raised it."""


class Weather:
    """What is done to the network, until it is told to end."""

    def __init__(self, network: Network, seed: int) -> None:
        self._network = network
        self._chance = random.Random(seed)
        self.stalls = 0
        self.longest = 0.0
        self.too_long = 0
        """Stalls that lasted longer than a machine may stand still."""
        self.lately: deque[tuple[float, str]] = deque(maxlen=20)
        """When something was done, by the monotonic clock, and what."""

    def lose(self, percent: int) -> None:
        """Lose so much between any two machines."""
        for a, b in combinations(self._network.nodes, 2):
            a.host.lose(b.host, percent)

    def storms(self, stop: threading.Event) -> None:
        while not stop.wait(MINUTE - MUCH_FOR):
            self.lately.append((time.monotonic(), f"{MUCH}% of all packets get lost"))
            self.lose(MUCH)
            stop.wait(MUCH_FOR)
            self.lose(LOSS)

    def stand_still(self, stop: threading.Event) -> None:
        while not stop.wait(self._chance.uniform(*STALLS)):
            self.stalls += 1
            nodes = self._chance.sample(self._network.nodes, 1 if self.stalls % 3 else 2)
            pids = [pid for node in nodes for pid in _programs(self._network, node)]
            began = time.monotonic()
            _signal(pids, signal.SIGSTOP)
            time.sleep(STALL)
            _signal(pids, signal.SIGCONT)
            lasted = time.monotonic() - began
            self.longest = max(self.longest, lasted)
            self.too_long += lasted > TOLERATED
            self.lately.append((began, f"{' and '.join(node.name for node in nodes)} stood still for {lasted:.3f} s"))

    def delays(self, stop: threading.Event) -> None:
        """Note when this machine has too much to do: this program, which sleeps a moment, is woken late."""
        due = time.monotonic() + MOMENT
        while not stop.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            if now - due > LATE:
                self.lately.append((due, f"this machine was late by {now - due:.3f} s"))
            due = now + MOMENT


def _programs(network: Network, node: Node) -> list[int]:
    registry = network.registry_process
    return [pid for pid in node.host.processes() if registry is None or pid != registry.pid]


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def one_way(source: Node, target: Node, pace: float) -> Callable[[threading.Event], None]:
    """Datagrams that nobody answers."""

    def send(stop: threading.Event) -> None:
        with _datagrams(target) as sink, _datagrams(source) as own:
            while not stop.wait(pace):
                with contextlib.suppress(OSError):
                    own.sendto(b"x" * 100, sink.getsockname()[:2])
                with contextlib.suppress(OSError):
                    while sink.recv(4096):
                        pass

    return send


def _datagrams(node: Node) -> socket.socket:
    def make() -> socket.socket:
        own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        own.setblocking(False)
        own.bind((str(node.address), 0))
        return own

    return node.host.namespace.call(make)


@contextlib.contextmanager
def traffic(network: Network) -> Iterator[list[Pinger]]:
    """Each pair, each way: pings at one pace after the other; every sixth sends what nobody answers."""
    pingers: list[Pinger] = []
    with contextlib.ExitStack() as stack:
        for number, ((source, target), pace) in enumerate(
            zip(permutations(network.nodes, 2), cycle(PACES), strict=False)
        ):
            if number % 6 == 5:
                stack.enter_context(in_background(one_way(source, target, pace)))
            else:
                pingers.append(Pinger(source.host, target.address, pace, own=source.address))
                stack.enter_context(pingers[-1].running())
        yield pingers


def links(node: Node) -> Any:
    """What a node says of the links that it watches."""
    return ask(node.host.run_directory / "control.sock", "status")["links"]


def deaths(node: Node) -> int:
    found: int = links(node)["died"]
    return found


def check_watched(told: Mapping[str, Any]) -> None:
    """Whether each node watches its links, by what it says of them: else it could raise no alarm. Raises
    AssertionError.
    """
    blind = [name for name, said in told.items() if not said["active"]]
    if blind:
        raise AssertionError(f"these nodes do not watch their links: {', '.join(blind)}. Read their logs")


def watch(network: Network, weather: Weather, seconds: float) -> list[Alarm]:
    """Whenever a link is found dead, print what was logged."""
    alarms: list[Alarm] = []
    known = {node: deaths(node) for node in network.nodes}
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        network.check_alive()
        for node in network.nodes:
            with contextlib.suppress(OSError):
                if (count := deaths(node)) > known[node]:
                    known[node] = count
                    alarms.append((now - began, node.name))
                    say(f"{node.name} found a link dead")
                    moment = datetime.now(UTC)
                    begin = time.monotonic() - 2 * LOOK - 1
                    print(
                        *(f"  {when - begin:7.3f} s {what}" for when, what in tuple(weather.lately) if when > begin),
                        sep="\n",
                    )
                    print(*logged(network, moment - timedelta(seconds=2 * LOOK + 1), moment), sep="\n", flush=True)
        time.sleep(LOOK)
    return alarms


def run(minutes: float, seed: int, node_options: Sequence[str]) -> dict[str, object]:
    """One network, so many minutes."""
    with Bed() as bed:
        network = Network(bed, 4, node_options=[*node_options, *IN_JSON])
        network.start()
        network.wait_connected(FORMS)
        time.sleep(SETTLES)
        check_watched({node.name: links(node) for node in network.nodes})
        weather = Weather(network, seed)
        weather.lose(LOSS)
        with contextlib.ExitStack() as stack:
            pingers = stack.enter_context(traffic(network))
            for work in (weather.storms, weather.stand_still, weather.delays):
                stack.enter_context(in_background(work))
            before = {node.name: _daemon_ticks(node) for node in network.nodes}
            alarms = watch(network, weather, minutes * 60)
            used = {node.name: _daemon_ticks(node) - before[node.name] for node in network.nodes}
        probes = {node.name: links(node)["probes"] for node in network.nodes}
    lost, sent = sum(pinger.lost for pinger in pingers), sum(pinger.sent for pinger in pingers)
    say(f"{weather.stalls} stalls, the longest {weather.longest:.2f} s; {lost} of {sent} pings lost; probes: {probes}")
    return {
        "minutes": minutes,
        "seed": seed,
        "node_options": list(node_options),
        "alarms": alarms,
        "stalls": weather.stalls,
        "longest_stall_s": round(weather.longest, 3),
        "too_long": weather.too_long,
        "pings": sent,
        "lost": lost,
        "probes": probes,
        "daemon_cpu_percent": {
            name: round(count / os.sysconf("SC_CLK_TCK") / minutes / 60 * 100, 2) for name, count in used.items()
        },
    }


def _daemon_ticks(node: Node) -> int:
    assert node.process is not None
    return ticks(node.process.pid)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code: 1 if there was an alarm, or could be none."""
    parser = argparse.ArgumentParser(
        prog="./run bench alarms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, metavar="N", help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of when machines stand still (default: 1)")
    parser.add_argument("--node-option", action="append", default=[], metavar="OPTION", help="e.g. --wireguard=any")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/alarms.json)")
    options = parser.parse_args(arguments)
    try:
        found = run(options.minutes, options.seed, options.node_option)
    except AssertionError as error:
        print(f"bench alarms: {error}", file=sys.stderr)
        return 1
    alarms = found["alarms"]
    say(f"{options.minutes:g} minutes: {'no false alarm' if not alarms else f'false alarms: {alarms}'}")
    keep("alarms", {"nodes": 4, **found}, options.json)
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
