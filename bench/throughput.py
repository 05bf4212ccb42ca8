"""How much goes through one, two and three encrypted hops, and what that costs: ours beside what others carry.

Four hosts in a row, of which each hears its neighbours alone. From the first to the second, the third and the fourth:
TCP by one and by eight connections, datagrams of 64 and of 1,200 bytes (the most that comes in as fast as it is sent,
with 1% lost at most), round trips of pings while one TCP connection runs, and processor time for a gigabyte of that:
all that the machine was not idle for, less what it uses when nothing is sent; so with iperf3's own. Each row has a bed
of its own; the rows take turns, so that what slows down the machine for a while slows down all of them. Everything is
encrypted, and all hosts share the processors of one machine: run it where nothing else runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.support import processor_time, throughput_figures
from bench.support.carriers import (
    FORMS,
    Bare,
    BareWireGuard,
    Carrier,
    Implementation,
    Other,
    OtherNebula,
    Ours,
)
from bench.support.chain import Address, Chain, wait_reached
from bench.support.debian import BOOKWORM, TRIXIE, UnavailableError
from bench.support.others import Tinc, Yggdrasil
from bench.support.results import keep, say
from bench.support.throughput_figures import Figures, Mark, NoFigureError, Transfer, Verdict, highest_rate
from testbed import Bed, BedError, Host, wait_until

HOPS = 3
STREAMS = (1, 8)
SIZES = (64, 1200)
SETTLES = 5.0
"""Seconds that a network is left alone before it is measured."""
PINGS = 20
"""A second."""
PORT = 5201
STARTS = 20.0
CONGESTION = "cubic"
"""Debian's default; here may be another one."""

OPENVPN = Ours("re6st, OpenVPN over TCP")
OPENVPN_UDP = Ours(
    "re6st, OpenVPN over UDP",
    node_options=("--disable-proto", "tcp", "--disable-proto", "tcp6"),
)
RELEASES = (BOOKWORM, TRIXIE)
IMPLEMENTATIONS = (Implementation(None), *map(Implementation, RELEASES))
WIREGUARD = {each: Ours(f"re6st, WireGuard, {each.name}", implementation=each) for each in IMPLEMENTATIONS}
ALONE = {each: BareWireGuard(each) for each in IMPLEMENTATIONS}
YGGDRASIL = {each: Other(Yggdrasil, each) for each in RELEASES}
CARRIERS: tuple[Carrier, ...] = (
    Bare(),
    *ALONE.values(),
    *WIREGUARD.values(),
    OPENVPN,
    OPENVPN_UDP,
    *YGGDRASIL.values(),
    OtherNebula(BOOKWORM),
    OtherNebula(TRIXIE),
    Other(Tinc),
)


def marks() -> list[Mark]:
    """What is wanted, as ratios in one run."""
    found = []
    for implementation, ours in WIREGUARD.items():
        name, release = ours.name, implementation.release or RELEASES[-1]
        found += [
            Mark("one hop, of WireGuard alone", name, 1, ALONE[implementation].name, 1, 0.9),
            Mark("one hop, of yggdrasil", name, 1, YGGDRASIL[release].name, 1, 1.0),
            Mark("one hop, of OpenVPN", name, 1, OPENVPN.name, 1, 5.0),
            Mark("three hops, of one", name, 3, name, 1, 0.6),
        ]
    return found


@dataclass(frozen=True)
class Pace:
    """How long each thing is measured."""

    seconds: float
    step_seconds: float
    steps: int


def iperf(source: Host, target: Host, address: Address, seconds: float, *options: str) -> Transfer:
    """A run of iperf3, with another end of its own: one that serves run after run is deaf between them.

    Raises NoFigureError, BedError, AssertionError.
    """
    server = target.start(["iperf3", "-s", "-1", "-p", str(PORT)], "iperf3.log")
    try:
        listens = lambda: f":{PORT} " in target.run(["ss", "-ltn"]).stdout  # noqa: E731
        wait_until(listens, STARTS, "iperf3 listens", target.bed.tails)
        argv = ["iperf3", "-c", str(address), "-p", str(PORT), "-J", "-t", f"{seconds:g}", "--connect-timeout", "5000"]
        done = source.run([*argv, *options], timeout=seconds + 60, check=False)
        return throughput_figures.read_iperf(done.stdout or "{}")
    finally:
        server.terminate()
        server.wait(STARTS)


def measure_tcp(
    source: Host, target: Host, address: Address, streams: int, seconds: float
) -> tuple[Transfer, list[float]]:
    """What came in, and the round trips in milliseconds meanwhile. Raises NoFigureError, BedError."""
    pings = ["ping", "-n", "-i", f"{1 / PINGS:g}", "-w", f"{max(1, round(seconds))}", str(address)]
    with ThreadPoolExecutor(1) as pool:
        trips = pool.submit(source.run, pings, timeout=seconds + 60, check=False)
        found = iperf(source, target, address, seconds, "-P", str(streams), "-C", CONGESTION)
        return found, throughput_figures.read_ping(trips.result().stdout)


