"""Processor time: of the whole machine, which has the kernel's part too, and of the programs on each host of a bed.

What the kernel does for a packet is mostly charged to nobody's process (softirq, its own threads), so the time for a
gigabyte is that in which the processors of the machine were not idle, less what they do when nothing is sent. That is
right only where nothing else runs. The programs' own time tells the hosts apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testbed.host import Host

_TICK = 1 / os.sysconf("SC_CLK_TCK")
MEASURES = ("iperf3", "ping", "ip")
"""Programs that are there only to measure."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds of processor time until now."""

    when: float
    machine: float
    hosts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of processor time between two readings."""

    seconds: float
    machine: float
    hosts: dict[str, float]

    def less(self, idle: Used) -> Used:
        """Without what is used when nothing is sent."""
        share = self.seconds / idle.seconds
        hosts = {name: max(0.0, value - idle.hosts.get(name, 0) * share) for name, value in self.hosts.items()}
        return Used(self.seconds, max(0.0, self.machine - idle.machine * share), hosts)


def busy_ticks(stat: str) -> int:
    """Of /proc/stat: the ticks in which a processor was not idle, nor taken away by the host of this machine."""
    fields = [int(word) for word in stat.splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq = fields[:7]
    return user + nice + system + irq + softirq


def process_ticks(stat: str) -> int:
    """Of /proc/PID/stat: those of all its threads, in user mode and in the kernel."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def read(hosts: Iterable[Host]) -> Reading:
    """What was used until now. Processes that have ended are in the machine's time only."""
    programs: dict[str, float] = {}
    for host in hosts:
        ticks = 0
        for pid, words in host.processes().items():
            if Path(words[0]).name not in MEASURES:
                try:
                    ticks += process_ticks(Path(f"/proc/{pid}/stat").read_text())
                except OSError:
                    continue  # ended meanwhile
        programs[host.name] = ticks * _TICK
    return Reading(time.monotonic(), busy_ticks(Path("/proc/stat").read_text()) * _TICK, programs)


def between(before: Reading, after: Reading) -> Used:
    hosts = {name: max(0.0, value - before.hosts.get(name, 0)) for name, value in after.hosts.items()}
    return Used(after.when - before.when, after.machine - before.machine, hosts)
