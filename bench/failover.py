"""How long traffic stops when something breaks: a ping every 20 ms while it happens.

Two nodes, A and B, and two more, all with default settings. Each case breaks one thing that the traffic from A to B
needs at that moment; the figure is the longest time in which no ping came through, in seconds. Cases follow each other
on one network, which is whole again between them; every run has a network of its own. yggdrasil and tinc get the same
silent cut, in the same run.

Where nodes may have WireGuard, the cases are measured again with links of it, each on a network of its own: a link that
was lost is not made again for a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations, cycle
from pathlib import Path

from bench.support import tunnel_carriers
from bench.support.debian import UnavailableError
from bench.support.others import KINDS, Tinc, Yggdrasil
from bench.support.results import keep, say
from re6st.core import interfaces
from re6st.core.routing.babel_lines import INFINITY
from re6st.core.tunnel_protocols import Role, TunnelCarrier
from testbed import Bed, Host, Network, Node, wait_until
from testbed.links import kernel_has_wireguard, link_record, wait_links
from testbed.namespace import command
from testbed.pings import Pinger, wait_answers

FORMS = 120
PACE = 0.02
BEFORE = 1.0
"""Seconds of pings before the event."""
CALM = 6.0
"""Seconds without a loss after which nothing more is expected."""
OTHERS_LOOK = 100.0
"""The same for other programs: tinc asks for a sign of life once a minute."""
SLOW = 0.3
"""Seconds that an answer may take."""
LOSS = 30
DIALLED, SERVED = "cut, seen by who dialled", "cut, seen by the server's node"
CUT_LOOK, CUT_CALM = 9.0, 6.5
"""Seconds that are looked at after one of many cuts, and without a loss after which it is over: the tunnel is made anew
meanwhile, so that the next cut finds a link without a history."""
CUTS_AT_ONCE = 50
"""With one network."""
LONG = 0.8
"""Seconds of an outage after a cut from which on it is printed what the nodes logged."""
LOGGED = 2.5
"""Seconds after a cut for which it is."""
IN_JSON = ("--log-format", "json")
"""Has times to the millisecond."""


class CaseError(Exception):
    """The network is not in the state that a case begins with."""


Repair = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is broken, whether a relay is needed between A and B, and for how many seconds we look.

    `event` breaks it, and returns what repairs it.
    """

    name: str
    event: Callable[[Network], Repair]
    relayed: bool = False
    look: float = 20.0
    until_clean: bool = False
    """The figure is the time until no ping is lost any more."""
    carriers: Sequence[TunnelCarrier] = tuple(TunnelCarrier)
    """With which of them there is something to break."""


def next_hop(network: Network, source: Node, target: Node) -> Node | None:
    """The node that the packets from `source` to `target` go to next."""
    table = source.babel()
    owners = {node.subnet: node for node in network.nodes}
    hops = {r.via: r.destination for r in table.routes.values() if r.refmetric == 0}
    for route in table.routes.values():
        if route.usable and route.destination == target.subnet:
            return owners.get(hops.get(route.via, target.subnet))
    return None


def ends(network: Network) -> tuple[Node, Node]:
    return network.nodes[1], network.nodes[2]


def relay(network: Network) -> Node:
    """The node between A and B."""
    found = next_hop(network, *ends(network))
    if found is None or found in ends(network):
        raise CaseError("no relay between the two ends")
    return found


def openvpn(network: Network, *, client: bool) -> list[int]:
    """The processes of the tunnels between A and B, at their client's or at their server's end."""
    found = []
    for node, other in (ends(network), ends(network)[::-1]):
        for pid in node.pids("openvpn"):
            words = node.host.processes().get(pid, [])
            if client and "--client" in words and other.prefix.cn in words:
                found.append(pid)
        if not client and any(tunnel.client is other and tunnel.server is node for tunnel in network.tunnels()):
            # One process serves the clients of one protocol; it is not known here which, so all of them.
            found += [pid for pid in node.pids("openvpn") if "--client" not in node.host.processes().get(pid, [])]
    return found


def kill_link(role: Role) -> Callable[[Network], Repair]:
    """wireguard-go dies at one end of the link between A and B: the one that opened it (Role.CLIENT), or the other."""

    def event(network: Network) -> Repair:
        a, b = ends(network)
        if kernel_has_wireguard(a.host):
            raise UnavailableError("the kernel carries links here, no process")
        records = [record for pair in ((a, b), (b, a)) if (record := link_record(*pair, role))]
        return kill([record.process[0] for record in records if record.process])

    return event


def kill(pids: Sequence[int]) -> Repair:
    if not pids:
        raise CaseError("no process to kill")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return lambda: None