def measure(chain: Chain, source: Host, target: Host, address: Address, pace: Pace) -> Figures:
    """All figures of one way. Raises NoFigureError, BedError."""
    figures: Figures = {}
    before = processor_time.read(chain.hosts)
    idle_trips = source.run(["ping", "-n", "-i", "0.1", "-w", f"{max(2, round(pace.seconds / 2))}", str(address)])
    idle = processor_time.between(before, processor_time.read(chain.hosts))
    figures["rtt_idle_ms"] = _middle(throughput_figures.read_ping(idle_trips.stdout))
    for streams in STREAMS:
        before = processor_time.read(chain.hosts)
        found, trips = measure_tcp(source, target, address, streams, pace.seconds)
        used = processor_time.between(before, processor_time.read(chain.hosts)).less(idle)
        figures[f"tcp{streams}_mbit_s"] = round(found.mbit_s, 1)
        if streams == 1:
            gigabytes = found.bytes / 1e9
            figures["cpu_s_per_gb"] = round(used.machine / gigabytes, 2)
            # Between them they share one machine here; each on its own, the busiest would be the limit.
            figures["busiest_host_cpu_s_per_gb"] = round(max(used.hosts.values(), default=0) / gigabytes, 2)
            figures["rtt_loaded_ms"] = _middle(trips)
            if trips:
                figures["rtt_loaded_95_ms"] = round(throughput_figures.percentile(trips, 0.95), 2)
    for size in SIZES:

        def attempt(rate: float, size: int = size) -> Transfer:
            options = ("-u", "-l", str(size), "-b", f"{rate * 1e6:.0f}")
            return iperf(source, target, address, pace.step_seconds, *options)

        best = highest_rate(attempt, pace.steps)
        figures[f"udp{size}_mbit_s"] = round(best.mbit_s, 1) if best else None
        figures[f"udp{size}_packets_s"] = round(best.packets_s) if best else None
    return {name: value for name, value in figures.items() if value is not None}


def _middle(trips: Sequence[float]) -> float | None:
    found = throughput_figures.median(trips)
    return None if found is None else round(found, 2)


def take_turn(carrier: Carrier, hops: Sequence[int], pace: Pace) -> dict[int, Figures]:
    """One run of a row, on a bed of its own: figures by number of hops. Raises UnavailableError, AssertionError."""
    found: dict[int, Figures] = {}
    with Bed() as bed:
        chain = Chain(bed, HOPS + 1)
        addresses = carrier.start(chain)
        time.sleep(SETTLES)
        source = chain.hosts[0]
        for count in (each for each in hops if each <= carrier.most_hops):
            target = chain.hosts[count]
            wait_reached(source, addresses[target], FORMS)
            try:
                found[count] = measure(chain, source, target, addresses[target], pace)
            except (NoFigureError, BedError) as error:
                raise AssertionError(f"{carrier.name}, {count} hops: {error}\n{bed.tails()}") from None
            say(f"{carrier.name}, {count} hops: {found[count]}")
    return found


def tell(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        mark = verdict.mark
        ratio = f"{verdict.ratio:.2f}" if verdict.ratio is not None else "not measured"
        state = "" if verdict.ratio is None else ", reached" if verdict.reached else ", MISSED"
        why = f" ({verdict.why})" if verdict.why else ""
        say(f"{mark.row}, {mark.what}: {ratio} of {mark.least:g}{state}{why}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code: 1 where a row failed that could be had."""
    parser = argparse.ArgumentParser(
        prog="./run bench throughput", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each row (default: 3)")
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="of each TCP measure (default: 5)")
    parser.add_argument("--row", action="append", default=[], metavar="WORD", help="only rows named so")
    parser.add_argument("--hops", type=int, nargs="+", choices=range(1, HOPS + 1), default=list(range(1, HOPS + 1)))
    parser.add_argument("--quick", action="store_true", help="1 run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/throughput.json)")
    options = parser.parse_args(arguments)
    pace = Pace(options.seconds, max(1.0, options.seconds / 5), 6 if options.seconds > 1 else 2)
    carriers = [each for each in CARRIERS if not options.row or any(word in each.name for word in options.row)]
    rows: dict[str, Figures] = {}
    absent: dict[str, str] = {}
    failed = False
    for run in range(1 if options.quick else options.runs):
        for carrier in carriers:
            if carrier.name in absent:
                continue
            say(f"run {run + 1}: {carrier.name}")
            try:
                found = take_turn(carrier, options.hops, pace)
            except UnavailableError as error:
                absent[carrier.name] = str(error)
                say(f"{carrier.name}: {error}")
                continue
            except (AssertionError, BedError) as error:
                failed = True
                print(f"bench throughput: {carrier.name}: {error}", file=sys.stderr)
                continue
            row = rows.setdefault(carrier.name, {"version": carrier.version(), "hops": {}})
            for count, figures in found.items():
                for name, value in figures.items():
                    row["hops"].setdefault(str(count), {}).setdefault(name, []).append(value)
    verdicts = throughput_figures.judge(marks(), rows, absent)
    tell(verdicts)
    results = {
        "seconds": pace.seconds,
        "congestion": CONGESTION,
        "rows": rows,
        "absent": absent,
        "marks": [
            {**asdict(each.mark), "ratio": each.ratio and round(each.ratio, 3), "why": each.why} for each in verdicts
        ],
    }
    keep("throughput", results, options.json)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
