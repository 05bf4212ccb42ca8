"""What iperf3 and ping said, as figures, and what the figures say of each other. No input and output."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_LOST = 0.01
"""The share of datagrams whose loss is still no overload."""
LEAST_IN_TIME = 0.95
"""The share that must have come in when the last was sent: the rest would be a queue that grows."""

Figures = dict[str, Any]
Rows = Mapping[str, Figures]


MOST_TRIES = 12


class NoFigureError(Exception):
    """A program said something else; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a run of iperf3 brought to the other end."""

    bytes: int
    seconds: float
    packets: int = 0
    """Datagrams, where it was UDP."""
    sent: int = 0
    lost: int = 0
    """Of those that were counted: which came before the last that came in."""

    @property
    def mbit_s(self) -> float:
        return self.bytes * 8 / self.seconds / 1e6

    @property
    def packets_s(self) -> float:
        return self.packets / self.seconds

    @property
    def sustained(self) -> bool:
        """Whether datagrams came in as fast as they were sent."""
        return self.sent > 0 and self.lost <= MOST_LOST * self.sent and self.packets >= LEAST_IN_TIME * self.sent


def read_iperf(text: str) -> Transfer:
    """What iperf3 --json printed. Raises NoFigureError."""
    try:
        said = json.loads(text)
        if error := said.get("error"):
            raise NoFigureError(f"iperf3: {error}")
        end = said["end"]
        received = end["sum_received"]
        # By the clock of the sender: the time of the receiver may go on until the last packet of a queue.
        seconds = float(end["sum_sent"]["seconds"])
        if not seconds > 0:
            raise NoFigureError("iperf3: no time passed")
        if "lost_packets" not in received:
            return Transfer(int(received["bytes"]), max(seconds, float(received["seconds"])))
        lost = int(received["lost_packets"])
        return Transfer(
            int(received["bytes"]),
            max(seconds, float(received["seconds"])),
            max(0, int(received["packets"]) - lost),
            int(end["sum_sent"]["packets"]),
            lost,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NoFigureError(f"iperf3 printed something else: {error!r}") from None


_TRIP = re.compile(r"\btime=([0-9.]+) ms")


def read_ping(text: str) -> list[float]:
    """The round trips in milliseconds that ping(8) printed."""
    return [float(found) for found in _TRIP.findall(text)]


def highest_rate(attempt: Callable[[float], Transfer], steps: int) -> Transfer | None:
    """The most that comes in as fast as it is sent: by halves, between nothing lost and all that can be sent.

    `attempt` sends so many Mbit/s, or as fast as it can where that is 0. What came in then says where to begin:
    overloaded ends share their time badly, so that more may come in when less is sent. None: every rate lost some.
    """
    first = attempt(0)
    if first.sustained:
        return first
    best: Transfer | None = None
    size = first.bytes / first.packets if first.packets else 1.0
    high = first.sent * size * 8 / first.seconds / 1e6
    low, rate, tries = 0.0, max(first.mbit_s, high / 64), 0
    while tries < steps or (best is None and tries < MOST_TRIES):
        tries += 1
        found = attempt(rate)
        if found.sustained:
            low = rate
            if best is None or found.mbit_s > best.mbit_s:
                best = found
        else:
            high = rate
        if high <= low:
            break
        rate = (low * high) ** 0.5 if low else high / 2
    return best


# --- what they say of each other ---


def median(runs: Sequence[float]) -> float | None:
    return statistics.median(runs) if runs else None


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 100 * len(ordered)) // 100) - 1))]


def figure(rows: Rows, row: str, hops: int, name: str) -> float | None:
    """The median of the runs of one figure of a row; None where there is none."""
    found = rows.get(row, {}).get("hops", {}).get(str(hops), {}).get(name)
    return median(found) if found else None


@dataclass(frozen=True, slots=True)
class Mark:
    """One throughput is to be at least `least` times another one, both of one TCP connection."""

    what: str
    row: str
    hops: int
    of_row: str
    of_hops: int
    least: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ratio` None: one of the two was not measured, and `why`."""

    mark: Mark
    ratio: float | None
    why: str = ""

    @property
    def reached(self) -> bool:
        return self.ratio is not None and self.ratio >= self.mark.least


def judge(marks: Iterable[Mark], rows: Rows, absent: Mapping[str, str]) -> list[Verdict]:
    """What became of each mark."""
    verdicts = []
    for mark in marks:
        own = figure(rows, mark.row, mark.hops, "tcp1_mbit_s")
        other = figure(rows, mark.of_row, mark.of_hops, "tcp1_mbit_s")
        if own is not None and other:
            verdicts.append(Verdict(mark, own / other))
        else:
            missing = mark.row if own is None else mark.of_row
            verdicts.append(Verdict(mark, None, f"{missing}: {absent.get(missing, 'not measured')}"))
    return verdicts
