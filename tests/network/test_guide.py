"""The guide, as it is written: its commands are typed on whole machines, and do what it says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed import Bed, wait_until
from testbed.guide import Reader
from testbed.machine import Machine
from testbed.namespace import BedError

PATIENCE = 60
"""Seconds; usual: 1 to 6."""
FIRST = "2001:db8:42::1"


@pytest.fixture(scope="module")
def machines(package: Path) -> Iterator[dict[str, Machine]]:
    """Each with the package, installed as the guide says, but all at the same time."""
    names = ("registry", "node", "third")
    with Bed() as bed, ExitStack() as stack:
        found = {name: stack.enter_context(Machine(bed.host(name))) for name in names}

        def install(machine: Machine) -> None:
            machine.path("/root").mkdir(exist_ok=True)
            shutil.copy(package, machine.path("/root"))
            machine.run("sh", "-c", "cd /root && apt install -y ./re6stnet_*.deb")

        with ThreadPoolExecutor() as pool:
            list(pool.map(install, found.values()))
        yield found


@pytest.fixture(scope="module")
def guide(machines: dict[str, Machine]) -> Reader:
    return Reader({"registry": machines["registry"], "node": machines["node"]})


@pytest.fixture(scope="module")
def start(guide: Reader) -> str:
    """What the five-minute start prints; the other tests go on from there."""
    return guide.read("start")


def node_line(guide: Reader, cn: str) -> str:
    """What the registry lists of a node; empty where it knows none."""
    listed = guide.machines["registry"].run("re6st-registry", "nodes")
    return next((line for line in listed.splitlines() if line.startswith(f"{cn} ")), "")


def is_well(machine: Machine) -> bool:
    return machine.try_run(["re6st-status", "check"]).returncode == 0


def reaches(machine: Machine, address: str = FIRST) -> bool:
    return machine.try_run(["ping", "-c", "1", "-W", "1", address]).returncode == 0


def test_five_minutes_to_a_ping(start: str) -> None:
    assert re.search(r"3 packets transmitted, [123] received", start)
    assert "health: ok" in start


def test_a_machine_joins_and_leaves(guide: Reader, start: str, machines: dict[str, Machine]) -> None:
    third = Reader({"registry": machines["registry"], "node": machines["third"]})
    printed = third.read("join")
    assert "Subnet   2001:db8:42:2::/64 (CN=2/16)" in printed
    assert "health: ok" in printed
    fingerprint = re.search(r"sha256 Fingerprint=([0-9A-F:]+)", printed)
    assert fingerprint
    assert fingerprint[1].replace(":", "").lower() in guide.invitation()
    assert "is refused by the whole network from now on" in printed
    wait_until(lambda: is_well(machines["third"]), PATIENCE, "it is well with its new key", guide.tails)
    third.read("operations", "Leave")
    assert machines["third"].pids("re6stnet") == {}
    assert not machines["third"].path("/etc/re6stnet/cert.key").exists()


def is_reached(guide: Reader) -> bool:
    """Whether what is done about a machine that is not reached finds it within reach."""
    try:
        return "reached in 1 hop" in guide.read("troubleshooting", "One machine is not reached")
    except BedError:
        return False


def is_found_well(guide: Reader) -> bool:
    """Whether the first commands of who looks for trouble find none."""
    try:
        guide.read("troubleshooting", "Troubleshooting")
    except BedError:
        return False
    return True


def test_operations(guide: Reader, start: str) -> None:
    """Each section does what its text says; the one that throws the node out comes last."""
    registry, node = guide.machines["registry"], guide.machines["node"]
    wait_until(lambda: is_well(node), PATIENCE, "the node is well", guide.tails)
    assert "RE6ST OK" in guide.read("operations", "What to watch")
    guide.read("operations", "Logs and their level")

    guide.read("operations", "Backup and restore")
    wait_until(lambda: node_line(guide, "1/16"), PATIENCE, "the registry is back, and knows the node", guide.tails)
    assert "phase 1" in guide.read("operations", "Change babel's key")
    assert "1/16" in guide.read("operations", "Certificates of nodes")

    before = registry.path("/etc/re6stnet/ca.crt").read_text()
    guide.read("operations", "A new certificate for the CA")
    assert registry.path("/etc/re6stnet/ca.crt").read_text() != before
    wait_until(
        lambda: "serving a new CA certificate" in registry.journal("re6st-registry"), PATIENCE, "its log", guide.tails
    )

    tunnels = {pid for pid, name in node.pids("re6stnet").items() if name == "openvpn"}
    guide.read("operations", "Upgrade")
    wait_until(lambda: is_well(node), PATIENCE, "the next daemon is well", guide.tails)
    assert tunnels & set(node.pids("re6stnet")), "tunnels are not cut"

    # The only tunnel is made anew some time after the upgrade, since the certificate of the CA is another one: for that
    # moment, netcheck finds that no other node can be reached.
    wait_until(lambda: is_found_well(guide), PATIENCE, "nothing is found that is wrong", guide.tails)
    wait_until(lambda: is_reached(guide), PATIENCE, "the other machine is reached", guide.tails)
    guide.read("troubleshooting", "Ask for help")
    guide.read("migration", "A node")
    # The older software has its database in the directory of the node.
    registry.run("cp", "-a", "/var/lib/re6st-registry/registry.db", "/var/lib/re6stnet/registry.db")
    guide.read("migration", "The registry")
    registry.run("rm", "/var/lib/re6stnet/registry.db")

    assert "(CN=1/16), as before" in guide.read("operations", "A key that was copied")
    wait_until(lambda: is_well(node) and reaches(node), PATIENCE, "the node is back with its new key", guide.tails)
    assert "stolen" in guide.read("operations", "Throw a machine out")
    assert not node_line(guide, "1/16")
    wait_until(lambda: not reaches(node), PATIENCE, "the node that was thrown out reaches nobody", guide.tails)


def test_a_network_with_options(machines: dict[str, Machine]) -> None:
    """The long way, on a machine that has left another network."""
    other = machines["node"]
    other.run("systemctl", "disable", "--now", "re6stnet")
    other.run("sh", "-c", "rm -rf /etc/re6stnet/* /var/lib/re6stnet/*")
    printed = Reader({"registry": other}).read("network")
    assert "the configuration is good" in printed
    assert re.search(r"^0/16 .* 2001:db8:42::/64 +2001:db8:42::1 ", printed, re.M)
    with pytest.raises(BedError, match="exists already"):
        Reader({"registry": other}).read("network", "Choose the network")
