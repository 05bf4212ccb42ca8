"""A registry at two URLs, of which one is dead: machines join, renew, and learn new parameters all the same.

The two URLs are two addresses of one registry, and a firewall makes one of them dead: it refuses, or is silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from re6st import cert
from testbed import Bed, Network, Node, wait_until
from testbed.control import ask
from testbed.network import run_command

FORMS = 90
SECOND = "10.0.9.9"
PATIENCE = 10.0
"""Seconds that a dead registry may cost who joins; usually it is one, if it is silent."""


def log(node: Node) -> str:
    file = node.host.log / "re6stnet.log"
    return file.read_text() if file.exists() else ""


def told(node: Node) -> Any:
    """What the node says of its registries."""
    return ask(node.host.run_directory / "control.sock", "status")["registry"]


class TwoAddresses:
    """One registry that is reached by two addresses."""

    def __init__(self, bed: Bed) -> None:
        self.network = Network(bed, 3, registry_options=["--hello", "2"])
        self.host = self.network.registry_host
        self.first, self.second = self.network.url, f"http://{SECOND}/"
        self.host.namespace.ip(f"address add {SECOND}/16 dev eth0")

    def close(self, address: str, how: str) -> None:
        """Make one address dead: `drop` or `reject`. The other one works again."""
        rules = "add table ip closed; delete table ip closed; add table ip closed;"
        rules += " add chain ip closed in { type filter hook input priority 0; };"
        self.host.run(["nft", f"{rules} add rule ip closed in ip daddr {address} tcp dport 80 {how}"])

    def enrol(self, node: Node) -> float:
        """Join by both URLs; returns the seconds that it takes."""
        began = time.monotonic()
        node.enrol(self.second, self.network.fingerprint, "--registry", self.first, "--anonymous")
        return time.monotonic() - began


@pytest.fixture
def both(bed: Bed) -> TwoAddresses:
    return TwoAddresses(bed)


@pytest.mark.parametrize("how", ["reject with tcp reset", "drop"])
def test_one_of_two_registries_is_dead(
    both: TwoAddresses, bed: Bed, how: str, record_property: Callable[[str, object], None]
) -> None:
    network, (first, second, third) = both.network, both.network.nodes
    network.create()
    usual = both.enrol(first)
    both.close(SECOND, how)
    took = both.enrol(second)
    record_property("seconds to join, both alive and one dead", (round(usual, 2), round(took, 2)))
    assert took < usual + PATIENCE
    both.enrol(third)
    assert [line for line in (third.host.etc / "re6stnet.conf").read_text().splitlines() if "registry" in line] == [
        f"registry {both.second}",
        f"registry {both.first}",
    ]

    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    run_command(third.host, ["conf", "renew", "--force", "--dir", str(third.host.etc)])
    for node in network.nodes:
        registry = told(node)
        assert registry["url"] == both.first.rstrip("/")
        dead, used = registry["all"]
        assert (dead["works"], used["works"], used["used"]) == (False, True, True)
        assert "connect" in dead["error"]
        assert log(node).count(f"registry {both.second.rstrip('/')}: ") == 1, "that is said once"

    # The registry dies at the address in use, and comes back at the other one.
    assert network.stop_registry() == 0
    both.close(str(both.host.address), how)
    network.registry_options += ["--tunnel-refresh", "200"]
    network.start_registry()
    for node in network.nodes:
        wait_until(lambda: "parameters 2 are in force" in log(node), FORMS, f"{node} hears of it", bed.tails)  # noqa: B023
        assert told(node)["url"] == both.second.rstrip("/")
        assert "Traceback" not in log(node)
    before = cert.load_pem((second.host.etc / "cert.crt").read_bytes())
    run_command(second.host, ["conf", "rekey", "--dir", str(second.host.etc)])
    after = cert.load_pem((second.host.etc / "cert.crt").read_bytes())
    assert after.serial_number > before.serial_number
    network.wait_connected(FORMS)


def test_nodes_learn_of_another_registry_and_ask_it_when_theirs_is_dead(both: TwoAddresses, bed: Bed) -> None:
    network = both.network
    network.registry_options += ["--registries", both.first, both.second]
    network.start()
    network.wait_connected(FORMS)
    for node in network.nodes:
        own, learned = told(node)["all"]
        assert (own["url"], own["learned"], own["used"]) == (both.first.rstrip("/"), False, True)
        assert (learned["url"], learned["learned"], learned["used"]) == (both.second.rstrip("/"), True, False)

    assert network.stop_registry() == 0
    both.close(str(both.host.address), "reject with tcp reset")
    network.registry_options += ["--tunnel-refresh", "200"]
    network.start_registry()
    for node in network.nodes:
        wait_until(lambda: "parameters 2 are in force" in log(node), FORMS, f"{node} hears of it", bed.tails)  # noqa: B023
        assert told(node)["url"] == both.second.rstrip("/")

    # A node remembers the list when it starts, and forgets what is taken off it.
    node = network.nodes[2]
    assert node.stop() == 0
    node.start()
    network.wait_connected(FORMS)
    assert len(told(node)["all"]) == 2
    both.close(SECOND, "reject with tcp reset")
    assert network.stop_registry() == 0
    network.registry_options[-5:] = ["--tunnel-refresh", "300"]
    network.start_registry()
    for node in network.nodes:
        wait_until(lambda: "parameters 3 are in force" in log(node), FORMS, f"{node} hears of it", bed.tails)  # noqa: B023
        assert [each["url"] for each in told(node)["all"]] == [both.first.rstrip("/")]
