"""What carries the traffic that is measured: a row of the table each. All on a chain of hosts of their own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from bench.support import wireguard
from bench.support.chain import Address, Chain, started, wait_reached
from bench.support.debian import Release, UnavailableError, obtain, version
from bench.support.nebula import Nebula
from bench.support.others import Tinc, Yggdrasil
from re6st.cli.node import options as node_options
from testbed import Host, Network, Node, wait_until
from testbed.links import kernel_has_wireguard

FORMS = 180.0
APART = 1.0
"""Seconds between the starts of two programs."""


class Carrier(Protocol):
    """A row."""

    @property
    def name(self) -> str:
        """As the table has it."""

    @property
    def most_hops(self) -> int:
        """How many there may be, with what carries it."""

    def start(self, chain: Chain) -> Mapping[Host, Address]:
        """Set it up: the address of each host inside. Raises UnavailableError, BedError, AssertionError."""

    def version(self) -> str:
        """Of the program that carries it."""


@dataclass(frozen=True)
class Bare:
    """Nothing: the wires of the bed, and the kernel's forwarding. What the machine can do at most."""

    name: str = "no tunnel"
    most_hops: int = 3

    def start(self, chain: Chain) -> Mapping[Host, Address]:
        ways: dict[tuple[Host, Host], str] = {}
        for number, (first, second) in enumerate(pairwise(chain.hosts)):
            wire = f"wire{number}"
            chain.bed.segment(wire, first, second)
            for here, there in ((first, second), (second, first)):
                ways[here, there] = f"via {_link_local(there, wire)} dev {wire}"
        return wireguard.route(chain, ways)

    def version(self) -> str:
        return os.uname().release


@dataclass(frozen=True)
class Implementation:
    """What makes WireGuard interfaces: wireguard-go of a release; None: the kernel."""

    release: Release | None

    @property
    def name(self) -> str:
        return f"wireguard-go of {self.release.name}" if self.release else "the kernel's"

    def program(self) -> Path:
        """Raises UnavailableError."""
        return obtain("wireguard-go", "wireguard-go", self.release)

    def need(self, host: Host) -> None:
        """Raises UnavailableError where it cannot be had on this machine."""
        if self.release is not None:
            self.program()
        elif not kernel_has_wireguard(host):
            raise UnavailableError("not on this machine: its kernel has no WireGuard")

    def version(self) -> str:
        return version([str(self.program()), "--version"]) if self.release else os.uname().release


@dataclass(frozen=True)
class BareWireGuard:
    """A WireGuard link between each two neighbours, with routes that stand."""

    implementation: Implementation
    most_hops: int = 3

    @property
    def name(self) -> str:
        return f"WireGuard alone, {self.implementation.name}"

    def start(self, chain: Chain) -> Mapping[Host, Address]:
        self.implementation.need(chain.hosts[0])
        if self.implementation.release is None:
            make = partial(wireguard.by_kernel, obtain("wireguard-tools", "wg"))
        else:
            make = partial(wireguard.by_program, self.implementation.program())
        ways: dict[tuple[Host, Host], str] = {}
        for number, (first, second) in enumerate(pairwise(chain.hosts)):
            here, there = wireguard.link(make, first, second, wireguard.PORT + number)
            ways |= {(first, second): f"dev {here}", (second, first): f"dev {there}"}
        return wireguard.route(chain, ways)

    def version(self) -> str:
        return self.implementation.version()


