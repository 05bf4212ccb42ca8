"""re6st-status netcheck: what this machine and its network lack, a line each, with what to do about it.

Much of it needs no running node. Nothing is changed, and nobody is asked but the registry, the router and one node.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from re6st import PROTOCOL, cert
from re6st.cli import kernel_findings, machine
from re6st.cli.conf.files import read_options
from re6st.cli.conf.program import ConfError
from re6st.cli.status import down, icmp
from re6st.cli.status.output import HEALTHY, UNHEALTHY, print_json
from re6st.cli.terminal import show, width
from re6st.client import http
from re6st.client.certificate_report import key_fingerprint
from re6st.client.registry_client import (
    ANSWER_LIMIT,
    USER_AGENT,
    RegistryClient,
    RegistryError,
    RegistryKeyError,
    RegistryRefused,
    parse_url,
)
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Code
from re6st.core.wire.rpc import target
from re6st.linux.local_addresses import local_addresses
from re6st.linux.router_settings import router_settings
from re6st.registryd.local_node import LocalNode
from re6st.service.control_client import NodeConnection, NotRunning, RequestRefused, Trouble, connect
from re6st.service.run_names import BABELD_SOCKET
from re6st.view import netcheck
from re6st.view.findings import Finding, lines_of, merged, records, verdict
from re6st.view.netcheck import RegistryAnswer, Router

PATIENCE = 10.0
"""Seconds to wait for the registry."""
ROUTER_WAIT = 2.0
ECHO_WAIT = 1.0
TUNNELS_TRIED = 16
"""Tunnels through which large packets are sent: all at the same time, with some three small packets and as many large
ones each.
"""
ROUTES_ASKED = 50
"""Number of peer addresses for which the kernel is asked whether it has a route."""
OPTION_FILE = "re6stnet.conf"
_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


@dataclass(frozen=True)
class RunningNode:
    """What a running node told."""

    status: Mapping[str, Any]
    tunnels: list[Mapping[str, Any]]
    peers: list[Mapping[str, Any]]
    neighbours: list[Mapping[str, Any]]
    options: Mapping[str, Any]
    certificate: Mapping[str, Any]
    far: Mapping[str, Any] | None
    """The farthest of the nodes that are reached."""

    @classmethod
    def ask(cls, connection: NodeConnection) -> RunningNode:
        """Raises RequestRefused, Trouble."""
        routes = connection.ask("routes")["routes"]
        own = connection.ask("status")
        others = [each for each in routes if each["peer"] not in (None, own["cn"]) and each["metric"] is not None]
        far = max(others, key=lambda route: route["metric"], default=None)
        return cls(
            own,
            connection.ask("tunnels")["tunnels"],
            connection.ask("peers")["peers"],
            connection.ask("neighbours")["neighbours"],
            connection.ask("options"),
            connection.ask("certificate"),
            connection.ask("names", peers=[far["peer"]])["names"][far["peer"]] if far else None,
        )


def run(options: argparse.Namespace) -> int:
    """Look, and print each finding at once."""
    findings: list[Finding] = []
    waiting: list[Finding] = []

    def tell() -> None:
        if not options.json:
            for each in merged(waiting):
                show(lines_of(each, width()))
        waiting.clear()

    for finding in look(options.control):
        if waiting and (waiting[-1].about, waiting[-1].level) != (finding.about, finding.level):
            tell()
        findings.append(finding)
        waiting.append(finding)
    tell()
    if options.json:
        print_json({"verdict": verdict(findings), "findings": records(findings)})
    return UNHEALTHY if verdict(findings) == "fail" else HEALTHY


def look(control: Path) -> Iterator[Finding]:
    """All findings, one by one."""
    node, ca, ca_key = None, "", ""
    urls: Sequence[str]
    try:
        with connect(control) as connection:
            node = RunningNode.ask(connection)
    except Trouble as error:
        remedy = "restart re6stnet: it may run another version" if isinstance(error, RequestRefused) else ""
        if isinstance(error, NotRunning):
            remedy = down.remedy(down.look())
        yield Finding("fail", "node", str(error).rstrip("."), remedy)
    yield from machine.tun_device()
    if node is not None:
        yield from machine.capabilities(node.status["pid"])
    yield from machine.programs()
    yield from router_settings()
    yield from machine.source_routes(node.options["source_routes"] if node else None)
    yield from machine.advertisements()
    if node is None:  # otherwise the node tells this itself
        yield from kernel_findings.ipv6()
        yield from kernel_findings.firewall()
    configured = configured_registries(down.DIRECTORY / OPTION_FILE)
    if node is not None:
        yield from netcheck.health(node.status)
        registry, ours = node.status["registry"], node.certificate["ca"]
        ca, ca_key = ours["fingerprint"], ours.get("key_fingerprint", "")
        # They may have passwords, which the node does not tell. An older daemon knows one.
        known = {without_password(url): url for url in configured}
        told = [each["url"] for each in registry.get("all", [registry])]
        urls = [known.get(url, url) for url in told]
        yield from netcheck.failed_registries(registry, time.time())
    else:
        urls, certificate = configured, down.certificate()
        if isinstance(certificate, str):
            yield Finding("fail", "certificate", certificate, "join a network with re6st-conf")
        else:
            ca, ca_key = certificate["ca"]["fingerprint"], certificate["ca"]["key_fingerprint"]
    if urls:
        try:
            yield from netcheck.registries(asyncio.run(ask_registries(urls)), ca, ca_key)
        except RegistryError as error:
            yield Finding("fail", "registry", str(error))
        else:
            if node is None and not isinstance(certificate, str):
                yield from asyncio.run(membership(urls, certificate["cn"]))
    if node is not None:
        if not (
            registry.get("refused") or registry.get("likely_refused")
        ):  # otherwise nobody accepts our tunnels, whatever the firewall does
            yield from _outside(node)
        yield from _inside(node, control)


def _outside(node: RunningNode) -> Iterator[Finding]:
    """How others reach us, and we reach them."""
    if node.options["options"]["upnp"]:
        local = [str(ip) for ip in local_addresses() if ip.version == 4]
        yield from netcheck.port_mapping(node.status, local, find_router(), ROUTER_WAIT)
    hosts = sorted({each["host"] for peer in node.peers for each in peer["addresses"]})[:ROUTES_ASKED]
    cut_off = list(netcheck.uplink([host for host in hosts if not has_route(host)], len(hosts)))
    if cut_off:
        yield from cut_off
        return
    yield from netcheck.uplinks(node.status)
    yield from netcheck.servers(node.status)
    yield from netcheck.tunnels(node.tunnels, node.peers)


def _inside(node: RunningNode, control: Path) -> Iterator[Finding]:
    """Whether the packets that nodes need pass through the mesh, as far as the farthest of them."""
    if node.far is None:
        return
    peer, network = node.far["peer"], IPv6Network(node.status["network"])
    answer = asyncio.run(_software(network, control, Prefix.from_cn(peer)))
    yield netcheck.software(peer, answer.decode("utf-8", "replace") if answer is not None else None)
    large = list(netcheck.large_packets(_through_tunnels(node)))
    yield from large
    if any(each.level != "ok" for each in large):
        return  # which is reason enough for any loss on a path through such a tunnel
    try:
        found = icmp.path_mtu(IPv6Address(node.far["address"]), ECHO_WAIT)
    except icmp.ProbeError as error:
        yield Finding("warn", "inside", f"path MTU not measured: {error}")
    else:
        yield netcheck.path_mtu(peer, found.told if found else None, found.passed if found else None)


def _through_tunnels(node: RunningNode) -> list[tuple[Mapping[str, Any], int | None, int | None]]:
    """The size of packets that each tunnel carries, and the size that reached its other end: this takes some seconds in
    all.
    """
    ends = {(each["peer"], each["interface"]): each["address"] for each in node.neighbours}
    up = [each for each in node.tunnels if (each["peer"], each["interface"]) in ends][:TUNNELS_TRIED]

    def attempt(tunnel: Mapping[str, Any]) -> icmp.PathMtu | None:
        with suppress(icmp.ProbeError):
            there = IPv6Address(ends[tunnel["peer"], tunnel["interface"]])
            return icmp.path_mtu(there, ECHO_WAIT, tunnel["interface"])
        return None

    with ThreadPoolExecutor(TUNNELS_TRIED) as pool:
        found = list(pool.map(attempt, up))
    return [(each, mtu.told, mtu.passed) if mtu else (each, None, None) for each, mtu in zip(up, found, strict=True)]


async def _software(network: IPv6Network, control: Path, peer: Prefix) -> bytes | None:
    """The version of a node, which our node asks for us, as it does for a registry beside it (wire.md 7)."""
    local = LocalNode(network, control.with_name(BABELD_SOCKET))
    try:
        return await local.ask(peer, Code.SOFTWARE)
    finally:
        local.close()


def find_router() -> Router | None:
    """A router that speaks UPnP, found in ROUTER_WAIT seconds or so."""
    import miniupnpc

    router = miniupnpc.UPnP()
    router.discoverdelay = int(ROUTER_WAIT * 1000)
    try:
        with _quiet():
            router.discover()
        router.selectigd()
        return Router(str(router.lanaddr), str(router.externalipaddress() or ""))
    except Exception:  # the library raises errors of all kinds
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Discards standard error: the library prints there what it cannot send."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def has_route(host: str) -> bool:
    """Whether the kernel has a route to an IP address. Nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probing:
            probing.connect((host, 9))
    except OSError:
        return False
    return True


