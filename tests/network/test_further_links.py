"""Two nodes with two lines each: they have a link over each line, use all of them, and outlive the death of one."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence

import pytest

from re6st.core.machine.share_rules import TABLE
from testbed import Bed, Network, Node, wait_until
from testbed.flows import Flows
from testbed.lines import Line, LinedHost
from testbed.links import WITH_WIREGUARD, tunnels
from testbed.pings import Pinger

FORMS = 90
MBITS = 8
LINES = Line(MBITS), Line(MBITS)
WARM, SECONDS = 4.0, 10.0
PACE = 0.05

pytestmark = pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")


class Pair:
    """Two nodes with these lines. Nobody comes in to the second one: it opens the tunnel."""

    def __init__(self, bed: Bed, first: Sequence[Line], second: Sequence[Line]) -> None:
        self.bed = bed
        self.lined = LinedHost(bed, "server", first, []), LinedHost(bed, "client", second, [])
        server, client = self.lined
        server.expose(*(router.outside for router in client.routers))
        self.network = Network(bed, hosts=[server.host, client.host])
        self.server, self.client = self.network.nodes
        self.server.options = [*WITH_WIREGUARD, "-v", "3", *self._lines(server)]
        for number in range(len(first)):
            self.server.options += ["--ip", server.address(number)]
        self.client.options = [*WITH_WIREGUARD, "-v", "3", *self._lines(client), "--max-clients", "0"]
        self.network.start()
        self.network.wait_connected(FORMS)

    @staticmethod
    def _lines(lined: LinedHost) -> list[str]:
        if len(lined.lines) < 2:
            return []
        return [word for number in range(len(lined.lines)) for word in ("--uplink", lined.option(number))]

    def context(self) -> str:
        return f"{tunnels(self.server)}\n{tunnels(self.client)}\n{self.bed.tails()}"

    def wait_used(self, server: Sequence[str], client: Sequence[str]) -> None:
        """Until the links at each end go over these lines."""

        def used() -> bool:
            return lines(self.server) == sorted(server) and lines(self.client) == sorted(client)

        wait_until(used, FORMS, f"links over {server} and {client}", self.context)

    def wait_over(self, *names: str) -> None:
        """Until the links that the client has go over these lines."""
        wait_until(lambda: set(lines(self.client)) == set(names), FORMS, f"links over {names}", self.context)


def lines(node: Node) -> list[str]:
    """Those of its links that are up."""
    found = [each for each in tunnels(node) if each["state"] == "up" and each["carrier"] == "wireguard"]
    return sorted(each["uplink"] or "" for each in found)


def shares(node: Node) -> bool:
    """Whether both lines lead to the other node, and the kernel marks what goes over them."""
    routes = [
        node.host.run(["ip", "-6", "route", "show", "table", table], check=False).stdout for table in ("14701", "14702")
    ]
    return all(routes) and TABLE in node.host.run(["nft", "list", "ruleset"]).stdout


def test_two_nodes_with_two_lines_each_get_the_sum_in_both_directions(bed: Bed) -> None:
    pair = Pair(bed, LINES, LINES)
    pair.wait_used(["line0", "line1"], ["line0", "line1"])
    wait_until(lambda: shares(pair.server) and shares(pair.client), FORMS, "both spread", pair.context)
    for one, other in ((pair.client, pair.server), (pair.server, pair.client)):
        flows = Flows(one.host, other.host, other.address, count=16, seconds=SECONDS).run()
        print(f"16 connections from the {one.name}: {flows.mbits(WARM):.1f} Mbit/s of twice {MBITS}")
        assert flows.mbits(WARM) > 1.2 * MBITS, pair.context()
    for node in pair.network.nodes:
        assert len(node.babel().neighbours) == 2
    for node in (pair.client, pair.server):
        assert node.stop() == 0
    assert pair.client.traces() == []


def test_where_a_line_dies_the_other_link_carries_on_at_once_and_a_new_one_comes_with_the_line(bed: Bed) -> None:
    pair = Pair(bed, LINES, LINES)
    pair.wait_used(["line0", "line1"], ["line0", "line1"])
    _, client = pair.lined
    for number in (0, 1):
        with Pinger(pair.client.host, pair.server.address, PACE).running() as pinger:
            client.cut(number)
            pair.wait_over(f"line{1 - number}")
        print(f"line {number} died: {pinger}")
        assert pinger.lost * PACE < 5.0, pair.context()
        client.restore(number)
        pair.wait_over("line0", "line1")
    log = (pair.client.host.log / "re6stnet.log").read_text()
    assert log.count("closing the tunnel") == 0, "for the policy it is one tunnel all the time"


def test_the_next_daemon_goes_on_with_both_links_and_no_packet_is_lost(bed: Bed) -> None:
    pair = Pair(bed, LINES, LINES)
    pair.wait_used(["line0", "line1"], ["line0", "line1"])
    for node in pair.network.nodes:
        names = {name for name in node.host.interfaces() if "-wg" in name}
        assert len(names) == 2
        with Pinger(pair.client.host, pair.server.address, PACE).running() as pinger:
            node.end(signal.SIGQUIT)
            node.start()
            pair.wait_used(["line0", "line1"], ["line0", "line1"])
        print(f"{node.name} was replaced: {pinger}")
        assert pinger.lost == 0
        assert {name for name in node.host.interfaces() if "-wg" in name} == names


def test_nodes_with_one_line_each_have_one_link_and_say_nothing_of_others(bed: Bed) -> None:
    pair = Pair(bed, LINES[:1], LINES[:1])
    pair.wait_used([""], [""])
    log = (pair.client.host.log / "re6stnet.log").read_text()
    assert "another WireGuard link" not in log
    assert [name for name in pair.client.host.interfaces() if "-wg" in name] == ["re6stnet-wg1"]
