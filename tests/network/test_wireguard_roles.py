"""WireGuard links of nodes of other roles, and of nodes that are started anew, by the real wireguard-go."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable

import pytest

from testbed import Bed, Network, Node, wait_until
from testbed.links import WITH_WIREGUARD, all_are_links, tunnels
from testbed.pings import Pinger
from tests.network.test_remote_gateway import by_gateway, start_with_two_uplinks
from tests.network.test_successor import after_a_crash, by_a_supervisor, in_place, starts
from tests.network.test_wireguard import FORMS, PACE, openvpn_clients, wait_links

HEALS = 90
LASTS = 5.0
"""Seconds that something must stay as it is."""
OPTIONS = [*WITH_WIREGUARD, "-v", "3"]

pytestmark = pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")


def links_of(node: Node) -> list[str]:
    return [name for name in node.host.interfaces() if "-wg" in name]


def wait_for_links_alone(network: Network, bed: Bed, *nodes: Node) -> None:
    """Until nothing of OpenVPN but servers is left there."""
    wait_links(network, bed, *nodes)
    wait_until(lambda: not any(map(openvpn_clients, nodes)), 20, "no OpenVPN client is left", bed.tails)


def test_the_only_tunnel_of_client_is_a_link_and_the_next_daemon_goes_on_with_it(bed: Bed) -> None:
    network = Network(bed, 3, registry_options=["--hello", "2"], node_options=OPTIONS)
    *members, client = network.nodes
    client.options = [*OPTIONS, "--client", ";".join(f"{node.host.address},1194,tcp" for node in members)]
    network.start()
    network.wait_connected(FORMS)
    wait_for_links_alone(network, bed, client)
    changes: list[Callable[[Node], None]] = [in_place, by_a_supervisor, after_a_crash]
    for change in changes:
        with Pinger(client.host, members[0].address, PACE).running() as pinger:
            count = starts(client)
            change(client)
            wait_until(lambda: starts(client) > count, 30, "the next daemon", bed.tails)  # noqa: B023
            wait_links(network, bed, client)
            end = time.monotonic() + LASTS
            wait_until(lambda: time.monotonic() > end, 20, "that lasts")  # noqa: B023
            assert openvpn_clients(client) == [], "one tunnel is enough"
        print(f"{change.__name__}: {pinger}")
        assert pinger.lost == 0, change.__name__
        assert len(tunnels(client)) == 1
    (tunnel,) = tunnels(client)
    used, other = sorted(members, key=lambda node: node.prefix.cn != tunnel["peer"])
    used.kill()
    for name in ("openvpn", "babeld", "wireguard-go"):
        used.signal(name)
    network.wait_connected(HEALS, [other, client])
    wait_for_links_alone(network, bed, client)
    assert client.stop() == 0
    assert client.traces() == []


def test_links_go_over_both_uplinks_and_move_when_one_dies(bed: Bed) -> None:
    network, first, second, before = start_with_two_uplinks(bed, OPTIONS)
    double = network.nodes[-1]
    host = double.host
    wait_for_links_alone(network, bed, double)
    gateways = {first.inside, second.inside}
    wait_until(lambda: by_gateway(double).keys() == gateways, FORMS, "both gateways are used", bed.tails)

    host.cut("eth1")
    began = time.monotonic()
    left = {first.inside}
    wait_until(lambda: by_gateway(double).keys() == left, HEALS, "all peers are reached by the gateway left", bed.tails)
    network.wait_connected(HEALS)
    print(f"healed after {time.monotonic() - began:.1f} s")
    wait_for_links_alone(network, bed, double)
    host.restore("eth1")
    assert double.stop() == 0
    assert host.ip("-4", "route") == before
    assert double.traces() == []


@pytest.mark.parametrize("change", [signal.SIGQUIT, signal.SIGKILL], ids=["by a supervisor", "after a crash"])
def test_who_is_started_without_wireguard_has_no_link_any_more(bed: Bed, change: signal.Signals) -> None:
    network = Network(bed, 2, node_options=OPTIONS)
    network.start()
    network.wait_connected(FORMS)
    one, two = network.nodes
    wait_for_links_alone(network, bed, one, two)
    two.end(change)
    two.options = ["-v", "3"]
    began = time.monotonic()
    two.start()
    wait_until(lambda: not links_of(two), 20, "its interface goes", bed.tails)
    wait_until(lambda: not links_of(one), 20, "that of its peer, too", bed.tails)
    network.wait_connected(HEALS)
    print(f"connected by OpenVPN after {time.monotonic() - began:.1f} s")
    assert not all_are_links(one)
    assert two.stop() == one.stop() == 0
    assert two.traces() == []
