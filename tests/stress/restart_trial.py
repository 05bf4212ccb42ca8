"""A node of a busy network that is ended and started again and again, for restart_node.py."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, Pinger, wait_until
from testbed.control import Refused, ask
from testbed.endpoints import BlackHole, options
from testbed.namespace import command
from testbed.network import ROOT

FORMS = 120.0
BACK = 60.0
"""Seconds until the node must be back; it usually takes one to four. The machine may be busy."""
SLOW = 10.0
NOT_RESTARTED = frozenset((2, 76, 77, 78))
"""RestartPreventExitStatus of re6stnet.service: only a person brings such a node back."""
PACE = 0.05
SMALL_DISK = "8m"
"""Of the node's state, so that it can be filled."""
# Daemons of the node have a clock that is wrong by what a file says.
CLOCK = """
import datetime, time
from pathlib import Path

def wrong():
    try:
        return float(Path({path!r}).read_text())
    except (OSError, ValueError):
        return 0.0

right = time.time
time.time = lambda: right() + wrong()

class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=wrong())

datetime.datetime = Clock
"""
SAID = ("Traceback", "unexpected error", "Task exception was never retrieved")
START = 3.0
"""Seconds of a start at any moment of which it may be ended."""


@dataclass
class Report:
    """What was done, and what was wrong."""

    seed: int
    count: Counter[str] = field(default_factory=Counter)
    back: list[float] = field(default_factory=list)
    """Seconds until the node was back, for each round."""
    slow: list[str] = field(default_factory=list)
    """Rounds in which that took long, and what was done in them."""
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        times = sorted(self.back) or [0.0]
        figures = {"median": times[len(times) // 2], "longest": times[-1]}
        return json.dumps(
            {
                "seed": self.seed,
                "rounds": len(self.back),
                **figures,
                "slow": self.slow,
                "done": dict(sorted(self.count.items())),
            }
        )


Act = Callable[["Trial"], None]


@dataclass(frozen=True)
class Acts:
    """What may be done in a round."""

    disturbances: Sequence[Act]
    """By others, to the machine."""
    ends: Sequence[Act]
    damages: Sequence[Act]
    """To what the node finds when it starts."""


class Trial:
    """One network, and the node that is tried."""

    def __init__(self, bed: Bed, seed: int, acts: Acts) -> None:
        self.bed = bed
        self.acts = acts
        self.chance = Random(seed)
        self.report = Report(seed)
        registry = ["--ipv4", "10.42.0.0/16", "8", "--client-count", "2"]
        self.network = Network(bed, 4, registry_options=registry)
        hole = BlackHole(bed)
        for node in self.network.nodes:
            node.options = options(node.host, hole)
        *self.others, self.node = self.network.nodes
        self.log = self.node.host.log / "re6stnet.log"
        self.clock = self.node.host.directory / "wrong"
        directory = self.node.host.directory / "clock"
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(CLOCK.format(path=str(self.clock)))
        self.node.wrapper = ["env", f"PYTHONPATH={directory}:{ROOT}"]
        self._doing: list[str] = []
        self.clean_up: list[Callable[[], None]] = []
        """How to undo what others did to the machine."""

    # --- the supervisor ---

    def supervise(self) -> None:
        """Start the node where it does not run, as systemd would."""
        process = self.node.process
        if process is not None and (status := process.poll()) is not None:
            self.node.process = None
            self.report.count[f"ended with {status}"] += 1
            if status in NOT_RESTARTED:
                self.problem(f"it ended with status {status}, with which it is not restarted")
        if self.node.process is None:
            self.node.start()

    def problem(self, text: str) -> None:
        print(f"problem: {text}", file=sys.stderr, flush=True)
        self.report.problems.append(f"round {len(self.report.back) + 1}: {text}\n{self._tail()}")

    def _tail(self) -> str:
        files = (self.log, self.node.host.log / "re6stnet.out.log")
        return "\n".join(
            line for file in files if file.exists() for line in file.read_text(errors="replace").splitlines()[-25:]
        )

    def is_back(self) -> bool:
        """It answers others and reaches them, and its operator is heard."""
        self.supervise()
        try:
            ask(self.node.host.run_directory / CONTROL_SOCKET, "status")
        except (OSError, EOFError, Refused, ValueError):
            return False
        pairs = [(other, self.node) for other in self.others] + [(self.node, other) for other in self.others]
        return all(rtt is not None for rtt in self.network.ping(pairs, timeout=0.5).values())

    # --- a round ---

    def wait(self, seconds: float) -> None:
        """Until any moment within so many seconds."""
        time.sleep(self.chance.uniform(0, seconds))

    def round(self) -> None:
        """Disturb the machine, end the node, and see that it comes back."""
        for _ in range(self.chance.randrange(3)):
            self._do(self.chance.choice(self.acts.disturbances))
        self._do(self.chance.choice(self.acts.ends))
        if self.node.process is None and self.chance.random() < 0.5:
            self._do(self.chance.choice(self.acts.damages))
        began = time.monotonic()
        try:
            wait_until(self.is_back, BACK, "the node is back")
        except AssertionError:
            self.problem(f"it is not back after {BACK:g} s: {', '.join(self._doing)}")
        taken = round(time.monotonic() - began, 2)
        self.report.back.append(taken)
        if taken > SLOW:
            self.report.slow.append(f"{taken} s: {', '.join(self._doing)}")
            print(f"round {len(self.report.back)}: {self.report.slow[-1]}\n{self._tail()}", file=sys.stderr)
        while self.clean_up:
            self.clean_up.pop()()
        self._doing.clear()

    def _do(self, act: Act) -> None:
        name = act.__name__.replace("_", " ")
        self.report.count[name] += 1
        self._doing.append(name)
        act(self)

    def run(self, seconds: float) -> Report:
        """Rounds for so many seconds, on a network that is busy meanwhile."""
        state = str(self.node.host.state)
        command("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", state)
        try:
            return self._run(seconds)
        finally:
            command("umount", "--lazy", state)

    def _run(self, seconds: float) -> Report:
        self.network.start()
        self.network.wait_connected(FORMS)
        first, second = self.others[:2]
        with Pinger(first.host, second.address, PACE).running(), Pinger(second.host, self.node.address, PACE).running():
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self.round()
        self._finish()
        return self.report

    def _finish(self) -> None:
        """It ends in good order, and leaves nothing; it has never said that it did not know on."""
        self.node.host.run(["nft", "flush", "ruleset"])
        wait_until(self.is_back, BACK, "the node is back", self.bed.tails)
        if status := self.node.stop(30):
            self.problem(f"at last it ended with status {status}")
        self.report.problems += [f"left over: {trace}" for trace in self.node.traces()]
        for node in self.network.nodes:
            for file in (node.host.log / "re6stnet.log", node.host.log / "re6stnet.out.log"):
                text = file.read_text(errors="replace") if file.exists() else ""
                for words in SAID:
                    if (at := text.find(words)) >= 0:
                        self.report.problems.append(f"{node.name} said: {text[at : at + 3000]}")
                        break
        self.network.check_alive()
