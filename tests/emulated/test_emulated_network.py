"""A network of three nodes whose tunnels become links of the kernel's WireGuard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed import Bed, Host, Network, Node, emulated_kernel, network, wait, wait_until
from testbed.links import wait_links

PRELOADED = Path(__file__).with_name("preloaded.py")
SOON = 200
"""Seconds, under emulation."""


@pytest.fixture(autouse=True)
def loaded() -> None:
    """All modules are loaded that will be needed, and no others will be.

    Whenever babeld looks for an interface that is not there yet, the kernel runs modprobe, twice: half a second here,
    for each of them.
    """
    assert emulated_kernel.inside(), "this would keep the machine from loading modules"
    directory = Path("/lib/modules", os.uname().release, "kernel/net/netfilter")
    filters = [path.name.partition(".")[0] for path in directory.glob("nft_*")]
    with clock("the modules are loaded"):
        subprocess.run(["modprobe", "--all", "bridge", "tun", "veth", "wireguard", *filters], check=True)
    Path("/proc/sys/kernel/modprobe").write_text("\n")


@pytest.fixture(autouse=True)
def preloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = tmp_path / "socket"
    server = subprocess.Popen([sys.executable, PRELOADED, "serve", path], env=network.environment())
    monkeypatch.setattr(network, "STARTS", SOON)
    monkeypatch.setattr(wait, "PAUSE", 1.0)  # each look costs, and others need the time
    words = [sys.executable, "-S", "-E", str(PRELOADED), "run", str(path)]
    monkeypatch.setattr(network, "program", lambda name: [*words, name])
    monkeypatch.setattr(network, "run_command", run_command)  # which imports them once more
    with clock("the programs are imported"):
        wait_until(path.exists, SOON, "the programs are imported")
    yield
    server.kill()
    server.wait()


def run_command(host: Host, words: Sequence[str], directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    return host.run([*network.program(words[0]), *words[1:]], env=network.environment(), cwd=directory)


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed() as bed:
        yield bed


@contextmanager
def clock(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s")


def links_of_the_kernel(node: Node) -> set[str]:
    shown = json.loads(node.host.ip("-json", "link", "show", "type", "wireguard"))
    return {each["ifname"] for each in shown if each}


def said(node: Node) -> str:
    """What an operator sees of its tunnels."""
    control = ["--control", str(node.host.run_directory / "control.sock")]
    return node.host.run([*network.program("status"), *control, "tunnels"]).stdout


def test_three_nodes_form_a_network_over_the_wireguard_of_the_kernel(bed: Bed) -> None:
    # One server each, few interfaces and rare hellos, as each one costs.
    options = ["--disable-proto", "none", "--pp", "1194", "udp", "--wireguard", "auto"]
    three = Network(bed, registry_options=["--client-count", "2", "--hello", "4"], node_options=options)
    with clock("they have certificates"):
        three.create()
        three.enrol()
    with clock("every node reaches every other one"):
        for node in three.nodes:
            node.start()
        three.wait_connected(SOON)
    with clock("their tunnels are links"):
        wait_links(three, SOON)
    with clock("every node reaches every other one"):
        three.wait_connected(SOON)
    for node in three.nodes:
        names = links_of_the_kernel(node)
        assert len(names) == 2
        assert names == {name for name in node.host.interfaces() if "-wg" in name}
        assert not node.pids("wireguard-go")
        assert said(node).count("/wireguard") == 2, said(node)