def freeze(network: Network) -> Repair:
    pids = list(relay(network).host.processes())
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def thaw() -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return thaw


def power_off(network: Network) -> Repair:
    """The relay loses its power: every process of it, and every connection that it had."""
    node = relay(network)
    node.kill()
    node.host.cut()
    kill([pid for pid in node.host.processes() if network.registry_process and pid != network.registry_process.pid])

    def power_on() -> None:
        node.host.restore()
        node.start()

    return power_on


def cut_relay(network: Network) -> Repair:
    host = relay(network).host
    host.cut()
    return host.restore


def kill_daemon(network: Network) -> Repair:
    """A's daemon alone dies, and is started again as a supervisor would."""
    a, _ = ends(network)
    a.kill()
    time.sleep(1)
    a.start()
    return lambda: None


def lose(percent: int) -> Callable[[Network], Repair]:
    def event(network: Network) -> Repair:
        a, b = (node.host for node in ends(network))
        a.lose(b, percent)
        return lambda: a.find(b)

    return event


ONLY_OPENVPN, ONLY_WIREGUARD = ((carrier,) for carrier in TunnelCarrier)
CASES = (
    Case("OpenVPN client killed", lambda network: kill(openvpn(network, client=True)), carriers=ONLY_OPENVPN),
    Case("OpenVPN server killed", lambda network: kill(openvpn(network, client=False)), carriers=ONLY_OPENVPN),
    Case("wireguard-go killed where it dialled", kill_link(Role.CLIENT), carriers=ONLY_WIREGUARD),
    Case("wireguard-go killed at the other end", kill_link(Role.SERVER), carriers=ONLY_WIREGUARD),
    Case("babeld killed", lambda network: kill(ends(network)[0].pids("babeld"))),
    Case("daemon killed, started again", kill_daemon),
    Case("link in use is cut", lose(100)),
    Case(f"{LOSS}% loss on the link in use", lose(LOSS), look=25.0, until_clean=True),
    Case("relay is cut off", cut_relay, relayed=True),
    Case("relay dies", power_off, relayed=True),
    Case("relay freezes", freeze, relayed=True),
)


def settled(network: Network, *, relayed: bool) -> bool:
    """Whether A reaches B as the cases want it, and others stand ready.

    Nor does babel still have a neighbour whose tunnel ended: as long as it has, it takes the way by that one, though it
    costs infinitely much, where it should ask for another (babeld 1.12 and 1.13), and an outage lasts up to 6 s.
    """
    a, b = ends(network)
    if any(each.rxcost >= INFINITY for node in (a, b) for each in node.babel().neighbours.values()):
        return False
    hop, back = next_hop(network, a, b), next_hop(network, b, a)
    others = [n for n in network.nodes if n not in (a, b)]
    spare = [n for n in others if next_hop(network, a, n) is n and next_hop(network, n, b) is b]
    if relayed:
        return hop in others and back in others and len(spare) == len(others)
    return hop is b and back is a and bool(spare)


def measure(
    cases: Sequence[Case],
    registry_options: Sequence[str],
    calm: float = CALM,
    carrier: TunnelCarrier = TunnelCarrier.OPENVPN,
) -> dict[str, float]:
    """The cases of one kind in turn, on a bed of their own: the outages in seconds. Raises UnavailableError."""
    (relayed,) = {case.relayed for case in cases}
    found: dict[str, float] = {}
    with Bed() as bed:
        options = tunnel_carriers.node_options(carrier)
        network = Network(bed, 4, registry_options=registry_options, node_options=options)
        tunnel_carriers.need(carrier, network.registry_host)
        network.create()
        network.enrol()
        a, b = ends(network)
        if relayed:
            a.host.lose(b.host)
        for node in network.nodes:
            node.start()
        network.wait_connected(FORMS)
        for case in cases:
            if carrier is TunnelCarrier.WIREGUARD:
                wait_links(network, FORMS)
            wait_until(lambda: settled(network, relayed=relayed), FORMS, f"before {case.name!r}: settled", bed.tails)
            with Pinger(a.host, b.address, PACE).running() as pinger:
                time.sleep(BEFORE)
                happened = time.monotonic()
                repair = case.event(network)
                _until_calm(pinger, happened, case.look, calm)
            found[case.name] = max(0.0, _last_loss(pinger) - happened) if case.until_clean else pinger.longest
            repair()
        network.check_alive()
    return found


