"""What carries the tunnels of nodes, OpenVPN or WireGuard links, as the nodes themselves say."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from re6st.core.transport.link_records import LinkRecord, decode
from re6st.core.tunnel_protocols import Role, TunnelCarrier
from re6st.linux.wireguard_go import INOTIFY
from testbed.control import ask
from testbed.host import Host
from testbed.namespace import BedError
from testbed.network import Network, Node
from testbed.wait import wait_until

OTHERS = 128
"""Inotify instances that are left for other programs."""
WITH_WIREGUARD = ("--wireguard", "any")
"""Options of a node that has links where it can, by wireguard-go too."""


@contextlib.contextmanager
def room_for_links(count: int) -> Iterator[None]:
    """Meanwhile this machine takes so many links of wireguard-go, each of which needs an inotify instance of its user.

    It is one figure of the whole machine, so that two networks that need it cannot be there at one time.
    """
    before = INOTIFY.read_text()
    try:
        INOTIFY.write_text(str(max(int(before), count + OTHERS)))
        yield
    finally:
        INOTIFY.write_text(before)


def missing_wireguard(host: Host) -> str:
    """What this machine lacks for nodes to have links, in words for the user; empty where it has everything."""
    return "" if kernel_has_wireguard(host) or shutil.which("wireguard-go") else "no WireGuard: install wireguard-go"


def kernel_has_wireguard(host: Host) -> bool:
    """Whether this kernel makes such interfaces, of which nodes have theirs then."""
    try:
        host.namespace.ip("link add r6btest type wireguard", "link delete r6btest")
    except BedError:
        return False
    return True


def tunnels(node: Node) -> list[dict[str, Any]]:
    """Those of a node, as its control socket tells them; none while it does not run."""
    with contextlib.suppress(OSError, EOFError):
        listed: list[dict[str, Any]] = ask(node.host.run_directory / "control.sock", "tunnels")["tunnels"]
        return listed
    return []


def carriers(node: Node) -> list[str]:
    """What carries each tunnel of a node that is up."""
    return sorted(each["carrier"] for each in tunnels(node) if each["state"] == "up")


def all_are_links(*nodes: Node) -> bool:
    """Whether each has tunnels, and WireGuard carries them all."""
    return all(set(carriers(node)) == {TunnelCarrier.WIREGUARD} for node in nodes)


def has_only_links(node: Node) -> bool:
    """Whether WireGuard carries all its tunnels, and no OpenVPN that it replaced is left."""
    up = [each for each in tunnels(node) if each["state"] == "up"]
    if not up or any(each["carrier"] != TunnelCarrier.WIREGUARD for each in up):
        return False
    peers = {each["peer"] for each in up}
    return not any("--client" in words and peers & set(words) for words in node.host.processes().values())


def wait_links(network: Network, timeout: float, nodes: Sequence[Node] | None = None) -> None:
    """Wait until WireGuard alone carries all tunnels of these nodes, or of all. Raises AssertionError, BedError."""
    nodes = network.nodes if nodes is None else nodes

    def only_links() -> bool:
        network.check_alive()
        return all(map(has_only_links, nodes))

    def context() -> str:
        said = [f"{node.name}: {each}" for node in nodes for each in tunnels(node)]
        return "\n".join([*said, network.bed.tails()])

    wait_until(only_links, timeout, "all tunnels are WireGuard links", context)


def link_record(node: Node, peer: Node, role: Role) -> LinkRecord | None:
    """What a node noted of a link with another one, at that end of it; None where there is none."""
    for path in node.host.run_directory.glob("re6stnet-wg*.json"):
        record = decode(path.read_bytes())
        if record.peer == peer.prefix and record.link.role is role:
            return record
    return None
