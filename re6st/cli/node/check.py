"""re6stnet --check: the value of each option and where it was set, and everything that would keep the node from
working.

It starts, changes and asks nothing, so it can run beside a running node. Status 0, or 78 (EX_CONFIG of sysexits.h)
after one line for each problem. Anything with which the node can work is not a problem, but a line that begins with
`warning`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from re6st import PROTOCOL, cert
from re6st.cli import kernel_findings, machine
from re6st.cli.checks import cannot_write, tell
from re6st.cli.options import OptionParser
from re6st.cli.terminal import show, width
from re6st.client.registry_client import parse_url
from re6st.core.machine.uplinks import find
from re6st.core.prefix import address, subnet
from re6st.core.telemetry.expiry import AUTHORITY, OURS, expires
from re6st.core.telemetry.report import CA_WARNING, CERTIFICATE_WARNING
from re6st.core.wire import extensions
from re6st.core.wire.params import Parameters, ParamsError, check_version, version_number
from re6st.core.words import moment
from re6st.keys import pki
from re6st.linux.kernel import Kernel
from re6st.linux.mptcp_netlink import NoMptcp, need_mptcp
from re6st.linux.process import MissingProgram, find_program
from re6st.linux.router_settings import router_settings
from re6st.noded import multicast, pem_files
from re6st.noded.peer_cache import parameters_in
from re6st.noded.settings import Config
from re6st.service.rundir import RunDirectoryError, foreign
from re6st.service.sqlite_files import looking_at
from re6st.view.findings import Finding
from re6st.view.screen import Column, table

CACHE = "cache.db"
TUN = Path("/dev/net/tun")
INTERFACES = Path("/sys/class/net")
_HIDDEN = frozenset(("help", "version", "check", "test", "default", "table"))
_COLUMNS = (Column("OPTION"), Column("VALUE", least=20), Column("FROM", least=10))

Check = Iterator[Finding]
Row = tuple[str, str, str]


def main(parser: OptionParser, options: argparse.Namespace, config: Config) -> int:
    """Print the options in force to standard output, and what is wrong to standard error; returns the exit status."""
    parameters, cached = _remembered(config.state / CACHE)
    identity, kept = _identity(config)
    found = [*kept, *cached, *_certificates(config, identity), *_network(identity, parameters)]
    found += [*_places(config), *_machine(config)]
    # With these, the node starts and waits until they are right.
    found += [*kernel_findings.ipv6(config.main_interface), *kernel_findings.firewall()]
    rows = [*_options(parser, options, config, parameters), *_told(parameters, config), *_node(identity, config)]
    show(table(_COLUMNS, rows, width()))
    told = {level: [_words(each) for each in found if each.level == level] for level in ("warn", "fail")}
    for warning in told["warn"]:
        print(f"{parser.prog}: warning: {warning}", file=sys.stderr)
    return tell(parser.prog, told["fail"])


def faults(config: Config) -> list[str]:
    """What keeps the node from starting, as texts, without the warnings."""
    parameters, _ = _remembered(config.state / CACHE)
    identity, kept = _identity(config)
    found = [*kept, *_network(identity, parameters), *_places(config), *_machine(config)]
    return [_words(each) for each in found if each.level == "fail"]


def _words(finding: Finding) -> str:
    return f"{finding.text} -> {finding.remedy}" if finding.remedy else finding.text


# --- what is in force ---


def _options(
    parser: OptionParser, options: argparse.Namespace, config: Config, parameters: Parameters | None
) -> Iterator[Row]:
    """Each option, its value, and where it was set."""
    decided = _decided(config)
    for action in parser._actions:
        name = action.dest
        if name in _HIDDEN:
            continue
        option = next((each for each in action.option_strings if each.startswith("--")), action.option_strings[0])
        places = parser.given.get(name, [])
        if places:
            # If an option may be repeated, all of its values count, otherwise the last one.
            origin = ", ".join(dict.fromkeys(places)) if isinstance(getattr(options, name), list) else places[-1]
            value = decided.get(name) or _text(getattr(options, name))
        elif name in ("client_count", "max_clients"):
            value = "-" if parameters is None else str(getattr(parameters, name))
            origin = "the network's parameters" + (" (not known yet)" if parameters is None else "")
        else:
            value, origin = decided.get(name) or _text(getattr(options, name)), "default"
        yield option.lstrip("-"), value, origin


def _decided(config: Config) -> dict[str, str]:
    """Options whose value also depends on something besides their own setting."""
    addresses = [str(ip) for ip in config.ip] or (["upnp", "any"] if config.upnp else ["any"])
    return {
        "pp": ", ".join(f"{port} {protocol}" for port, protocol in config.offered),
        "ip": ", ".join(addresses),
        "disable_proto": ", ".join(sorted(config.disabled_protocols)) or "none",
        "registry": ", ".join(str(parse_url(url)) for url in (config.registry, *config.other_registries)),
        "country": config.country or "as the registry says",
    }


def _text(value: object) -> str:
    match value:
        case None | [] | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
    return str(value)


def _told(parameters: Parameters | None, config: Config) -> Iterator[Row]:
    """The network's parameters, as the node remembers them."""
    if parameters is None:
        return
    origin = f"{config.state / CACHE}, version {version_number(parameters.version)}"
    values = parameters.public()
    for name in ("client_count", "max_clients", "version"):
        values.pop(name, None)
    values["crl"] = f"{len(parameters.crl)} certificates"
    values["registry_prefix"] = parameters.registry_prefix.cn
    if parameters.registry_nodes:
        values["registry_nodes"] = [prefix.cn for prefix in parameters.registry_nodes]
    for name, value in sorted(values.items()):
        yield f"({name.replace('_', '-')})", _text(value), origin