def together(cases: Sequence[Case], carrier: TunnelCarrier) -> list[list[Case]]:
    """The cases that there are with a carrier, in groups that are measured on one network each."""
    there = [case for case in cases if carrier in case.carriers]
    if carrier is TunnelCarrier.WIREGUARD:
        return [[case] for case in there]
    groups = [[case for case in there if case.relayed is relayed] for relayed in (False, True)]
    return [group for group in groups if group]


def _until_calm(pinger: Pinger, happened: float, look: float, calm: float = CALM) -> None:
    while time.monotonic() < min(happened + look, max(happened, _last_loss(pinger)) + calm):
        time.sleep(0.1)


def _last_loss(pinger: Pinger) -> float:
    """When the last ping was sent that had no answer, and had the time for one."""
    times, answered = pinger.times, pinger.trips
    last = next((n for n in range(len(times) - 1, -1, -1) if n not in answered and times[-1] - times[n] > SLOW), None)
    return 0.0 if last is None else times[last]


def cuts(count: int, registry_options: Sequence[str], node_options: Sequence[str]) -> dict[str, list[float]]:
    """So many silent cuts of the link in use, of one pair of nodes after another: the outages in seconds.

    By who pings: the node that dialled the tunnel, or the one whose server it is on. Pings come from the node's own
    address, as from a program that has a connection. What was logged in long outages is printed.
    """
    found: dict[str, list[float]] = {DIALLED: [], SERVED: []}
    with Bed() as bed:
        network = Network(bed, 4, registry_options=registry_options, node_options=[*node_options, *IN_JSON])
        network.create()
        network.enrol()
        for node in network.nodes:
            node.start()
        network.wait_connected(FORMS)
        pairs = cycle(combinations(network.nodes[1:], 2))
        for number in range(count):
            a, b = _dialled(network, pairs, bed, linked="--wireguard=any" in node_options)
            source, target = (a, b) if number % 2 else (b, a)
            with Pinger(source.host, target.address, PACE, own=source.address).running() as pinger:
                time.sleep(BEFORE)
                happened, moment = time.monotonic(), datetime.now(UTC)
                a.host.lose(b.host)
                _until_calm(pinger, happened, look=CUT_LOOK, calm=CUT_CALM)
            a.host.find(b.host)
            found[DIALLED if number % 2 else SERVED].append(pinger.longest)
            if pinger.longest >= LONG:
                say(f"cut {number} of {a.name} and {b.name}: {pinger.longest:.2f} s, pinged by {source.name}")
                print(*logged(network, moment, moment + timedelta(seconds=LOGGED)), sep="\n", flush=True)
        network.check_alive()
    return found


def _dialled(network: Network, pairs: Iterator[tuple[Node, Node]], bed: Bed, *, linked: bool) -> tuple[Node, Node]:
    """The next two nodes that use a tunnel between them, and have another way: who dialled, and whose server it is.

    `linked`: the tunnel is to be a WireGuard link.
    """

    def ready(a: Node, b: Node) -> tuple[Node, Node] | None:
        others = [node for node in network.nodes if node not in (a, b)]
        if next_hop(network, a, b) is not b or next_hop(network, b, a) is not a:
            return None
        if not any(next_hop(network, a, n) is n and next_hop(network, n, b) is b for n in others):
            return None
        held = [(t.client, t.server) for t in network.tunnels() if {t.client, t.server} == {a, b}]
        return held[0] if len(held) == 1 and (not linked or _is_link(a, b)) else None

    chosen: list[tuple[Node, Node]] = []

    def choose() -> bool:
        chosen.extend(filter(None, [ready(*next(pairs))]))
        return bool(chosen)

    wait_until(choose, FORMS, "two nodes with a tunnel in use", bed.tails)
    return chosen[0]


def _is_link(a: Node, b: Node) -> bool:
    """Whether packets from one to the other go by a WireGuard link."""
    (way,) = json.loads(a.host.ip("-json", "-6", "route", "get", str(b.address)))
    interface = interfaces.parse(way["dev"])
    return interface is not None and interface.link is not None


def logged(network: Network, begin: datetime, end: datetime) -> Iterator[str]:
    """What the nodes logged between two moments, in the order of time: their options are to have IN_JSON."""
    found = []
    for node in network.nodes:
        for line in (node.host.log / "re6stnet.log").read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                found.append((datetime.fromisoformat(told["time"]), node.name, told["message"]))
    for moment, name, message in sorted(found):
        if begin <= moment < end:
            yield f"  {(moment - begin).total_seconds():7.3f} s {name}: {message}"