@dataclass(frozen=True)
class Ours:
    """Nodes of this checkout: registry and node on the first host, a node on each other one."""

    name: str
    registry_options: tuple[str, ...] = ("--encrypt",)
    node_options: tuple[str, ...] = ()
    implementation: Implementation | None = None
    """What carries WireGuard links; None: OpenVPN carries the tunnels."""
    most_hops: int = 3

    def start(self, chain: Chain) -> Mapping[Host, Address]:
        options, path = list(self.node_options), os.environ["PATH"]
        if has_wireguard():
            options += ["--wireguard", "off" if self.implementation is None else "any"]
        elif self.implementation is not None:
            raise UnavailableError("not built: nodes of this checkout have no WireGuard links yet")
        if self.implementation is not None:
            self.implementation.need(chain.hosts[0])
            if self.implementation.release is not None:
                if kernel_has_wireguard(chain.hosts[0]):
                    raise UnavailableError("nodes take the kernel's where there is one, as here")
                path = f"{self.implementation.program().parent}:{path}"
        network = Network(chain.bed, hosts=chain.hosts, registry_options=self.registry_options, node_options=options)
        for node in network.nodes:
            node.wrapper = ["env", f"PATH={path}"]
        network.create()
        network.enrol()
        for before, node in pairwise(network.nodes):
            node.options += ["--neighbour", before.prefix.cn]
        for node in network.nodes:
            node.start()
        network.wait_connected(FORMS)
        for before, node in pairwise(network.nodes):
            wait_until(
                lambda: self._carries(node, before),  # noqa: B023
                FORMS,
                f"{node.name} and {before.name} have a tunnel of this kind",
                chain.bed.tails,
            )
        return {node.host: node.address for node in network.nodes}

    def _carries(self, node: Node, near: Node) -> bool:
        """Whether packets to a neighbour go by what is to be measured."""
        (way,) = json.loads(node.host.ip("-json", "-6", "route", "get", str(near.address)))
        (link,) = json.loads(node.host.ip("-json", "-details", "link", "show", "dev", way["dev"]))
        # A TAP is OpenVPN's; WireGuard has a tun, or an interface of its own kind.
        is_tap: bool = link.get("linkinfo", {}).get("info_data", {}).get("type") == "tap"
        return is_tap == (self.implementation is None)

    def version(self) -> str:
        return self.implementation.version() if self.implementation else version(["openvpn", "--version"])


def _link_local(host: Host, interface: str) -> str:
    (shown,) = json.loads(host.ip("-json", "-6", "address", "show", "dev", interface, "scope", "link"))
    address: str = shown["addr_info"][0]["local"]
    return address


def has_wireguard() -> bool:
    """Whether the nodes of this checkout can have WireGuard links: they have the option."""
    parser: argparse.ArgumentParser = node_options.parser()
    return "--wireguard" in parser.format_help()


@dataclass(frozen=True)
class Other:
    """yggdrasil or tinc, each host with its neighbours as peers."""

    kind: type[Yggdrasil | Tinc]
    release: Release | None = None
    most_hops: int = 3

    @property
    def name(self) -> str:
        return f"{self.kind.name} of {self.release.name}" if self.release else self.kind.name

    def start(self, chain: Chain) -> Mapping[Host, Address]:
        peers: dict[Host, Sequence[Host]] = {
            host: chain.neighbours(host)[:1] if host is not chain.hosts[0] else [] for host in chain.hosts
        }
        mesh = Yggdrasil(peers, self.release) if self.kind is Yggdrasil else self.kind(peers)
        _run_all(chain, mesh)
        return mesh.addresses

    def version(self) -> str:
        if self.kind is Yggdrasil:
            return version([str(obtain("yggdrasil", "yggdrasil", self.release)), "-version"])
        return version([str(obtain("tinc", "tincd")), "--version"])


@dataclass(frozen=True)
class OtherNebula:
    """nebula."""

    release: Release
    most_hops: int = Nebula.most_hops

    @property
    def name(self) -> str:
        return f"nebula of {self.release.name}"

    def start(self, chain: Chain) -> Mapping[Host, Address]:
        mesh = Nebula(chain, self.release)
        _run_all(chain, mesh)
        return mesh.addresses

    def version(self) -> str:
        return version([str(obtain("nebula", "nebula", self.release)), "-version"])


class _Mesh(Protocol):
    @property
    def addresses(self) -> Mapping[Host, Address]: ...

    def start(self, host: Host) -> subprocess.Popen[bytes]: ...


def _run_all(chain: Chain, mesh: _Mesh) -> None:
    processes = []
    for host in mesh.addresses:
        processes.append(mesh.start(host))
        # Whoever connects to one that does not listen yet may try again much later.
        time.sleep(APART)
    first, *others = mesh.addresses
    for host in others:
        wait_reached(first, mesh.addresses[host], FORMS)
    for process in processes:
        started(process, "a program", chain.bed)
