"""The demo: a registry and its nodes form a real network, and show it (`./run demo`)."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from demo.picture import Vertex, draw
from re6st.cli.registry.page import DEFAULT_PORT
from re6st.cli.terminal import has_colour, show, width
from re6st.view.screen import Column, Line, Span, line, paint, table
from testbed import Bed, BedError, Network, Node
from testbed.forward import Forward
from testbed.network import NETWORK, Tunnel

INTERVAL = 0.5
"""Seconds between two looks at the network."""
SETTLED = 3.0
"""Seconds without a change of the tunnels after which the network has formed."""
WIDEST_TABLE = 14
"""Nodes up to which the table of pings has a cell for each pair."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    formed = False
    try:
        with Bed() as bed:
            demo = Demo(bed, options)
            demo.build()
            with Forward(demo.network.registry_host, DEFAULT_PORT, options.web_port) as forward:
                demo.page = f"http://127.0.0.1:{forward.port}/"
                demo.say(f"operator's page at {demo.page}")
                formed = demo.form()
                demo.show_result()
                if not options.once:
                    demo.stay()
    except KeyboardInterrupt:
        print("Stopped; nothing is left behind.")
        return 0 if formed else 130
    except BedError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0 if formed else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run demo", description="A registry and nodes, in network namespaces of this machine."
    )
    add = parser.add_argument
    add("--nodes", type=int, default=8, metavar="N", help="how many nodes (default: 8)")
    add("--nat", type=int, default=1, metavar="N", help="how many of them behind a NAT router (default: 1)")
    add("--encrypt", action="store_true", help="encrypt the tunnels")
    add("--once", action="store_true", help="end when it has formed: 0 if every pair answered, 1 if not in time")
    add("--timeout", type=float, default=120, metavar="S", help="seconds it may take to form (default: 120)")
    add(
        "--web-port",
        type=int,
        default=DEFAULT_PORT,
        metavar="N",
        help="where on 127.0.0.1 the operator's page is (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.nodes < 2:
        parser.error("--nodes: a network has two nodes or more")
    if not 0 <= options.nat < options.nodes:
        parser.error("--nat: the registry's node, at least, is not behind NAT")
    return options


class Screen(Protocol):
    """Shows how things are now, in the place of how they were."""

    def __call__(self, picture: Sequence[Line], status: str) -> None: ...


class Demo:
    """One run of the demo."""

    def __init__(self, bed: Bed, options: argparse.Namespace) -> None:
        self.bed = bed
        self.timeout: float = options.timeout
        self.behind_nat: int = options.nat
        self.began = time.monotonic()
        self.page = ""
        self.tunnels: set[Tunnel] = set()
        self.pings: dict[tuple[Node, Node], float | None] = {}
        registry_options = ["--web", str(DEFAULT_PORT), *(["--encrypt"] if options.encrypt else [])]
        self.network = Network(bed, options.nodes, nat=options.nat, registry_options=registry_options)
        self.say(f"{options.nodes} hosts in network namespaces, {options.nat} of them behind a NAT router")

    # --- what happens ---

    def build(self) -> None:
        """Everything up to the start of the nodes."""
        network = self.network
        network.create()
        self.say(f"registry at {network.url}, network {NETWORK}")
        network.enrol()
        self.say(f"{len(network.nodes)} certificates")
        for node in network.nodes:
            node.start()
        self.say(f"{len(network.nodes)} nodes started")

    def form(self) -> bool:
        """Show how the network forms, until its tunnels are the same for a while; whether every pair answers."""
        deadline = time.monotonic() + self.timeout
        changed = time.monotonic()
        with self.screen() as redraw:
            while True:
                before = self.tunnels
                self.look()
                redraw(self.picture(), self.status())
                now = time.monotonic()
                if before != self.tunnels:
                    changed = now
                if now > deadline or (self.complete and now - changed > SETTLED):
                    break
                time.sleep(INTERVAL)
        if self.complete:
            self.measure()
        if sys.stdout.isatty():  # elsewhere the last line says so
            self.say(self.status())
        return self.complete

    def measure(self) -> None:
        """Round trips of one node after the other: all at once would wait for each other on a small machine."""
        for node in self.network.nodes:
            pairs = [(node, other) for other in self.network.nodes if other is not node]
            self.pings |= self.network.ping(pairs, timeout=5)

    def stay(self) -> None:
        """Watch over the network until Ctrl-C."""
        example = self.network.nodes[-1]
        for name, what in (
            ("The operator's page:", self.page),
            ("A shell on a node:", f"ip netns exec {example.host.namespace.full_name} bash"),
            ("Logs:", f"{self.bed.directory}/NODE/log"),
        ):
            print(*paint([line(f"{name:<20} ", Span(what, "bold"))], colour=has_colour()))  # whole, to be copied
        with self.screen() as redraw:
            while True:
                time.sleep(4 * INTERVAL)
                self.look()
                redraw((), f"{self.status()}. Ctrl-C ends it.")

    def look(self) -> None:
        """Ask every node for its tunnels, and every pair for an answer."""
        self.network.check_alive()
        self.tunnels = self.network.tunnels()
        self.pings = self.network.pings(timeout=INTERVAL)

    # --- how it looks ---

    @property
    def complete(self) -> bool:
        return None not in self.pings.values()

    def say(self, what: str) -> None:
        show([line(Span(f"{time.monotonic() - self.began:6.1f} s", "dim"), "  ", what)])

    def status(self) -> str:
        answers = sum(rtt is not None for rtt in self.pings.values())
        return f"{answers} of {len(self.pings)} pairs answer, {len(self.tunnels)} tunnels"

    @contextmanager
    def screen(self) -> Iterator[Screen]:
        """A part of the terminal that is drawn anew; elsewhere a line each time the status changes."""
        last, drawn = "", 0

        def redraw(picture: Sequence[Line], status: str) -> None:
            nonlocal drawn
            lines = [*picture, line(f"{time.monotonic() - self.began:6.1f} s  {status}")]
            sys.stdout.write(_above(drawn) + "".join(f"{each}\n" for each in paint(lines, colour=True, width=width())))
            sys.stdout.flush()
            drawn = len(lines)

        def report(picture: Sequence[Line], status: str) -> None:
            nonlocal last
            if status != last:
                self.say(status)
            last = status

        try:
            yield redraw if sys.stdout.isatty() else report
        finally:
            sys.stdout.write(_above(drawn))

    def picture(self) -> list[Line]:
        nodes = self.network.nodes
        numbers = {node: number for number, node in enumerate(nodes)}
        vertices = []
        short = len(nodes) > WIDEST_TABLE
        for number, node in enumerate(nodes):
            name = node.name.removeprefix("node") if short else node.name
            if number == 0:
                vertices.append(Vertex(f"{name} (registry)", "good"))
            elif number >= len(nodes) - self.behind_nat:
                vertices.append(Vertex(f"{name} (NAT)", "warning"))
            else:
                vertices.append(Vertex(name))
        edges = [(numbers[tunnel.client], numbers[tunnel.server]) for tunnel in self.tunnels]
        size = shutil.get_terminal_size()
        # One row is left for the status, and one for the prompt.
        height = min(19, size.lines - 2) if sys.stdout.isatty() else 19
        return draw(vertices, edges, min(size.columns - 1, 90), max(height, 9))

    def show_result(self) -> None:
        few = len(self.network.nodes) <= WIDEST_TABLE
        show([(), *self.picture(), (), *(self.matrix() if few else self.summary())])

    def matrix(self) -> list[Line]:
        """Round trips of all pairs: a row for each node that asks, a column for each that answers."""
        nodes = self.network.nodes
        columns = [Column(node.name.removeprefix("node"), right=True) for node in nodes]
        rows = []
        for source in nodes:
            cells = [
                Span("·", "dim") if target is source else _milliseconds(self.pings[source, target]) for target in nodes
            ]
            rows.append([Span(source.name, "bold"), *cells, Span(str(source.address), "dim")])
        shown = table([Column("from \\ to"), *columns, Column("address")], rows)
        return [line("ping between all pairs, ms"), *shown]

    def summary(self) -> list[Line]:
        """Round trips of all pairs: a row for each node that asks."""
        columns = [Column(title, right=True) for title in ("answers", "min", "median", "max")]
        rows = []
        for source in self.network.nodes:
            rtts = [rtt for (a, _), rtt in self.pings.items() if a is source]
            known = [rtt for rtt in rtts if rtt is not None]
            figures = [min(known), statistics.median(known), max(known)] if known else [None] * 3
            answers = Span(f"{len(known)}/{len(rtts)}", "" if len(known) == len(rtts) else "bad")
            address = Span(str(source.address), "dim")
            rows.append([Span(source.name, "bold"), answers, *map(_milliseconds, figures), address])
        return [line("ping to every other node, ms"), *table([Column("from"), *columns, Column("address")], rows)]


def _above(lines: int) -> str:
    """Go back over so many lines, and clear them."""
    return f"\x1b[{lines}F\x1b[J" if lines else ""


def _milliseconds(rtt: float | None) -> Span:
    return Span("none", "bad") if rtt is None else Span(f"{rtt * 1000:.1f}")


if __name__ == "__main__":
    sys.exit(main())
