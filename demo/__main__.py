"""The demo: a registry and its nodes form a real network, and show it (`./run demo`)."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.picture import Vertex, draw
from re6st.cli.registry.page import DEFAULT_PORT
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
    console = Console(highlight=False)
    formed = False
    try:
        with Bed() as bed:
            demo = Demo(bed, options, console)
            demo.build()
            with Forward(demo.network.registry_host, DEFAULT_PORT, options.web_port) as forward:
                demo.page = f"http://127.0.0.1:{forward.port}/"
                demo.say(f"operator's page at {demo.page}")
                formed = demo.form()
                demo.show_result()
                if not options.once:
                    demo.stay()
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left behind.")
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

    def __call__(self, picture: Text | None, status: str) -> None: ...


class Demo:
    """One run of the demo."""

    def __init__(self, bed: Bed, options: argparse.Namespace, console: Console) -> None:
        self.bed = bed
        self.console = console
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
        with self.screen() as show:
            while True:
                before = self.tunnels
                self.look()
                show(self.picture(), self.status())
                now = time.monotonic()
                if before != self.tunnels:
                    changed = now
                if now > deadline or (self.complete and now - changed > SETTLED):
                    break
                time.sleep(INTERVAL)
        if self.complete:
            self.measure()
        if self.console.is_terminal:  # elsewhere the last line says so
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
        self.console.print(
            f"The operator's page: [bold]{self.page}[/]\n"
            f"A shell on a node:   [bold]ip netns exec {example.host.namespace.full_name} bash[/]\n"
            f"Logs:                [bold]{self.bed.directory}/NODE/log[/]",
            soft_wrap=True,
        )
        with self.screen() as show:
            while True:
                time.sleep(4 * INTERVAL)
                self.look()
                show(None, f"{self.status()}. Ctrl-C ends it.")

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
        self.console.print(f"[dim]{time.monotonic() - self.began:6.1f} s[/]  {what}")

    def status(self) -> str:
        answers = sum(rtt is not None for rtt in self.pings.values())
        return f"{answers} of {len(self.pings)} pairs answer, {len(self.tunnels)} tunnels"

    @contextmanager
    def screen(self) -> Iterator[Screen]:
        """A part of the terminal that is drawn anew; elsewhere a line each time the status changes."""
        if self.console.is_terminal:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:

                def redraw(picture: Text | None, status: str) -> None:
                    line = Text(f"{time.monotonic() - self.began:6.1f} s  {status}")
                    live.update(Group(picture, line) if picture else line, refresh=True)

                yield redraw
        else:
            last = ""

            def report(picture: Text | None, status: str) -> None:
                nonlocal last
                if status != last:
                    self.say(status)
                last = status

            yield report

    def picture(self) -> Text:
        nodes = self.network.nodes
        numbers = {node: number for number, node in enumerate(nodes)}
        vertices = []
        short = len(nodes) > WIDEST_TABLE
        for number, node in enumerate(nodes):
            name = node.name.removeprefix("node") if short else node.name
            if number == 0:
                vertices.append(Vertex(f"{name} (registry)", "bold green"))
            elif number >= len(nodes) - self.behind_nat:
                vertices.append(Vertex(f"{name} (NAT)", "bold yellow"))
            else:
                vertices.append(Vertex(name))
        edges = [(numbers[tunnel.client], numbers[tunnel.server]) for tunnel in self.tunnels]
        # One row is left for the status, and one for the prompt.
        height = min(19, self.console.height - 2) if self.console.is_terminal else 19
        return draw(vertices, edges, min(self.console.width - 1, 90), max(height, 9))

    def show_result(self) -> None:
        few = len(self.network.nodes) <= WIDEST_TABLE
        self.console.print()
        self.console.print(self.picture())
        self.console.print()
        self.console.print(self.matrix() if few else self.summary())

    def matrix(self) -> Table:
        """Round trips of all pairs: a row for each node that asks, a column for each that answers."""
        table = Table(title="ping between all pairs, ms", title_justify="left", box=None, pad_edge=False)
        table.add_column("from \\ to", style="bold")
        for node in self.network.nodes:
            table.add_column(node.name.removeprefix("node"), justify="right")
        table.add_column("address")
        for source in self.network.nodes:
            cells = [
                Text("·", "dim") if target is source else _milliseconds(self.pings[source, target])
                for target in self.network.nodes
            ]
            table.add_row(source.name, *cells, Text(str(source.address), "dim"))
        return table

    def summary(self) -> Table:
        """Round trips of all pairs: a row for each node that asks."""
        table = Table(title="ping to every other node, ms", title_justify="left", box=None, pad_edge=False)
        table.add_column("from", style="bold")
        for title in ("answers", "min", "median", "max"):
            table.add_column(title, justify="right")
        table.add_column("address")
        for source in self.network.nodes:
            rtts = [rtt for (a, _), rtt in self.pings.items() if a is source]
            known = [rtt for rtt in rtts if rtt is not None]
            figures = [min(known), statistics.median(known), max(known)] if known else [None] * 3
            answers = Text(f"{len(known)}/{len(rtts)}", "" if len(known) == len(rtts) else "bold red")
            address = Text(str(source.address), "dim")
            table.add_row(source.name, answers, *map(_milliseconds, figures), address)
        return table


def _milliseconds(rtt: float | None) -> Text:
    return Text("none", "bold red") if rtt is None else Text(f"{rtt * 1000:.1f}")


if __name__ == "__main__":
    sys.exit(main())
