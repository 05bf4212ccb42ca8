"""Tunnels of nodes that can have WireGuard become links of it, by the real wireguard-go."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import pytest

from testbed import Bed, Network, Node, wait_until
from testbed.links import WITH_WIREGUARD, all_are_links, carriers, tunnels
from testbed.network import environment, program
from testbed.pings import Pinger
from tests.network.test_successor import after_a_crash, by_a_supervisor, in_place, starts

FORMS = 90
UPGRADES = 60
PACE = 0.02
CUT = 5.0
"""Seconds from a revocation until nobody hears the revoked any more."""

pytestmark = pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")


def openvpn_clients(node: Node) -> list[int]:
    return [pid for pid in node.pids("openvpn") if "--client" in node.host.processes().get(pid, [])]


def log_of(node: Node) -> str:
    return (node.host.log / "re6stnet.log").read_text()


def wait_links(network: Network, bed: Bed, *nodes: Node) -> None:
    def context() -> str:
        listed = [(node.name, tunnels(node)) for node in nodes]
        return f"{listed}\n{bed.tails()}"

    wait_until(lambda: all_are_links(*nodes), UPGRADES, "their tunnels are WireGuard links", context)


def test_two_nodes_move_to_wireguard_and_no_packet_is_lost(bed: Bed) -> None:
    network = Network(bed, 2, node_options=[*WITH_WIREGUARD, "-v", "3"])
    network.start()
    network.wait_connected(FORMS)
    one, two = network.nodes
    with Pinger(one.host, two.address, PACE).running() as pinger, Pinger(two.host, one.address, PACE).running() as back:
        began = time.monotonic()
        wait_links(network, bed, one, two)
        wait_until(lambda: not openvpn_clients(one) + openvpn_clients(two), 20, "no OpenVPN client is left", bed.tails)
        print(f"moved after {time.monotonic() - began:.1f} s")
        end = time.monotonic() + 5
        wait_until(lambda: time.monotonic() > end, 20, "that lasts")
        assert all_are_links(one, two)
    print(f"{pinger}; back: {back}")
    assert pinger.lost == back.lost == 0
    assert len(tunnels(one)) == len(tunnels(two)) == 1
    interfaces = {name for node in (one, two) for name in node.host.interfaces() if "-wg" in name}
    assert interfaces == {"re6stnet-wg1", "re6stnet-wgs1"}
    wait_until(
        lambda: None not in network.pings(size=1400).values(), 10, "packets that are larger than a link pass", bed.tails
    )
    for node in (two, one):
        assert node.stop() == 0
    assert two.traces() == []


def test_with_nodes_that_have_none_tunnels_stay_those_of_openvpn(bed: Bed) -> None:
    network = Network(bed, 3, node_options=["-v", "3"])
    *able, without = network.nodes
    without.options += ("--wireguard", "off")
    for node in able:
        node.options += WITH_WIREGUARD
    network.start()
    network.wait_connected(FORMS)

    def settled() -> bool:
        means = {
            (each["peer"] == without.prefix.cn, each["carrier"])
            for node in able
            for each in tunnels(node)
            if each["state"] == "up"
        }
        return means == {(True, "openvpn"), (False, "wireguard")} and set(carriers(without)) == {"openvpn"}

    wait_until(settled, UPGRADES, "each tunnel is what both its ends can have", bed.tails)
    network.wait_connected(10)
    assert not [name for name in without.host.interfaces() if "-wg" in name]
    assert all(each["no_wireguard"] is None for node in network.nodes for each in tunnels(node))


def test_where_a_firewall_lets_only_openvpn_through_that_stays_and_status_says_why(bed: Bed) -> None:
    network = Network(bed, 2, node_options=[*WITH_WIREGUARD, "-v", "3"])
    for node in network.nodes:
        hook = "add chain inet firewall input { type filter hook input priority 0 ; }"
        rule = "add rule inet firewall input udp dport 21194-21449 drop"
        node.host.run(["nft", f"add table inet firewall ; {hook} ; {rule}"])
    network.start()
    network.wait_connected(FORMS)
    one, two = network.nodes

    def said() -> bool:
        return any("no handshake" in (each["no_wireguard"] or "") for node in (one, two) for each in tunnels(node))

    with Pinger(one.host, two.address, PACE).running() as pinger:
        wait_until(said, UPGRADES, "it is said that no handshake came", bed.tails)
    assert pinger.lost == 0
    assert carriers(one) == carriers(two) == ["openvpn"]
    wait_until(lambda: not _links(one) + _links(two), 20, "the interfaces go", bed.tails)
    texts = [
        node.host.run(
            [*program("status"), "--control", str(node.host.run_directory / "control.sock"), "tunnels"],
            env=environment(),
        ).stdout
        for node in (one, two)
    ]
    assert any("no WireGuard, no handshake" in text for text in texts), texts


def _links(node: Node) -> list[str]:
    return [name for name in node.host.interfaces() if "-wg" in name]


def test_the_next_daemon_goes_on_with_links_and_traffic_notices_nothing(bed: Bed) -> None:
    network = Network(
        bed, 2, registry_options=["--ipv4", "10.42.0.0/16", "8"], node_options=[*WITH_WIREGUARD, "-v", "3"]
    )
    network.start()
    network.wait_connected(FORMS)
    one, two = network.nodes
    wait_links(network, bed, one, two)
    wait_until(lambda: not openvpn_clients(one) + openvpn_clients(two), 20, "no OpenVPN client is left", bed.tails)
    programs = {node: node.pids("wireguard-go") for node in network.nodes}
    assert all(len(pids) == 1 for pids in programs.values())
    changes: list[Callable[[Node], None]] = [in_place, by_a_supervisor, after_a_crash]
    with Pinger(one.host, two.address, PACE).running() as pinger:
        for change in changes:
            for node in (two, one) if change is in_place else (two,):
                count = starts(node)
                change(node)
                wait_until(lambda: starts(node) > count, 30, "the next daemon", bed.tails)  # noqa: B023
                network.wait_connected(30)
                wait_links(network, bed, one, two)
    print(pinger)
    assert {node: node.pids("wireguard-go") for node in network.nodes} == programs
    assert pinger.longest < 2.0
    for node in network.nodes:
        for name in _links(node):
            note = node.host.run_directory / f"{name}.json"
            assert note.stat().st_mode & 0o777 == 0o600
        assert "left by an earlier run" not in log_of(node)
    assert two.stop() == one.stop() == 0
    assert two.traces() == []


def test_traffic_comes_back_when_a_link_dies(bed: Bed) -> None:
    network = Network(bed, 2, node_options=[*WITH_WIREGUARD, "-v", "3"])
    network.start()
    network.wait_connected(FORMS)
    one, two = network.nodes
    wait_links(network, bed, one, two)
    for node in (one, two):
        began = time.monotonic()
        assert node.signal("wireguard-go")
        network.wait_connected(60)
        print(f"back after {time.monotonic() - began:.1f} s")
        wait_until(lambda: set(carriers(one)) == {"openvpn"}, 20, "OpenVPN carries it again", bed.tails)
        assert not _links(node)
        if node is one:
            wait_until(lambda: all_are_links(one, two), 120, "and a while later it is a link again", bed.tails)


def test_who_is_revoked_loses_its_links_at_once(bed: Bed) -> None:
    network = Network(bed, 3, node_options=[*WITH_WIREGUARD, "-v", "3"])
    network.start()
    network.wait_connected(FORMS)
    *members, revoked = network.nodes
    wait_links(network, bed, *network.nodes)
    began = time.monotonic()
    network.call("revoke", f"cn_or_serial={revoked.prefix.cn}")

    def cut_off() -> bool:
        silent = all(rtt is None for pair, rtt in network.pings(timeout=0.3).items() if revoked in pair)
        return silent and not any(each["peer"] == revoked.prefix.cn for node in members for each in tunnels(node))

    wait_until(cut_off, CUT, "nobody has a link with the revoked node, nor reaches it", bed.tails)
    print(f"cut off after {time.monotonic() - began:.1f} s")
    network.wait_connected(FORMS, members)
    assert all_are_links(*members)
