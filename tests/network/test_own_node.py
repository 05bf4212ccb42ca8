"""The registry's own node: a network that has lost it is given another one; and a node that was revoked says so."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from re6st.core.prefix import Prefix
from re6st.registryd.sqlite.ledger import Ledger
from re6st.registryd.sqlite.store import Store
from testbed import Bed, Network, Node, wait_until
from testbed.network import environment, program

FORMS = 90
NEWS = 120
"""Seconds until whoever lost the way to the registry has asked it, and told the others."""


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 3)
    network.start()
    network.wait_connected(FORMS)
    return network


def status(node: Node) -> Any:
    argv = [*program("status"), "--control", str(node.host.run_directory / "control.sock"), "--json"]
    return json.loads(node.host.run(argv, env=environment(), check=False).stdout)


def evict(network: Network, prefix: Prefix) -> None:
    """Revoke a node as versions before 1.0.0rc1 did it, the registry's own as any other."""

    def job(ledger: Ledger) -> None:
        ledger.evict(prefix, 0.0)

    async def main() -> None:
        store = Store(network.registry_directory / "registry.db", network.nodes[0].network)
        await store.change(job)
        store.close()

    asyncio.run(main())


def test_a_registry_that_lost_its_node_gets_another_one_and_all_hear_of_it(network: Network, bed: Bed) -> None:
    first, second, third = network.nodes
    lost = first.prefix
    network.stop_registry()
    first.stop()
    evict(network, lost)
    network.start_registry()
    first.enrol(network.url, network.fingerprint)
    assert first.prefix != lost
    first.start()
    words = ["own-node", first.prefix.cn, "--db", "registry.db", "--json", "--config", "re6st-registry.conf"]
    done = network.registry_host.run([*program("registry"), *words], env=environment(), cwd=network.registry_directory)
    assert json.loads(done.stdout)["before"] == lost.cn

    def know() -> bool:
        # One that has just started does not answer yet.
        told = [status(node).get("registry", {}) for node in network.nodes]
        return all(registry.get("cn") == first.prefix.cn for registry in told)

    wait_until(know, NEWS, "all nodes know the registry's other node", bed.tails)
    network.wait_connected(FORMS)
    # And news reach the network again.
    network.call("revoke", f"cn_or_serial={third.prefix.cn}")
    wait_until(
        lambda: all(rtt is None for pair, rtt in network.pings(timeout=0.3).items() if third in pair),
        NEWS,
        "a revoked node is cut off",
        bed.tails,
    )
    network.wait_connected(FORMS, [first, second])


def test_a_revoked_node_says_that_it_was_revoked(network: Network, bed: Bed) -> None:
    *_, revoked = network.nodes
    network.call("revoke", f"cn_or_serial={revoked.prefix.cn}")

    def says_so() -> bool:
        problems = [problem["text"] for problem in status(revoked)["health"]["problems"]]
        return any("this node was revoked" in text for text in problems)

    wait_until(says_so, NEWS, "its status says so", bed.tails)
    argv = [*program("status"), "--control", str(revoked.host.run_directory / "control.sock"), "netcheck"]
    found = revoked.host.run(argv, env=environment(), check=False, timeout=60)
    assert found.returncode == 1
    assert "this node was revoked" in " ".join(found.stdout.split())
    assert "at the firewall" not in found.stdout