async def membership(urls: Sequence[str], cn: str) -> list[Finding]:
    """Whether the registries know this machine; they prove this only to a user who may read the key. Raises
    RegistryError for an invalid URL.
    """
    ca, own, key = (down.DIRECTORY / name for name in ("ca.crt", "cert.crt", "cert.key"))
    try:
        client = RegistryClient(urls, cert.Identity.load(ca, own, key, datetime.now(UTC)))
    except cert.CertError:  # most likely we may not read it
        url = urls[0]
        unknown = await _is_unknown(url, cn)
        text = f"registry {parse_url(url)}: it does not know {cn}; only a user who may read the key can verify this"
        return list(netcheck.membership(cn, text if unknown else "", proven=False))
    try:
        async with asyncio.timeout(PATIENCE):
            await client.greet()
    except (RegistryRefused, RegistryKeyError) as error:
        return list(netcheck.membership(cn, str(error), isinstance(error, RegistryRefused) and error.proven))
    except (RegistryError, TimeoutError):  # this was reported
        pass
    return []


async def _is_unknown(url: str, cn: str) -> bool:
    path = target("hello", {"client_prefix": Prefix.from_cn(cn).bits, "protocol": str(PROTOCOL)})
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    with suppress(http.HttpError, http.TooLong):
        answer = await http.get(parse_url(url), path, headers, timeout=PATIENCE, limit=ANSWER_LIMIT)
        return answer.status == HTTPStatus.NOT_FOUND
    return False


