"""One network of both kinds of nodes, ours and those of the deployed software, under either registry.

An operator replaces one machine at a time, so everything that nodes do with each other has to work between the kinds.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from re6st.core.wire.datagrams import Code, parse_addresses
from re6st.core.wire.params import version_number
from re6st.registryd.local_node import LocalNode
from testbed import Bed, Node, wait_until
from testbed.links import WITH_WIREGUARD, tunnels
from testbed.reference import MixedNetwork, ReferenceNode

T = TypeVar("T")

FORMS = 300
"""Seconds a network may take to form, or to recover, at the deployed software's pace: 20 to 50 usually, and a minute
more each time that it ends."""
OPTIONS = ["--hello", "2", "--client-count", "3"]
"""The deployed software's pace is that of the hellos."""


class Clock:
    """Says how long each step took, for the record of the test."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._record(what, f"{time.monotonic() - start:.1f} s")
        print(f"{what}: {time.monotonic() - start:.1f} s")


@pytest.fixture
def clock(record_property: Callable[[str, object], None]) -> Clock:
    return Clock(record_property)


def pairs(network: MixedNetwork) -> list[tuple[Node, Node]]:
    """A node of one kind and one of the other, both ways."""
    both = [(new, old) for new in network.new for old in network.old]
    return both + [(old, new) for new, old in both]


def opened(network: MixedNetwork) -> set[tuple[bool, bool]]:
    """Which kinds opened tunnels to which; True stands for the deployed software."""
    return {
        (isinstance(tunnel.client, ReferenceNode), isinstance(tunnel.server, ReferenceNode))
        for tunnel in network.tunnels()
    }


def ask(node: Node, peer: Node, code: Code) -> bytes:
    """What a registry on this node's host is told about a peer (wire.md 7); empty if there was no answer."""

    async def run() -> bytes | None:
        local = LocalNode(node.network, node.host.run_directory / "babeld.ctl")
        try:
            return await local.ask(peer.prefix, code)
        finally:
            local.close()

    return node.host.namespace.call(lambda: asyncio.run(run())) or b""


def remembered(node: Node, name: str) -> Any:
    """A network parameter, as the node has it; None while it has none."""
    path = node.host.state / "cache.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
            found = database.execute("SELECT value FROM config WHERE name = ?", (name,)).fetchone()
    except sqlite3.OperationalError:  # there is no database yet
        return None
    return found and found[0]


def version(node: Node) -> int:
    return version_number(remembered(node, "version") or b"\0")


def wait(network: MixedNetwork, condition: Callable[[], T], what: str, context: Callable[[], str] = str) -> T:
    """Wait for a condition, while nodes of the deployed software that fail are started again."""

    def holds() -> T:
        network.check_alive()
        return condition()

    return wait_until(holds, FORMS, what, lambda: f"{context()}\n{network.bed.tails()}")


def wait_all(network: MixedNetwork, holds: Callable[[Node], bool], what: str) -> None:
    """Wait until something holds for every node."""
    late: list[Node] = []

    def all_of_them() -> bool:
        late[:] = [node for node in network.nodes if not holds(node)]
        return not late

    wait(network, all_of_them, what, lambda: f"not {late}")


def start(network: MixedNetwork, clock: Clock) -> None:
    network.start()
    with clock("formed"):
        network.wait_connected(FORMS)


def everybody_is_known_to_the_registry(network: MixedNetwork) -> None:
    """Also shows that it reads the routes of its node, and reaches the others through it."""
    found: dict[str, str | None] = {}

    def complete() -> bool:
        found.clear()
        found.update(json.loads(network.call("versions")))
        return set(found) == {node.prefix.bits for node in network.nodes} and all(found.values())

    wait(network, complete, "the registry knows everybody's version", lambda: str(found))
    wait(
        network,
        lambda: set(json.loads(network.call("topology"))[""]) == {node.prefix.cn for node in network.nodes},
        "everybody tells the registry about their tunnels",
    )


def test_both_kinds_are_one_network(bed: Bed, reference: Path, clock: Clock) -> None:
    network = MixedNetwork(bed, reference, 5, {1, 3}, registry_options=OPTIONS)
    start(network, clock)
    with clock("each kind opened tunnels to the other"):
        both = {(False, True), (True, False)}
        wait(network, lambda: both <= opened(network), "each kind opens tunnels to the other")
    with clock("everybody known to the registry"):
        everybody_is_known_to_the_registry(network)

    # Sessions over port 326, started by either side.
    for asking, asked in pairs(network):
        for code in (Code.ADDRESS, Code.SOFTWARE):
            question = partial(ask, asking, asked, code)
            answer = wait(network, question, f"{asking} learns about {asked}: {code.name}")
            if code is Code.ADDRESS:
                assert asked.host.address in {endpoint.host for endpoint in parse_addresses(answer.decode())}
    # Nobody's hellos are shorter than those of the older nodes: with them babeld would keep those out.
    for node in network.new:
        assert "hello-interval 2 " in (node.host.run_directory / "babeld.conf").read_text()

    # A node of the older kind asks whether it may close its tunnel to one of ours (wire.md 10.7): our routes leave it
    # first. It does not close it this time, as it did not ask by itself.
    tunnel = next(t for t in network.tunnels() if t.client in network.old and t.server in network.new)
    ask(tunnel.client, tunnel.server, Code.ASK_CLOSE)
    with clock("an older node may close its tunnel to us"):
        for said in (
            f"draining the tunnel from {tunnel.client.prefix}",
            f"{tunnel.client.prefix} may close its tunnel",
        ):
            wait(network, partial(says, tunnel.server, said), f"{tunnel.server} says: {said}")
    network.wait_connected(FORMS)

    # A changed parameter, and revoked nodes of both kinds.
    before = version(network.nodes[0])
    network.stop_registry()
    network.registry_options += ["--tunnel-refresh", "200"]
    network.start_registry()
    with clock("a changed parameter reached everybody"):
        wait_all(
            network,
            lambda node: version(node) > before and remembered(node, "tunnel_refresh") == 200,
            "every node has the new parameters",
        )
    network.wait_connected(FORMS)
    members = list(network.nodes)
    for revoked in (network.old[-1], network.new[-1]):
        members.remove(revoked)
        network.call("revoke", f"cn_or_serial={revoked.prefix.cn}")
        with clock(f"{revoked} was cut off"):
            wait_until(partial(cut_off, network, revoked), FORMS, f"nobody reaches {revoked}", bed.tails)
        network.wait_connected(FORMS, members)


