"""Nodes of other roles: with one given tunnel (--client), without tunnels of their own, with few or no clients."""

from __future__ import annotations

import re
import time
from pathlib import Path

from re6st import cert
from testbed import Bed, Network, Node, wait_until
from testbed.network import Tunnel

FORMS = HEALS = 90
"""Seconds a network may take to form and to heal: far more than it takes."""

KEPT_BY_OPENVPN = 60.0


def says(node: Node, *words: str) -> bool:
    """Whether a line of the node's log has these words."""
    log = node.host.log / "re6stnet.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return any(all(word in line for word in words) for line in lines)


def met(one: Node, other: Node) -> int:
    """How often a tunnel between two nodes came up, by their logs."""
    pairs = ((one, other), (other, one))
    logs = [((a.host.log / "re6stnet.log").read_text(errors="replace"), b.prefix.cn) for a, b in pairs]
    return sum(len(re.findall(rf"tunnel to {name} at \S+ is up", text)) for text, name in logs)


def serial(node: Node) -> int:
    return cert.load_pem((node.host.etc / "cert.crt").read_bytes()).serial_number


# --- --client ---


def with_client(bed: Bed, servers: int, remotes: str, *options: str) -> tuple[Network, Node]:
    """A network, and a node more that has one tunnel to these; HOST1, HOST2 ... are the others' addresses."""
    network = Network(bed, servers + 1, registry_options=["--hello", "2", *options])
    *members, client = network.nodes
    for number, node in enumerate(members, 1):
        node.options += ["--disable-proto", "none", "--pp", "1194", "tcp", "--pp", "1194", "udp"]
        remotes = remotes.replace(f"HOST{number}", node.host.address)
    client.options = ["--client", remotes]
    network.start()
    return network, client


def server_of(network: Network, client: Node) -> Node:
    """Where its tunnel leads to: a moment later if babeld has just been started anew, as after a move."""

    def found() -> list[Node]:
        return [tunnel.server for tunnel in network.tunnels() if tunnel.client is client]

    wait_until(lambda: len(found()) == 1, 30, "one tunnel", network.bed.tails)
    return found()[0]


def test_a_node_of_one_tunnel_goes_to_the_next_server_when_one_dies(bed: Bed) -> None:
    network, client = with_client(bed, 2, "192.0.2.9,1194,udp;HOST1,1194,tcp;HOST2,1194,udp")
    network.wait_connected(FORMS)
    first, second = network.nodes[:2]
    assert "re6stnet" in client.host.interfaces()
    assert not [name for name in client.host.interfaces() if name.startswith("re6stnet-")], "no server"
    used = server_of(network, client)
    other = second if used is first else first
    used.kill()
    for name in ("openvpn", "babeld"):
        used.signal(name)
    network.wait_connected(HEALS, [other, client])
    assert server_of(network, client) is other
    assert client.stop() == 0
    assert client.traces() == []


def test_a_server_is_found_by_name_and_a_silent_one_is_left(bed: Bed) -> None:
    network = Network(bed, 3, registry_options=["--hello", "2"])
    first, second, client = network.nodes
    hosts = client.host.etc / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{first.host.address} server.example.org\n")
    client.wrapper = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
    client.options = ["--client", f"server.example.org,1194,tcp;{second.host.address},1194,tcp4"]
    network.start()
    network.wait_connected(FORMS)
    used = server_of(network, client)
    other = second if used is first else first
    client.host.lose(used.host)
    network.wait_connected(HEALS, [other, client])
    assert server_of(network, client) is other


