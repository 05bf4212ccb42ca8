"""Revocation reaches every node: the one that is revoked is cut off within seconds, the others go on."""

from __future__ import annotations

import time

import pytest

from re6st import cert
from testbed import Bed, Network, Node, wait_until
from testbed.network import Tunnel, environment, program

FORMS = 90
CUT = 30
"""Seconds until nobody has anything to do with a revoked node; two to four usually."""


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 4)
    network.start()
    network.wait_connected(FORMS)
    return network


def tunnels_with(network: Network, node: Node) -> int:
    return sum(node in (tunnel.client, tunnel.server) for tunnel in network.tunnels())


def serial(node: Node) -> int:
    return cert.load_pem((node.host.etc / "cert.crt").read_bytes()).serial_number


def test_a_node_revoked_by_its_name_is_cut_off_and_the_others_go_on(network: Network, bed: Bed) -> None:
    *members, revoked = network.nodes
    assert tunnels_with(network, revoked)
    servers = {node: node.pids("openvpn") for node in members}
    babelds = {node: node.pids("babeld") for node in members}
    start = time.monotonic()
    network.call("revoke", f"cn_or_serial={revoked.prefix.cn}")

    def cut_off() -> bool:
        silent = all(rtt is None for pair, rtt in network.pings(timeout=0.3).items() if revoked in pair)
        return silent and not tunnels_with(network, revoked)

    wait_until(cut_off, CUT, "nobody has a tunnel to the revoked node, nor reaches it", bed.tails)
    print(f"cut off after {time.monotonic() - start:.1f} s")
    network.wait_connected(FORMS, members)
    assert {node: node.pids("babeld") for node in members} == babelds, "no babeld was restarted"
    for node in members:
        assert set(node.pids("openvpn")) & set(servers[node]), "nor every tunnel"

    # Nor does it come back, under its old certificate.
    revoked.stop()
    revoked.start()
    end = time.monotonic() + 8
    wait_until(lambda: time.monotonic() > end, 20, "the revoked node tries for a while")
    assert cut_off()


def test_a_node_revoked_by_serial_renews_and_is_back(network: Network, bed: Bed) -> None:
    *members, revoked = network.nodes
    old = serial(revoked)
    network.call("revoke", f"cn_or_serial={old}")
    wait_until(lambda: serial(revoked) != old, CUT, "it has a certificate with another serial", bed.tails)
    network.wait_connected(FORMS)

    def all_know() -> bool:
        return all((node.host.run_directory / "revoked" / str(old)).exists() for node in members)

    wait_until(all_know, CUT, "all others know that the old one is revoked", bed.tails)


def test_a_registry_restored_from_an_older_copy_learns_what_was_revoked_and_issued_since(bed: Bed) -> None:
    network = Network(bed, 4)
    first, revoked, *later = network.nodes
    network.create()
    for node in (first, revoked):
        node.enrol(network.url, network.fingerprint)
    database, copy = (network.registry_directory / name for name in ("registry.db", "copy.db"))
    words = ["backup", "--db", str(database), "--config", "re6st-registry.conf", str(copy)]
    network.registry_host.run([*program("registry"), *words], env=environment(), cwd=network.registry_directory)
    for node in later:
        node.enrol(network.url, network.fingerprint)
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    network.call("revoke", f"cn_or_serial={revoked.prefix.cn}")
    members = [first, *later]

    def cut_off() -> bool:
        return not tunnels_with(network, revoked)

    wait_until(cut_off, CUT, "it is cut off", bed.tails)
    network.stop_registry()
    for path in (database.with_name("registry.db-wal"), database.with_name("registry.db-shm")):
        path.unlink(missing_ok=True)
    copy.replace(database)
    network.start_registry()

    def known() -> bool:
        log = (network.registry_host.log / "registry.log").read_text()
        again = [line for line in log.splitlines() if "is known again: " in line]
        has_all = all(any(line.endswith(f" of {node.prefix}") for line in again) for node in later)
        return "1 revocations were taken" in log and has_all

    wait_until(known, 60, "revocation and certificates are known again", bed.tails)
    revoked.stop()
    revoked.start()
    newcomer = Node(bed.host("newcomer"), ["--ip", "any"])
    newcomer.enrol(network.url, network.fingerprint)
    assert newcomer.prefix not in {node.prefix for node in network.nodes}
    newcomer.start()
    network.nodes.append(newcomer)
    network.wait_connected(FORMS, [*members, newcomer])
    assert cut_off()


@pytest.mark.parametrize("role", ["client", "server"])
def test_it_is_cut_off_in_either_role(bed: Bed, role: str) -> None:
    network = Network(bed, 3)
    *members, revoked = network.nodes
    # A node without servers is never dialled.
    (revoked if role == "client" else members[1]).options += ["--max-clients", "0"]
    network.start()
    network.wait_connected(FORMS)
    wanted = Tunnel(revoked, members[1]) if role == "client" else Tunnel(members[1], revoked)
    wait_until(lambda: wanted in network.tunnels(), FORMS, f"it is a {role}", bed.tails)
    network.call("revoke", f"cn_or_serial={revoked.prefix.cn}")
    wait_until(lambda: not tunnels_with(network, revoked), CUT, "nobody has a tunnel to it", bed.tails)
    network.wait_connected(FORMS, members)

    # It says so itself, and neither ends nor fills its log.
    def said() -> bool:
        return "revoked" in (revoked.host.log / "re6stnet.log").read_text()

    wait_until(said, CUT, "its log says that it is revoked", bed.tails)
    size = len((revoked.host.log / "re6stnet.log").read_text().splitlines())
    end = time.monotonic() + 10
    wait_until(lambda: time.monotonic() > end, 20, "time passes")
    assert len((revoked.host.log / "re6stnet.log").read_text().splitlines()) - size < 30
    assert revoked.process is not None
    assert revoked.process.poll() is None


def test_who_was_not_cut_off_is_refused_at_the_next_key(bed: Bed) -> None:
    """OpenVPN looks itself, too: at each new key, and at each new tunnel."""
    # The old key would do for an hour (--tran-window).
    words = ["--reneg-sec", "5", "--tran-window", "2"]
    network = Network(bed, 2, node_options=[f"-O{word}" for word in words])
    network.start()
    network.wait_connected(FORMS)
    one, other = network.nodes
    for node, peer in ((one, other), (other, one)):
        (node.host.run_directory / "revoked" / str(serial(peer))).touch()
    wait_until(lambda: not tunnels_with(network, one), FORMS, "the tunnel ends", bed.tails)
    end = time.monotonic() + 5
    wait_until(lambda: time.monotonic() > end, 20, "new ones are tried")
    assert not tunnels_with(network, one)
