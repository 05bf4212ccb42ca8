"""What a node gave the kernel, changed by others: network managers, firewalls, DHCP clients, people with ip(8)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, Node, Pinger, wait_until
from testbed.control import ask

FORMS = 120
BACK = 30.0
"""Seconds; it takes one to four on a machine that is not busy."""
NETWORK = "2001:db8:42::/48"
DROPS = "add table ip6 filter; add chain ip6 filter FORWARD { type filter hook forward priority 0; policy drop; }"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Bed() as bed:
        network = Network(bed, 4, registry_options=["--ipv4", "10.42.0.0/16", "8"])
        network.start()
        network.wait_connected(FORMS)
        yield network


@pytest.fixture
def node(network: Network) -> Iterator[Node]:
    """One of a network that is as it should be, and is again afterwards."""
    network.wait_connected(FORMS)
    network.wait_single_tunnels(FORMS)
    node = network.nodes[1]
    yield node
    network.wait_connected(FORMS)
    text = "".join(path.read_text(errors="replace") for path in node.host.log.glob("re6stnet*.log"))
    assert "Traceback" not in text


def said(node: Node, text: str) -> int:
    return (node.host.log / "re6stnet.log").read_text().count(text)


def problems(node: Node) -> list[str]:
    """What its status complains of."""
    health: Any = ask(node.host.run_directory / CONTROL_SOCKET, "status")["health"]
    return [problem["text"] for problem in health["problems"]]


def comes_back(network: Network, what: str, holds: Callable[[], bool]) -> None:
    began = time.monotonic()
    wait_until(holds, BACK, f"{what} is back", network.bed.tails)
    print(f"{what}: back after {time.monotonic() - began:.1f} s")
    network.wait_connected(BACK)
    print(f"{what}: connected after {time.monotonic() - began:.1f} s")


def programs(node: Node) -> set[int]:
    """Its server, and its tunnels: more of them may come while it finds others, but those that are there stay."""
    return set(node.pids("openvpn"))


def test_our_address_is_put_back(network: Network, node: Node) -> None:
    host, before = node.host, programs(node)
    host.namespace.ip(f"address del {node.address}/64 dev lo")
    comes_back(network, "the address", lambda: f" {node.address}/" in host.ip("-6", "address", "show", "dev", "lo"))
    # The kernel forgot that babel's routes have it as source.
    ways = [line for line in host.ip("-6", "route", "show", "proto", "babel").splitlines() if "dead:" not in line]
    wait_until(
        lambda: all("src" in line for line in host.ip("-6", "route", "show", "proto", "babel").splitlines()),
        *(BACK, "all routes have it as source", network.bed.tails),
    )
    assert ways
    assert before <= programs(node), "no tunnel was cut"
    assert said(node, f"another program removed or changed our address {node.address} on lo") == 1


def test_all_addresses_that_a_network_manager_does_not_know_are_put_back(network: Network, node: Node) -> None:
    host = node.host
    ipv4 = ask(host.run_directory / CONTROL_SOCKET, "status")["ipv4"]
    host.run(["ip", "address", "flush", "dev", "lo", "scope", "global"])
    comes_back(network, "all addresses", lambda: f"{ipv4}/32" in host.ip("-4", "address", "show", "dev", "lo"))

    def ways() -> list[str]:
        return host.ip("-4", "route", "show", "proto", "babel").splitlines()

    wait_until(lambda: len(ways()) >= len(network.nodes) - 1, BACK, "babel's routes of IPv4", network.bed.tails)


def test_the_unreachable_route_is_put_back(network: Network, node: Node) -> None:
    node.host.namespace.ip(f"route del unreachable {NETWORK}")
    comes_back(network, "the route", lambda: f"unreachable {NETWORK}" in node.host.ip("-6", "route"))
    assert said(node, f"another program removed or changed the route unreachable {NETWORK}") == 1


def has_routes(node: Node, version: str) -> bool:
    """Whether it has a route of babel to each of the others."""
    found = node.host.ip(version, "route", "show", "proto", "babel").splitlines()
    return len([line for line in found if "metric 4294967295" not in line]) >= 3


def test_routes_of_babel_are_put_back(network: Network, node: Node) -> None:
    before = programs(node)
    others = [(a, b) for a in network.nodes for b in network.nodes if node not in (a, b) and a is not b]
    pingers = [Pinger(a.host, b.address, 0.05) for a, b in others[:2]]
    at_first = said(node, "of babel from the kernel")
    with pingers[0].running(), pingers[1].running():
        for version in ("-6", "-4"):
            count = said(node, "of babel from the kernel")
            node.host.run(["ip", version, "route", "flush", "proto", "babel"])
            # Where babeld was just starting anew, it puts them back by itself, and there is nothing to say.
            comes_back(network, f"babel's routes {version}", lambda: has_routes(node, version))  # noqa: B023
            assert said(node, "of babel from the kernel") <= count + 1
            wait_until(lambda: not problems(node), BACK, "its status is good again", network.bed.tails)
    assert said(node, "of babel from the kernel") > at_first
    assert before <= programs(node), "no tunnel was cut"
    assert all(pinger.longest < 2 for pinger in pingers), "nobody else notices"


def test_forwarding_is_switched_on_again(network: Network, node: Node) -> None:
    node.host.namespace.sysctl({"net/ipv6/conf/all/forwarding": 0})
    setting = "/proc/sys/net/ipv6/conf/all/forwarding"
    comes_back(network, "forwarding", lambda: node.host.run(["cat", setting]).stdout == "1\n")
    assert said(node, "another program removed or changed the sysctl net.ipv6.conf.all.forwarding=1") == 1


def test_ipv6_is_switched_on_again_where_we_need_it(network: Network, node: Node) -> None:
    node.host.namespace.sysctl({"net/ipv6/conf/all/disable_ipv6": 1})
    try:
        comes_back(network, "IPv6", lambda: said(node, "the sysctl net.ipv6.conf.lo.disable_ipv6=0") > 0)
    finally:
        node.host.namespace.sysctl({"net/ipv6/conf/all/disable_ipv6": 0})


def test_an_interface_of_a_tunnel_keeps_its_mtu_and_its_settings(network: Network, node: Node) -> None:
    """With a smaller MTU large packets are lost; by an advertisement that it heard, a peer would be our way out."""
    name = next(link.split()[0] for link in node.host.ip("-brief", "link").splitlines() if link.startswith("re6stnet-"))

    def mtu() -> str:
        return node.host.ip("-oneline", "link", "show", name).partition(" mtu ")[2].split()[0]

    before, setting = mtu(), f"net/ipv6/conf/{name}/accept_ra"
    node.host.ip("link", "set", name, "mtu", "1280")
    node.host.namespace.sysctl({setting: 2})
    comes_back(network, "the MTU", lambda: mtu() == before)
    comes_back(network, "accept_ra", lambda: node.host.run(["cat", f"/proc/sys/{setting}"]).stdout == "0\n")
    assert said(node, f"removed or changed the MTU {before} of {name}") == 1
    assert said(node, f"removed or changed the sysctl {setting.replace('/', '.')}=0") == 1


@pytest.mark.parametrize("verb", ["delete", "down"])
def test_an_interface_of_a_tunnel_comes_back(network: Network, node: Node, verb: str) -> None:
    names = sorted({link.split()[0] for link in node.host.ip("-brief", "link").splitlines() if link.startswith("re6")})
    assert len(names) > 1
    for name in names:
        # Before the next one: who has lost all of them has to begin anew.
        network.wait_connected(FORMS)
        words = ["delete", name] if verb == "delete" else ["set", name, "down"]
        node.host.ip("link", *words)
        text = f"deleted the interface {name}" if verb == "delete" else f"the interface {name}, which was down"
        wait_until(lambda: said(node, text) > 0, BACK, text, network.bed.tails)  # noqa: B023
        network.wait_connected(60)
    # Also of those that are new, none is left out.
    network.wait_single_tunnels(60)


def test_the_packet_filter_comes_back(network: Network, node: Node) -> None:
    node.host.run(["nft", "flush", "ruleset"])
    comes_back(network, "our table", lambda: "table inet re6st" in node.host.run(["nft", "list", "tables"]).stdout)


def test_who_cannot_forward_says_so_and_others_go_around(network: Network, node: Node) -> None:
    first, second, other = (each for each in network.nodes if each is not node)
    first.host.lose(second.host)
    try:
        node.host.run(["nft", DROPS])
        wait_until(
            lambda: any("ip6 filter, chain FORWARD" in text for text in problems(node)),
            *(60, "its status says so", network.bed.tails),
        )
        # It is not on the way of anybody any more.
        network.wait_connected(60)

        def ways() -> list[str]:
            found = ask(first.host.run_directory / CONTROL_SOCKET, "why", peer=second.prefix.cn)["routes"]
            return [str(route["via"]) for route in found]

        wait_until(lambda: all(node.prefix.cn not in way for way in ways()), 60, "nobody goes by it", ways().__str__)
        assert other.prefix.cn in "".join(ways())
    finally:
        node.host.run(["nft", "delete table ip6 filter"])
        first.host.find(second.host)
    wait_until(lambda: not problems(node), 60, "its status is good again", lambda: f"{problems(node)}")


@pytest.mark.parametrize("away", [1.0, 3.0])
def test_tunnels_survive_an_address_that_is_away_for_a_moment(network: Network, node: Node, away: float) -> None:
    """As at each renewal, for some DHCP clients."""
    host, before = node.host, programs(node)
    with Pinger(network.nodes[2].host, node.address, 0.05).running() as pinger:
        host.namespace.ip(f"address del {host.address}/16 dev eth0")
        end = time.monotonic() + away
        wait_until(lambda: time.monotonic() > end, 60, "some seconds")
        host.namespace.ip(f"address add {host.address}/16 dev eth0")
        network.wait_connected(60)
    print(f"away for {away:g} s: {pinger}")
    assert before <= programs(node), "no tunnel was cut"


def test_a_main_interface_that_comes_late_and_goes_and_comes_with_ipv6_off_at_first(bed: Bed) -> None:
    network = Network(bed, 2)
    node = network.nodes[1]
    host = node.host
    node.options += ["-I", "br0"]
    host.namespace.sysctl({"net/ipv6/conf/default/disable_ipv6": 1})
    network.start()
    wait_until(lambda: _waits(node), FORMS, "it waits for its interface", bed.tails)
    wait_until((host.run_directory / CONTROL_SOCKET).exists, 30, "it tells its status", bed.tails)
    wait_until(lambda: any("there is no interface br0" in text for text in problems(node)), 30, "its status says so")
    host.namespace.ip("link add br0 type bridge", "link set br0 up")
    network.wait_connected(60)
    wait_until(lambda: problems(node) == [], 60, "its status is good", lambda: f"{problems(node)}\n{bed.tails()}")
    host.namespace.ip("link set br0 down")
    wait_until(lambda: any("the interface br0 is down" in text for text in problems(node)), 30, "its status says so")
    host.namespace.ip("link set br0 up")
    network.wait_connected(BACK)
    wait_until(lambda: problems(node) == [], 60, "its status is good", lambda: f"{problems(node)}\n{bed.tails()}")
    host.namespace.ip("link delete br0", "link add br0 type bridge", "link set br0 up")
    network.wait_connected(BACK)
    assert node.stop() == 0
    assert [trace for trace in node.traces() if "br0" not in trace] == []


def _waits(node: Node) -> bool:
    log: Path = node.host.log / "re6stnet.log"
    return log.exists() and "there is no interface br0. Waiting for that" in log.read_text()