def other(kind: type[Yggdrasil | Tinc]) -> float:
    """The same cut of the link in use, with another program. Raises UnavailableError."""
    with Bed() as bed:
        first, a, b, last = (bed.host(f"node{number}") for number in range(1, 5))
        mesh = kind({first: (), a: (first,), b: (first, a), last: (first, a, b)})
        for host in mesh.addresses:
            mesh.start(host)
        wait_answers([(h, mesh.addresses[o]) for h in mesh.addresses for o in mesh.addresses if h is not o], FORMS)
        time.sleep(CALM)
        with Pinger(a, mesh.addresses[b], PACE).running() as pinger:
            others = [host for host in mesh.addresses if host not in (a, b)]
            before = {host: _packets(host) for host in others}
            time.sleep(BEFORE)
            # It need not go by the shortest way.
            relays = [host for host in others if _packets(host) - before[host] > BEFORE / PACE]
            happened = time.monotonic()
            a.lose(relays[0] if relays else b)
            _until_calm(pinger, happened, OTHERS_LOOK)
        return pinger.longest


def _packets(host: Host) -> int:
    """How many came out of a host so far."""
    port = host.ports["eth0"]
    shown = json.loads(command("ip", "-n", port.switch.full_name, "-s", "-j", "link", "show", "dev", port.name))
    return int(shown[0]["stats64"]["rx"]["packets"])


def many_cuts(count: int, registry_options: Sequence[str], node_options: Sequence[str], file: Path | None) -> int:
    """The command with --cuts; its exit code."""
    found: dict[str, list[float]] = {DIALLED: [], SERVED: []}
    for begin in range(0, count, CUTS_AT_ONCE):
        for name, outages in cuts(min(CUTS_AT_ONCE, count - begin), registry_options, node_options).items():
            found[name] += outages
        say(f"{min(begin + CUTS_AT_ONCE, count)} cuts: {spread([each for of in found.values() for each in of])}")
    for name, outages in found.items():
        say(f"{name:<32} {spread(outages)}")
    figures = {
        name: {"median_s": round(statistics.median(of), 3), "runs_s": sorted(round(each, 3) for each in of)}
        for name, of in found.items()
        if of
    }
    settings = {"nodes": 4, "registry_options": registry_options, "node_options": node_options}
    keep("cuts", {**settings, "cases": figures}, file)
    return 0


def spread(outages: Sequence[float]) -> str:
    """Median, 99th percentile and worst, in words."""
    if not outages:
        return "none"
    ordered = sorted(outages)
    late = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"median {statistics.median(ordered):.2f} s, 99th percentile {late:.2f} s, worst {ordered[-1]:.2f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench failover", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="runs of each case (default: 10)")
    parser.add_argument("--case", action="append", default=[], metavar="WORD", help="only cases named so")
    parser.add_argument("--quick", action="store_true", help="1 run")
    tunnel_carriers.add_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/failover.json)")
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    parser.add_argument(
        "--node-option", action="append", default=[], metavar="OPTION", help="with --cuts, e.g. --wireguard=any"
    )
    parser.add_argument("--cuts", type=int, default=0, metavar="N", help="N silent cuts of links in use, nothing else")
    options = parser.parse_args(arguments)
    if options.cuts:
        return many_cuts(options.cuts, options.registry_option, options.node_option, options.json)
    wanted = [case for case in CASES if not options.case or any(word in case.name for word in options.case)]
    seconds: dict[str, list[float]] = {}
    groups = [(each, cases) for each in tunnel_carriers.chosen(options) for cases in together(wanted, each)]
    for run in range(1 if options.quick else options.runs):
        for carrier, cases in groups:
            try:
                outages = measure(cases, options.registry_option, carrier=carrier)
            except UnavailableError as error:
                say(f"not {cases[0].name!r} by {carrier}: {error}")
                continue
            for name, outage in outages.items():
                seconds.setdefault(tunnel_carriers.row(name, carrier), []).append(round(outage, 2))
                say(f"run {run + 1}: {tunnel_carriers.row(name, carrier):<52} {outage:6.2f} s")
        for kind in KINDS if not options.case else ():
            try:
                outage = other(kind)
            except UnavailableError as error:
                say(f"no {kind.name}: {error}")
                continue
            seconds.setdefault(f"{kind.name}: link in use is cut", []).append(round(outage, 2))
            say(f"run {run + 1}: {kind.name:<52} {outage:6.2f} s")
    found = {name: {"median_s": round(statistics.median(of), 2), "runs_s": sorted(of)} for name, of in seconds.items()}
    for name, figures in found.items():
        say(f"{name:<52} median {figures['median_s']:6.2f} s   of {figures['runs_s']}")
    keep("failover", {"nodes": 4, "registry_options": options.registry_option, "cases": found}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
