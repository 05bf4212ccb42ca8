"""Where a node can be reached: addresses given, learned, dead, changing (wire.md 8.1, 10.4, 10.5)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time

import pytest

from re6st.core.tunnel_protocols import TunnelProtocol
from testbed import Bed, Host, Network, Node, wait_until
from testbed.control import ask

FORMS = 90


def says(node: Node, *words: str) -> bool:
    log = (node.host.log / "re6stnet.log").read_text(errors="replace")
    return any(all(word in line for word in words) for line in log.splitlines())


def known(node: Node, peer: Node) -> str:
    """What a node remembers of a peer's addresses."""
    with contextlib.closing(sqlite3.connect(node.host.state / "cache.db")) as db:
        row = db.execute("SELECT address FROM peer WHERE prefix = ?", (peer.prefix.bits,)).fetchone()
    return row[0] if row else ""


# --- which addresses, and dead ones ---


def drop_everything(host: Host) -> None:
    """What is sent to this host is lost without a word, as behind most firewalls."""
    host.run(
        ["nft", "add table inet silent; add chain inet silent in { type filter hook input priority 0; policy drop; }"]
    )


@pytest.mark.parametrize("kind", ["silent", "refusing"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_dead_addresses_of_a_peer_cost_little(bed: Bed, protocol: str, kind: str) -> None:
    network = Network(bed, 2, node_options=["--disable-proto", "none", "--pp", "1194", protocol])
    dead = [bed.host(f"dead{number}") for number in range(2)]
    if kind == "silent":
        for host in dead:
            drop_everything(host)
    first, second = network.nodes
    first.options[:0] = [word for host in dead for word in ("--ip", host.address)]
    network.create()
    network.enrol()
    first.start()
    wait_until(lambda: first.babel().routes or first.pids("openvpn"), 60, "the first node runs", bed.tails)
    second.start()
    began = time.monotonic()
    network.wait_connected(FORMS)
    print(f"{protocol}, {kind}: connected after {time.monotonic() - began:.1f} s")


def test_a_machine_with_ipv6_only_is_connected_with_default_options(bed: Bed) -> None:
    """The others have both families. It opens tunnels to them, and they to it."""
    network = Network(bed, 3)
    for number, node in enumerate(network.nodes, 1):
        node.host.namespace.ip(f"address add 2a00:1::{number}/64 dev eth0 nodad")
    only = network.nodes[2]
    only.options = []
    only.host.namespace.ip(f"address del {only.host.address}/16 dev eth0")
    network.create()
    for node in network.nodes[:2]:
        node.enrol(network.url, network.fingerprint)
    network.url = "http://[2a00:1::1]/"
    only.enrol(network.url, network.fingerprint)
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    control = only.host.run_directory / "control.sock"
    told = ask(control, "status")["advertised"]
    assert [(each["host"], each["protocol"]) for each in told] == [("2a00:1::3", "tcp6")]
    assert all(link["remote"].startswith("2a00:1::") for link in ask(control, "tunnels")["tunnels"])


def test_a_machine_whose_peers_have_the_other_version_of_ip_says_so(bed: Bed) -> None:
    network = Network(bed, 2, node_options=["--pp", "1194", "tcp"])
    first, only = network.nodes
    for number, node in enumerate(network.nodes, 1):
        node.host.namespace.ip(f"address add 2a00:1::{number}/64 dev eth0 nodad")
    only.options = []
    only.host.namespace.ip(f"address del {only.host.address}/16 dev eth0")
    network.create()
    first.enrol(network.url, network.fingerprint)
    first.start()
    only.enrol("http://[2a00:1::1]/", network.fingerprint)
    only.start()
    control = only.host.run_directory / "control.sock"

    def said() -> bool:
        with contextlib.suppress(OSError, EOFError):
            problems = ask(control, "status")["health"]["problems"]
            return any("this machine has IPv6 only" in each["text"] for each in problems)
        return False

    wait_until(said, FORMS, "it says what is missing", bed.tails)


def test_two_nodes_behind_one_router_have_a_tunnel_inside(bed: Bed) -> None:
    """The router sends nothing back inside that is sent to its outer address; and where they are inside is told to
    nobody outside.
    """
    network = Network(bed, 3, nat=2)
    first, one, other = network.nodes
    network.start()
    network.wait_connected(FORMS)

    def direct() -> bool:
        return any({tunnel.client, tunnel.server} == {one, other} for tunnel in network.tunnels())

    wait_until(direct, FORMS, "a tunnel between the two inside", bed.tails)
    router = bed.hosts["nat"].address
    for node in (one, other):
        if told := known(first, node):
            assert told == f"{router},1194,tcp"
        public = network.registry_host.run_directory / "control.sock"
        assert node.host.address not in json.dumps(ask(public, "peers"))


def test_nodes_of_a_private_network_find_each_other(bed: Bed) -> None:
    """No router, no UPnP, no --ip: there is nobody to tell the first node its address."""
    network = Network(bed, 3)
    for node in network.nodes:
        node.options.clear()
    network.start()
    network.wait_connected(FORMS)
    first, *others = network.nodes
    told = ask(first.host.run_directory / "control.sock", "status")["advertised"]
    own = {first.host.address, first.host.ipv6}
    assert {place["host"] for place in told} <= own
    assert {place["origin"] for place in told} <= {"private", "seen"}
    wait_until(
        lambda: any(f"{first.host.address},1194,tcp" in known(node, first) for node in others),
        20,
        "a peer remembers",
        bed.tails,
    )


PROTOCOLS = (TunnelProtocol.TCP, TunnelProtocol.UDP, TunnelProtocol.TCP6, TunnelProtocol.UDP6)


def test_a_node_is_reached_by_every_protocol_and_port_it_offers(bed: Bed) -> None:
    network = Network(bed, 1 + len(PROTOCOLS))
    first, *others = network.nodes
    assert first.host.ipv6
    offered = [*zip(range(1194, 1198), PROTOCOLS, strict=True), (2000, TunnelProtocol.TCP)]
    first.options = ["--ip", first.host.address, "--ip", first.host.ipv6, "--disable-proto", "none"]
    first.options += [word for port, protocol in offered for word in ("--pp", str(port), protocol)]
    for node, own in zip(others, PROTOCOLS, strict=True):
        disabled = [word for protocol in PROTOCOLS if protocol != own for word in ("--disable-proto", protocol)]
        node.options = ["--ip", "any", "--client-count", "1", "--max-clients", "0", *disabled]
    network.start()
    network.wait_connected(FORMS)
    for node, own in zip(others, PROTOCOLS, strict=True):
        assert says(first, f"{node.prefix} connected from", f"by {own}")
    ips = {4: first.host.address, 6: first.host.ipv6}
    announced = [f"{ips[version]},{port},{p}" for version in (4, 6) for port, p in offered if p.family == version]
    # The one that worked comes first in the memory of a peer; this one used the first of the list.
    wait_until(lambda: known(others[0], first) == ";".join(announced), 60, "a peer remembers", bed.tails)
    listening = first.host.run(["ss", "-Hlntu"]).stdout
    assert ":2000 " not in listening, "one server for each protocol, on its first port"


# --- addresses that change ---


@pytest.fixture
def movable(bed: Bed) -> tuple[Network, Node]:
    """A network of three. The last one learns its address from its peers; one of them has a tunnel to it."""
    network = Network(bed, 3)
    mover = network.nodes[-1]
    mover.options = ["--ip", "any", "--client-count", "1", *mover.options[2:]]
    network.start()
    network.wait_connected(FORMS)
    wait_until(lambda: guests(network, mover), 60, "a tunnel to it", bed.tails)
    return network, mover


def guests(network: Network, node: Node) -> list[Node]:
    """Who has a client tunnel to a node."""
    return [tunnel.client for tunnel in network.tunnels() if tunnel.server is node]


def test_a_new_address_by_dhcp_is_used_and_told(movable: tuple[Network, Node], bed: Bed) -> None:
    network, mover = movable
    peer = guests(network, mover)[0]
    old, new = mover.host.address, "10.0.77.1"
    wait_until(lambda: f"{old},1194,tcp" in known(peer, mover), 60, "its peer knows it", bed.tails)
    began = time.monotonic()
    mover.host.readdress(new)
    wait_until(lambda: says(mover, f"has a new address: {new}"), 60, "the node notices", bed.tails)
    print(f"noticed after {time.monotonic() - began:.1f} s")
    network.wait_connected(FORMS)
    print(f"connected after {time.monotonic() - began:.1f} s")
    wait_until(lambda: f"{new},1194,tcp" in known(peer, mover), 60, "its peer is told", bed.tails)
    print(f"told after {time.monotonic() - began:.1f} s")
    assert old not in known(peer, mover)
    wait_until(lambda: says(peer, f"at {new}", "is up"), 60, "its peer comes back to it", bed.tails)
    print(f"peer's tunnel after {time.monotonic() - began:.1f} s")


def test_a_link_that_goes_and_comes_back(movable: tuple[Network, Node], bed: Bed) -> None:
    network, mover = movable
    mover.host.namespace.ip("link set eth0 down")
    wait_until(
        lambda: says(mover, f"no longer has the address {mover.host.address}"), 60, "the node notices", bed.tails
    )
    # What it tries meanwhile fails, ever less often.
    wait_until(lambda: says(mover, "no first peer"), 60, "it asks the registry in vain", bed.tails)
    began = time.monotonic()
    mover.host.namespace.ip("link set eth0 up")
    network.wait_connected(FORMS)
    print(f"connected after {time.monotonic() - began:.1f} s")


def test_a_cable_that_is_pulled_and_plugged_in_again(movable: tuple[Network, Node], bed: Bed) -> None:
    network, mover = movable
    mover.host.ports["eth0"].switch.ip(f"link set {mover.name} down")
    wait_until(lambda: says(mover, "no first peer"), 60, "it asks the registry in vain", bed.tails)
    began = time.monotonic()
    mover.host.ports["eth0"].switch.ip(f"link set {mover.name} up")
    network.wait_connected(FORMS)
    print(f"connected after {time.monotonic() - began:.1f} s")
