"""What a node is given that is wrong: one line for the user, or another try, and nothing left."""

from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path

import pytest

from testbed import Bed, Host, Network, Node, wait_until

FORMS = 90


@pytest.fixture
def network(bed: Bed) -> Network:
    """A registry and two enrolled nodes, not started."""
    network = Network(bed, 2)
    network.create()
    network.enrol()
    return network


def refuses(node: Node, *options: str, naming: str) -> None:
    """The node ends with one line that names the cause, and leaves nothing."""
    done = node.run(*options)
    assert done.returncode > 0
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("re6stnet: ")
    assert naming in done.stderr
    logs = node.host.bed.tails(1000)
    assert "Traceback" not in logs, logs
    assert not [trace for trace in node.traces() if not trace.startswith("process")]
    assert not node.pids("openvpn")
    assert not node.pids("babeld")


def check_finds(node: Node, *options: str, naming: str) -> None:
    """--check says the same, before anything is tried."""
    done = node.run("--check", *options)
    assert done.returncode == 78, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("re6stnet: ") and naming in line], done.stderr
    assert "configuration is good" not in done.stdout


def mounting(script: str) -> list[str]:
    """What to put before a command line so that it sees other files in some places than the rest of the machine."""
    return ["unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh"]


def installed(name: str) -> str:
    path = shutil.which(name)
    assert path
    return os.path.realpath(path)


def says(node: Node, *words: str) -> bool:
    """Whether a line of the node's log has these words."""
    log = node.host.log / "re6stnet.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return any(all(word in line for word in words) for line in lines)


# --- the machine is not as it should be ---


@pytest.mark.parametrize("name", ["openvpn", "babeld"])
def test_program_is_missing(network: Network, name: str) -> None:
    node = network.nodes[1]
    node.wrapper = mounting(f"mount --bind /dev/null {installed(name)}")
    refuses(node, naming=name)
    check_finds(node, naming=name)


def test_state_directory_cannot_be_made(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    refuses(network.nodes[1], "--state", str(file / "state"), naming=str(file / "state"))
    check_finds(network.nodes[1], "--state", str(file / "state"), naming=str(file / "state"))


def test_no_certificate(network: Network) -> None:
    node = network.nodes[1]
    (node.host.etc / "cert.crt").unlink()
    refuses(node, naming="cert.crt")
    check_finds(node, naming="cert.crt")


def test_control_port_in_use(network: Network) -> None:
    node = network.nodes[1]
    other = node.host.namespace.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    with other:
        other.bind(("::", 326))
        refuses(node, naming="326")


def test_no_tun_device(network: Network) -> None:
    node = network.nodes[1]
    node.wrapper = mounting("mount -t tmpfs none /dev/net")
    refuses(node, naming="module tun")


def test_babeld_that_dies_at_start_is_tried_again(network: Network, bed: Bed) -> None:
    first, second = network.nodes
    first.start()
    real, broken = second.host.directory / "real/babeld", second.host.directory / "babeld"
    real.parent.mkdir()
    shutil.copy(installed("babeld"), real)
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    second.wrapper = mounting(f"mount --bind {broken} {installed('babeld')}")
    second.start()
    wait_until(lambda: says(second, "babeld ended"), 30, "the log tells that babeld ended", bed.tails)
    broken.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    network.wait_connected(FORMS)


def test_server_port_in_use_is_tried_again(network: Network, bed: Bed) -> None:
    first, second = network.nodes
    with first.host.namespace.call(lambda: socket.create_server(("", 1194))):
        first.start()
        second.start()
        wait_until(lambda: says(first, "re6stnet-tcp"), 30, "the log tells that the server ended", bed.tails)
        assert first.process is not None
        assert first.process.poll() is None
    # With only one of the two serving, a tunnel exists already, or comes now.
    network.wait_connected(FORMS)


# --- what comes from outside ---


def flood(source: Host, address: str, count: int) -> None:
    """Random datagrams to the control port."""
    chance = random.Random(42)
    own = source.namespace.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    with own:
        for _ in range(count):
            own.sendto(chance.randbytes(chance.randrange(0, 1400)), (address, 326))


def test_random_datagrams_do_no_harm(network: Network, bed: Bed) -> None:
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    first, second = network.nodes
    log = first.host.log / "re6stnet.log"
    before = len(log.read_bytes().splitlines())
    assert first.host.ipv6
    flood(bed.host("stranger"), first.host.ipv6, 2000)
    flood(second.host, str(first.subnet.network_address), 2000)
    network.wait_connected(FORMS)
    assert first.process is not None
    assert first.process.poll() is None
    assert len(log.read_bytes().splitlines()) - before < 50
    assert "Traceback" not in bed.tails(1000)
