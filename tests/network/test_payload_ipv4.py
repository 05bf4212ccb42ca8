"""IPv4 inside re6st (--ipv4 of the registry; wire.md 1.4)."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

import pytest

from re6st import cert
from re6st.core.prefix import ipv4_address, ipv4_subnet
from testbed import Bed, Network, Node, Pinger, wait_until

FORMS = 90
NETWORK, EXTRA_BITS = IPv4Network("10.42.0.0/16"), 8
OTHER_OPTIONS = ["--hello", "2"]
LONGEST_GAP = 5.0
"""Seconds without an answer that are too many; usually there is none."""


def subnet(node: Node) -> IPv4Network:
    """The IPv4 subnet that goes with the number in the certificate of a node."""
    number = cert.number_of_cert(cert.load_pem((node.host.etc / "cert.crt").read_bytes()))
    assert number is not None
    found = ipv4_subnet(NETWORK, EXTRA_BITS, number)
    assert found is not None
    return found


def silent(network: Network) -> list[str]:
    """Pairs of nodes between which no IPv4 ping passes, with re6st addresses at both ends."""
    pairs = [(a, b) for a in network.nodes for b in network.nodes if a is not b]
    return [f"{a.name} -> {b.name}" for a, b in pairs if not ping(a, str(ipv4_address(subnet(b))))]


def ping(source: Node, address: str, size: int = 56) -> bool:
    words = ["ping", "-4", "-c", "1", "-W", "1", "-M", "do", "-s", str(size), address]
    return source.host.run(words, check=False).returncode == 0


@pytest.mark.parametrize("main_interface", ["lo", "site"])
def test_nodes_reach_each_other_by_ipv4(bed: Bed, main_interface: str) -> None:
    network = Network(bed, 3, registry_options=["--ipv4", str(NETWORK), str(EXTRA_BITS)])
    if main_interface != "lo":
        for node in network.nodes:
            node.host.namespace.ip(f"link add name {main_interface} type bridge mcast_snooping 0")
            node.options += ["--main-interface", main_interface]
    before = [node.host.ip("route") for node in network.nodes]
    network.start()
    network.wait_connected(FORMS)
    wait_until(lambda: not silent(network), 30, "every node reaches every other one by IPv4", bed.tails)

    a, b, _ = network.nodes
    way = a.host.ip("route", "get", str(ipv4_address(subnet(b))))
    assert re.search(r" dev re6stnet\S* ", way)
    assert f" src {ipv4_address(subnet(a))} " in way
    assert " via inet6 " not in way, "older nodes know IPv4 next hops only"
    assert ping(a, str(ipv4_address(subnet(b))), 1500 - 28), "full size"
    assert f"inet {ipv4_address(subnet(a))}/" in a.host.ip("-4", "address", "show", "dev", main_interface)
    # Where SlapOS looks for the addresses that it may give to its taps; they are behind none of our links.
    shown = a.host.ip("-4", "-o", "address", "show", "dev", "re6stnet-tcp")
    assert f"inet {ipv4_address(subnet(a))}/{subnet(a).prefixlen} " in shown
    assert "re6stnet" not in a.host.ip("-4", "route", "show", "exact", str(subnet(a)))
    assert a.host.run(["ping", "-c1", "-W1", "10.42.200.1"], check=False).returncode, "it does not leave by eth0"

    # A machine of the site behind one node, with an address of its subnet.
    other = ipv4_address(subnet(b)) + 4
    b.host.namespace.ip(f"address add {other}/32 dev {main_interface}")
    assert ping(a, str(other))
    b.host.namespace.ip(f"address del {other}/32 dev {main_interface}")

    for node, routes in zip(network.nodes, before, strict=True):
        assert node.stop() == 0
        assert node.host.ip("route") == routes
        assert "10.42." not in node.host.ip("-4", "address", "show")


def offer(network: Network, *options: str) -> None:
    """Start the registry again with these options for IPv4, or none."""
    assert network.stop_registry() == 0
    network.registry_options[:] = [*OTHER_OPTIONS, *options]
    network.start_registry()


def left_of(node: Node, start: str) -> str:
    """What a node has of the IPv4 addresses that start like this: addresses, routes, babel's own."""
    babel = node.host.run_directory / "babeld.conf"
    found = node.host.ip("-4", "address", "show") + node.host.ip("route", "show", "table", "all")
    found += babel.read_text() if babel.exists() else ""
    return "\n".join(line for line in found.splitlines() if start in line and not line.endswith(" deny"))


def test_ipv4_comes_to_a_network_that_runs_changes_and_goes(bed: Bed) -> None:
    network = Network(bed, 3, registry_options=OTHER_OPTIONS)
    network.start()
    network.wait_connected(FORMS)
    pinger = Pinger(network.nodes[1].host, network.nodes[2].address, 0.05)
    with pinger.running():
        assert silent(network)
        offer(network, "--ipv4", str(NETWORK), str(EXTRA_BITS))
        wait_until(lambda: not silent(network), 90, "every node reaches every other one by IPv4", bed.tails)
        for node in network.nodes:
            shown = node.host.ip("-4", "-o", "address", "show")
            taps = [line for line in shown.splitlines() if " re6stnet" in line]
            assert taps, "older nodes get IPv4 next hops, also through tunnels that were there before"
        offer(network, "--ipv4", "10.99.0.0/16", "8")
        for start, gone in (("10.99.", "10.42."), ("", "10.99.")):
            if not start:
                offer(network)
            wait_until(
                lambda: not any(left_of(node, gone) for node in network.nodes),  # noqa: B023
                90,
                f"nothing is left of {gone}",
                lambda: "\n".join(left_of(node, gone) for node in network.nodes) + bed.tails(),  # noqa: B023
            )
            if start:
                wait_until(
                    lambda: all(left_of(node, start) for node in network.nodes),  # noqa: B023
                    60,
                    f"{start} is there",
                    bed.tails,
                )
    # IPv6 went on all the time; babeld was started anew three times.
    print(pinger)
    assert pinger.longest < LONGEST_GAP
    network.wait_connected(FORMS)
    for node in network.nodes:
        assert "Traceback" not in (node.host.log / "re6stnet.log").read_text()
    for node in network.nodes[1:]:
        assert node.stop() == 0
        assert not node.traces()