@pytest.mark.parametrize(
    ("old", "old_registry"),
    [({0, 2}, False), ({1, 3}, True)],
    ids=["old node beside our registry", "our node beside the old registry"],
)
def test_registry_and_its_node_may_be_of_different_kinds(
    bed: Bed, reference: Path, clock: Clock, old: set[int], old_registry: bool
) -> None:
    network = MixedNetwork(bed, reference, 4, old, old_registry=old_registry, registry_options=OPTIONS)
    start(network, clock)
    with clock("everybody known to the registry"):
        everybody_is_known_to_the_registry(network)
    # First peers for those who come anew, of either kind: their memory is gone.
    for newcomer in (network.new[-1], network.old[-1]):
        assert newcomer is not network.nodes[0]
        newcomer.stop()
        network.forget(newcomer)
        newcomer.start()
    with clock("newcomers joined"):
        network.wait_connected(FORMS)


def test_nobody_is_lost_while_babels_keys_change(bed: Bed, reference: Path, clock: Clock) -> None:
    """Nodes of the deployed software restart at each step, ours do not; what is cut off meanwhile comes back."""
    network = MixedNetwork(bed, reference, 4, {1, 3}, registry_options=OPTIONS)
    start(network, clock)
    processes = {node: (node.process, node.pids("openvpn")) for node in network.new}
    keys = {node: remembered(node, "babel_hmac_sign") for node in network.nodes}
    assert len(set(keys.values())) == 1
    for step in ("announced", "in use", "alone"):
        before = version(network.nodes[0])
        network.call("updateHMAC")
        with clock(f"the key is {step} everywhere"):
            wait_all(network, lambda node: version(node) > before, f"everybody knows that the key is {step}")  # noqa: B023
        with clock("everybody reached everybody again"):
            network.wait_connected(FORMS)
    new = {remembered(node, "babel_hmac_sign") for node in network.nodes}
    assert len(new) == 1
    assert not new & set(keys.values())
    network.check_alive()
    for node, (process, servers) in processes.items():
        assert node.process is process
        assert set(servers) & set(node.pids("openvpn")), "nor its server"


def says(node: Node, text: str) -> bool:
    return text in (node.host.log / "re6stnet.log").read_text()


def cut_off(network: MixedNetwork, node: Node) -> bool:
    return all(rtt is None for pair, rtt in network.pings(timeout=0.3).items() if node in pair)


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")
def test_nodes_with_wireguard_links_and_older_ones_are_one_network(bed: Bed, reference: Path, clock: Clock) -> None:
    """Links are for those who have them: with older nodes, and among these, tunnels stay those of OpenVPN."""
    network = MixedNetwork(bed, reference, 4, {1}, registry_options=OPTIONS)
    for node in network.new:
        node.options += WITH_WIREGUARD
    start(network, clock)
    [older] = network.old

    def settled() -> bool:
        up = [each for node in network.new for each in tunnels(node) if each["state"] == "up"]
        found = {(each["peer"] == older.prefix.cn, each["carrier"]) for each in up}
        # Where a link did not come up at once, it is tried again minutes later.
        return {(True, "openvpn"), (False, "wireguard")} <= found and (True, "wireguard") not in found

    def carried() -> str:
        return "\n".join(f"{node}: {tunnels(node)}" for node in network.new)

    with clock("each tunnel is what both its ends can have"):
        wait(network, settled, "each tunnel is what both its ends can have", carried)
    silent: list[tuple[Node, Node]] = []

    def large_pass() -> bool:
        silent[:] = [pair for pair, trip in network.pings(timeout=1, size=1280).items() if trip is None]
        return not silent

    with clock("the largest packets that pass everywhere do here"):
        wait(network, large_pass, "large packets pass", lambda: f"not {silent}\n{carried()}")
    with clock("everybody known to the registry"):
        everybody_is_known_to_the_registry(network)

    # One of each kind comes anew. Links are still only with those who have them.
    for newcomer in (older, network.new[-1]):
        newcomer.stop()
        newcomer.start()
        with clock(f"{newcomer} is back"):
            network.wait_connected(FORMS)
    with clock("each tunnel is again what both its ends can have"):
        wait(network, settled, "each tunnel is again what both its ends can have", carried)
    network.wait_connected(FORMS)