def _node(identity: cert.Identity | None, config: Config) -> Iterator[Row]:
    """The node's identity."""
    if identity is None:
        return
    network, prefix, own = identity.trust.network, identity.prefix, str(config.files.cert)
    yield "(node)", prefix.cn, own
    yield "(subnet)", str(subnet(network, prefix)), own
    yield "(address)", str(address(network, prefix)), own
    yield "(until)", moment(pki.end_of(identity.cert).timestamp()), own
    yield "(ca-until)", moment(pki.end_of(identity.trust.ca).timestamp()), str(config.files.ca)


# --- what is wrong ---


def _remembered(path: Path) -> tuple[Parameters | None, Sequence[Finding]]:
    """The parameters in the cache, and what is wrong with it."""
    if not path.exists():
        return None, [Finding("warn", "cache", f"{path} is not there yet: the first start waits for the registry")]
    try:
        with looking_at(path) as db:
            return parameters_in(db), ()
    except (sqlite3.Error, ParamsError) as error:
        return None, [Finding("warn", "cache", f"{path}: {error}", "the node asks the registry instead")]


def _identity(config: Config) -> tuple[cert.Identity | None, Sequence[Finding]]:
    """Chain, dates and key, as at every start (wire.md 2.4)."""
    files = config.files
    try:
        identity = cert.Identity.load(files.ca, files.cert, files.key, datetime.now(UTC))
        return identity, list(map(_to_write, pem_files.unreadable(files)))
    except cert.CertError as error:
        return None, [Finding("fail", "certificate", str(error))]


def _to_write(path: Path) -> Finding:
    """For a certificate or key in a form that OpenVPN does not read."""
    if trouble := cannot_write(path.absolute().parent, directory=True):
        text = f"{path}: OpenVPN does not read its form, and the node cannot write it anew: {trouble}"
        return Finding("fail", "certificate", text, "write it as it was issued, or let the node write there")
    return Finding(
        "warn", "certificate", f"{path}: OpenVPN does not read its form", "the node writes it anew as it starts"
    )


def _certificates(config: Config, identity: cert.Identity | None) -> Check:
    key, directory = config.files.key, config.files.cert.absolute().parent
    if key.exists() and key.stat().st_mode & 0o007:
        yield Finding("fail", "key", f"--key {key}: open to every user of this machine", f"chmod 600 {key}")
    if directory.exists() and (trouble := cannot_write(directory, directory=True)):
        yield Finding(
            "warn", "certificate", f"{directory}: {trouble}", "a renewed certificate is lost at the next start"
        )
    if identity is None:
        return
    now = datetime.now(UTC)
    for what, one, warning, remedy in (
        (OURS, identity.cert, CERTIFICATE_WARNING, "the node renews it when it reaches the registry"),
        (AUTHORITY, identity.trust.ca, CA_WARNING, "the operator of the registry renews it"),
    ):
        if (left := (pki.end_of(one) - now).total_seconds()) < warning:
            yield Finding("warn", "certificate", expires(what, left), remedy)


