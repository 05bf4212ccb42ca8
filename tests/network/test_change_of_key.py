"""A node gets another key for its subnet while it runs: who talks with it hardly notices, the old key opens nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from re6st import cert
from re6st.keys import pki
from testbed import Bed, Network, Node, Pinger, wait_until
from testbed.network import environment, program

FORMS = 90
TAKEN = 90
"""Seconds until a node has changed over; ten at most usually, and then its tunnels one by one, the first after up to
45 s, as all are told at one time."""
LONGEST_GAP = 20.0
"""Seconds without an answer that are too many; two or three usually, as after any revocation."""
FILES = ("cert.crt", "cert.key")
OTHER_USER = 65534, 65534
"""As the service has one."""


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 3)
    network.start()
    network.wait_connected(FORMS)
    return network


def conf(node: Node, *arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = [*program("conf"), *arguments, "-d", str(directory or node.host.etc)]
    return node.host.run(words, env=environment(), check=False)


def own(node: Node) -> cert.Identity:
    trust = cert.Trust(cert.load_pem((node.host.etc / "ca.crt").read_bytes()))
    certificate, key = ((node.host.etc / name).read_bytes() for name in FILES)
    return cert.Identity(trust, cert.load_pem(certificate), cert.load_private_key(key))


def test_the_key_is_changed_while_the_node_runs(
    network: Network, bed: Bed, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    *_, other, node = network.nodes
    before, processes = own(node), set(node.pids("openvpn"))
    for name in ("ca.crt", "re6stnet.conf", *FILES):
        (tmp_path / name).write_bytes((node.host.etc / name).read_bytes())
    pinger = Pinger(other.host, node.address)
    with pinger.running():
        done = conf(node, "rekey")
        assert done.returncode == 0, done.stderr
        assert f"serial {before.cert.serial_number} is refused by the whole network from now on" in done.stdout
        wait_until(lambda: not processes & set(node.pids("openvpn")), TAKEN, "no process has the old key", bed.tails)
        network.wait_connected(TAKEN)
    record_property("pings", str(pinger))
    print(pinger)
    assert pinger.longest < LONGEST_GAP
    after = own(node)
    assert after.prefix == before.prefix
    assert not pki.same_key(after.key.public_key(), before.key.public_key())
    shown = conf(node, "show")
    assert shown.returncode == 0, shown.stdout

    # The old key: the registry does not know it, nor does anybody let it in.
    refused = conf(node, "renew", "--force", directory=tmp_path)
    assert refused.returncode != 0
    assert "a certificate of another key" in refused.stderr
    assert node.stop() == 0
    for name in FILES:
        (node.host.etc / name).write_bytes((tmp_path / name).read_bytes())
    node.start()
    end = time.monotonic() + 8
    wait_until(lambda: time.monotonic() > end, 20, "who has the old key tries for a while")
    assert not any(node in (tunnel.client, tunnel.server) for tunnel in network.tunnels())


def test_a_daemon_that_comes_after_has_its_tunnels_anew_too(network: Network, bed: Bed) -> None:
    """It goes on with tunnels that were made with the certificate of before."""
    *_, other, node = network.nodes
    processes = set(node.pids("openvpn"))
    for name in FILES:
        os.chown(node.host.etc / name, *OTHER_USER)
    pinger = Pinger(other.host, node.address)
    with pinger.running():
        assert conf(node, "rekey", "--keep-old").returncode == 0
        assert node.process is not None
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not processes & set(node.pids("openvpn")), TAKEN, "no process has the old one", bed.tails)
        network.wait_connected(TAKEN)
    print(pinger)
    assert pinger.longest < LONGEST_GAP
    for name, mode in zip(FILES, (0o644, 0o600), strict=True):
        found = (node.host.etc / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (*OTHER_USER, mode)