async def ask_registries(urls: Sequence[str]) -> dict[str, list[RegistryAnswer]]:
    """What each of them answers, by its URL without password. Raises RegistryError for an invalid URL."""
    names = [str(parse_url(url)) for url in urls]
    return dict(zip(names, await asyncio.gather(*map(ask_registry, urls)), strict=True))


async def ask_registry(url: str) -> list[RegistryAnswer]:
    """Its CA certificate, over each address family in which it has an address."""
    place = parse_url(url)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return [RegistryAnswer("IP", error="host name unknown. Check --registry, and the name server.")]
    families = [family for family in _FAMILIES if any(each[0] == family for each in found)]
    return list(await asyncio.gather(*(_ask(place, family) for family in families)))


async def _ask(place: http.Url, family: socket.AddressFamily) -> RegistryAnswer:
    name = _FAMILIES[family]
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    started, sent = time.monotonic(), time.time()
    try:
        answer = await http.get(
            place, target("getCa", {}), headers, timeout=PATIENCE, limit=ANSWER_LIMIT, family=family
        )
    except http.HttpError as error:
        return RegistryAnswer(name, error=str(error))
    except http.TooLong:
        return RegistryAnswer(name, error="its answer is too long. Check --registry.")
    took = time.monotonic() - started
    if answer.status == HTTPStatus.UNAUTHORIZED and not place.credentials:  # we may not read the node's options
        return RegistryAnswer(name, took * 1000)
    if answer.status != HTTPStatus.OK:
        cause = f"it answers with {answer.status} {http.phrase(answer.status)}. Check --registry."
        return RegistryAnswer(name, error=cause)
    try:
        given = cert.load_pem(answer.body)
        ca = cert.shown_fingerprint(given)
    except cert.CertError:
        return RegistryAnswer(name, error="its answer is not a CA certificate. Check --registry.")
    clock = http.clock_ahead(answer.headers.get("date", ""), sent + took / 2)
    return RegistryAnswer(name, took * 1000, ca, clock, ca_key=key_fingerprint(given))


def without_password(url: str) -> str:
    """A registry's URL as a node tells it; empty if it is invalid."""
    with suppress(RegistryError):
        return str(parse_url(url))
    return ""


def configured_registries(path: Path) -> Sequence[str]:
    """The registries in the option file of the package, for a node that does not run."""
    try:
        return read_options(path).get("registry", [])
    except ConfError:
        return []