def _network(identity: cert.Identity | None, parameters: Parameters | None) -> Check:
    """Whether the remembered parameters are of our network, and require nothing that we lack."""
    if parameters is None:
        return
    if identity is not None and not check_version(parameters.version, identity.verify_version):
        text = "the remembered parameters are not of this network"
        yield Finding("warn", "cache", text, "the node asks the registry instead")
    if parameters.min_protocol > PROTOCOL:
        text = f"this network wants protocol {parameters.min_protocol}, this program speaks {PROTOCOL}"
        yield Finding("fail", "protocol", text, "upgrade it")
    if missing := parameters.require - extensions.KNOWN:
        text = f"this network requires {extensions.text(missing)}, which this program lacks"
        yield Finding("fail", "protocol", text, "upgrade it")


def _places(config: Config) -> Check:
    """Directories in which the node writes: they exist, or can be made."""
    places = [("--state", config.state), ("--run", config.run)]
    if config.verbosity:
        places.append(("--log", config.log))
    for option, path in places:
        if trouble := cannot_write(path, directory=True):
            yield Finding("fail", "place", f"{option} {path}: {trouble}", "choose another one, or give it to this user")
    if config.console is not None and (trouble := cannot_write(config.console.parent, directory=True)):
        yield Finding("warn", "place", f"--console {config.console}: {trouble}", "the node goes on without it")
    cache = config.state / CACHE
    if cache.exists() and (trouble := cannot_write(cache)):
        yield Finding("warn", "cache", f"{cache}: {trouble}", "nothing new is remembered")
    if config.run.is_dir() and os.access(config.run, os.R_OK):
        try:
            if others := foreign(config.run):
                text = f"--run {config.run} contains {others[0]!r}, which is not from re6stnet"
                yield Finding("warn", "place", text, "it is left there")
        except RunDirectoryError as error:
            yield Finding("fail", "place", str(error).rstrip("."))


def _machine(config: Config) -> Check:
    """Programs, rights, device, kernel."""
    yield from machine.programs()
    yield from machine.capabilities()
    found = list(machine.tun_device(TUN))
    yield from found
    if all(each.level == "ok" for each in found):
        yield from _opened(TUN)
    yield from router_settings()
    yield from machine.source_routes()
    try:
        find_program("nft")
    except MissingProgram:
        yield Finding("warn", "program", "nft: program not found: tunnels are not refreshed", "apt install nftables")
    if config.multicast:
        try:
            find_program(multicast.PROGRAM, multicast.REMEDY)
        except MissingProgram as error:
            yield Finding("fail", "program", str(error).rstrip("."))
    yield from _uplinks(config)
    yield from _mptcp(config)
    yield from kernel_findings.interface(config.main_interface, INTERFACES)
    for name in config.lan:  # they may appear later
        if not (INTERFACES / name).exists():
            yield Finding("warn", "interface", f"--interface {name}: not there", "no neighbours are found on it")


def _uplinks(config: Config) -> Check:
    """The lines that are named: one that is not there may come later."""
    if not config.uplinks:
        return
    try:
        with closing(Kernel()) as kernel:
            seen = asyncio.run(kernel.see_uplinks())
    except OSError as error:
        yield Finding("warn", "uplink", f"--uplink: the kernel does not tell its routes: {error.strerror}")
        return
    for uplink in find(config.uplinks, seen):
        if uplink.problem:
            yield Finding("warn", "uplink", f"--uplink {uplink.name}: {uplink.problem}", "it is used when it is there")


def _mptcp(config: Config) -> Check:
    """Whether the kernel does what --mptcp is for; the node works without."""
    if config.mptcp:
        try:
            need_mptcp()
        except NoMptcp as error:
            yield Finding("warn", "mptcp", f"--mptcp: {error}", "one connection uses one line until then")


def _opened(path: Path) -> Check:
    """A container may have the device, but not the right to open it. Opening it makes no interface."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        remedy = "run as root or with CAP_NET_ADMIN; a container must be given the device"
        yield Finding("fail", "machine", f"cannot open {path}: {error.strerror}", remedy)