def test_a_node_of_one_tunnel_follows_the_network(bed: Bed) -> None:
    """Parameters change, its certificate is due, its server is revoked: it goes on."""
    network, client = with_client(bed, 2, "HOST1,1194,tcp;HOST2,1194,tcp")
    network.wait_connected(FORMS)
    old = serial(client)
    assert network.stop_registry() == 0
    network.registry_options += ["--encrypt"]
    network.start_registry()

    def encrypted() -> bool:
        commands = [words for words in client.host.processes().values() if Path(words[0]).name == "openvpn"]
        return bool(commands) and not any("none" in words for words in commands)

    wait_until(encrypted, HEALS, "the tunnel is encrypted", bed.tails)
    network.wait_connected(HEALS)
    network.call("revoke", f"cn_or_serial={old}")
    wait_until(lambda: serial(client) != old, HEALS, "it renewed its certificate", bed.tails)
    network.wait_connected(HEALS)


# --- nodes without tunnels of their own, with few clients, with none ---


def test_a_node_that_opens_no_tunnel_is_reached_by_the_others(bed: Bed) -> None:
    network = Network(bed, 3)
    passive = network.nodes[0]  # the registry names it to newcomers
    passive.options += ["--client-count", "0"]
    network.start()
    network.wait_connected(FORMS)
    assert not [name for name in passive.host.interfaces() if name.removeprefix("re6stnet").isdigit()]
    assert {tunnel.server for tunnel in network.tunnels()} >= {passive}


def test_a_full_server_is_left_alone_and_one_without_server_asks_for_none(bed: Bed) -> None:
    network = Network(bed, 5)
    full, closed = network.nodes[0], network.nodes[-1]
    full.options += ["--max-clients", "1"]
    closed.options += ["--max-clients", "0"]
    network.create()
    network.enrol()
    for node in network.nodes[:-1]:
        node.start()
    network.wait_connected(FORMS, network.nodes[:-1])
    closed.start()  # with the only place at the full one, it would keep all others out
    network.wait_connected(FORMS)
    tunnels = network.tunnels()
    assert len([tunnel for tunnel in tunnels if tunnel.server is full]) <= 1
    assert not [tunnel for tunnel in tunnels if tunnel.server is closed]
    assert not [name for name in closed.host.interfaces() if name.startswith("re6stnet-")]


def test_a_full_server_gives_a_newcomer_the_place_of_a_machine_that_is_gone(bed: Bed) -> None:
    """OpenVPN would keep it for a minute. Nothing but babel's hellos went to it. The other client stays."""
    network = Network(bed, 4)
    full, gone, stays, newcomer = network.nodes
    full.options += ["--max-clients", "2"]
    for node in (gone, stays, newcomer):
        node.options += ["--max-clients", "0"]
    network.create()
    network.enrol()
    for node in (full, gone, stays):
        node.start()
    network.wait_connected(FORMS, [full, gone, stays])
    gone.host.cut()
    newcomer.start()
    began = time.monotonic()
    network.wait_connected(HEALS, [full, stays, newcomer])
    print(f"it was in after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < KEPT_BY_OPENVPN / 2
    assert says(full, f"{gone.prefix} loses its place to {newcomer.prefix}")
    assert met(stays, full) == 1


def test_a_wanted_neighbour_is_kept(bed: Bed) -> None:
    """A tunnel to it replaces another one at once, lives through every replacement, and comes back when it is lost."""
    network = Network(bed, 7, registry_options=["--tunnel-refresh", "5", "--hello", "2", "--client-count", "2"])
    network.create()
    network.enrol()
    *others, one, wanted = network.nodes
    one.options += ["--neighbour", wanted.prefix.cn]
    for node in (*others, one):
        node.start()
    network.wait_connected(FORMS, (*others, one))
    wanted.start()

    def near() -> bool:
        return bool({Tunnel(one, wanted), Tunnel(wanted, one)} & network.tunnels())

    wait_until(near, HEALS, "a tunnel to the wanted neighbour", bed.tails)
    wait_until(lambda: says(one, "closing the tunnel", "replaced"), HEALS, "another tunnel is replaced", bed.tails)
    wait_until(near, HEALS, "it is still there, or again", bed.tails)
    before = met(one, wanted)
    one.signal("openvpn")
    wait_until(lambda: met(one, wanted) > before and near(), HEALS, "it is there again", bed.tails)
