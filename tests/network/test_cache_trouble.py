"""A node's memory is damaged, not writable, or of another network: it starts afresh, with a warning."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from testbed import Bed, Network, Node, wait_until

FORMS = 90


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 2)
    network.start()
    network.wait_connected(FORMS)
    return network


def log(node: Node) -> str:
    return (node.host.log / "re6stnet.log").read_text()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\0garbage" * 1000)


def other_schema(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE peer (who TEXT, where_ TEXT)")
    db.close()


def bad_parameters(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE config SET value = 'many' WHERE name = 'client_count'")
    db.close()


@pytest.mark.parametrize("damage", [cut, garbage, other_schema, bad_parameters])
def test_a_damaged_memory_is_set_aside(network: Network, damage: Callable[[Path], None]) -> None:
    node = network.nodes[1]
    assert node.stop() == 0
    for leftover in node.host.state.glob("cache.db-*"):
        leftover.unlink()
    damage(node.host.state / "cache.db")
    before = len(log(node))
    node.start()
    network.wait_connected(FORMS)
    said = [line for line in log(node)[before:].splitlines() if "cache.db" in line]
    assert len(said) == 1, said
    assert "damaged" in said[0]
    if damage is not bad_parameters:
        assert (node.host.state / "cache.bak").exists()


def test_a_memory_of_another_network_is_not_believed(network: Network, bed: Bed) -> None:
    other = Network(bed, hosts=[bed.host("other")], network=IPv6Network("2001:db8:43::/48"))
    other.start()
    stranger = other.nodes[0]
    wait_until(lambda: stranger.pids("babeld"), FORMS, "it has its parameters", bed.tails)
    assert stranger.stop() == 0
    node = network.nodes[1]
    assert node.stop() == 0
    memory = (stranger.host.state / "cache.db").read_bytes()
    (node.host.state / "cache.db").write_bytes(memory)
    before = len(log(node))
    node.start()
    network.wait_connected(FORMS)
    assert log(node)[before:].count("not of this network") == 1


def test_a_full_disk_costs_the_memory_not_the_node(network: Network) -> None:
    node = network.nodes[1]
    assert node.stop() == 0
    state = node.host.state
    node.wrapper = [
        *("unshare", "--mount", "sh", "-c"),
        f"mount -t tmpfs -o size=128k none {state} && dd if=/dev/zero of={state}/full bs=1k count=92 2>/dev/null; "
        'exec "$@"',
        "sh",
    ]
    node.start()
    network.wait_connected(FORMS)
    assert "cache.db" in log(node)
    assert "Traceback" not in log(node)


def test_a_state_directory_that_may_only_be_read(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    assert node.stop() == 0
    # The first line makes the directory a mount, which the second makes read-only for this program alone.
    script = (
        f'mount --bind {node.host.state} {node.host.state} && mount -o remount,bind,ro {node.host.state} && exec "$@"'
    )
    node.wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"]
    before = len(log(node))
    node.start()
    network.wait_connected(FORMS)
    said = [line for line in log(node)[before:].splitlines() if "cache.db" in line]
    assert len(said) == 1, said
    assert "nothing new is remembered" in said[0]
    assert "Traceback" not in log(node)
    assert node.stop() == 0
