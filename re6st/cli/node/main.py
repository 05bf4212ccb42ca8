# SPDX-FileCopyrightText: 2026 the re6st authors
# SPDX-License-Identifier: Apache-2.0
"""re6stnet: the node daemon's command line (wire.md 11.2)."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from itertools import combinations
from pathlib import Path

from re6st.cert import CertError
from re6st.cli import metrics_place
from re6st.cli.node.expression import ExpressionError, evaluate
from re6st.cli.options import OptionParser, fail, integer
from re6st.client.files import Files
from re6st.client.registry_client import RegistryError, parse_url
from re6st.core import interfaces
from re6st.core.machine.hosts import Ip, is_usable
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.tunnel_protocols import SERVED, TunnelProtocol, named
from re6st.core.wire.datagrams import ADDRESSES_LIMIT, Endpoint, parse_addresses
from re6st.linux.kernel import KernelError
from re6st.linux.process import MissingProgram, allow_files
from re6st.linux.router_settings import router_settings
from re6st.node import Node
from re6st.noded import left_behind
from re6st.noded.hooks import HookError
from re6st.noded.late_clock import made_when_valid
from re6st.noded.peer_socket import PortInUse
from re6st.noded.registry_updates import TooOld
from re6st.noded.settings import Config
from re6st.noded.successor import WHETHER_READY, Successor
from re6st.service import geoip
from re6st.service.logs import LogHandler, in_journal, setup_logging
from re6st.service.metrics_http import MetricsError
from re6st.service.rundir import RunDirectoryError
from re6st.service.sd_notify import Notifier
from re6st.transport import openvpn

PROGRAM = "re6stnet"
EXIT_FAILED, EXIT_TOO_OLD, EXIT_PERMISSION, EXIT_CONFIG = 1, 76, 77, 78
EXIT_RESTART = 255

OFFERED = TunnelProtocol.UDP, TunnelProtocol.TCP
"""The default of --pp, less what is disabled."""
DISABLED = frozenset((TunnelProtocol.UDP, TunnelProtocol.UDP6))
"""The default of --disable-proto."""

LOG_FILE = "re6stnet.log"
DH_LIMIT = 1 << 16
"""Bytes of the file of --dh that are read."""
LOG_DIRECTORY = Path("/var/log/re6stnet")


class NodeFailed(Exception):
    """A running node has failed: a new start may work, whatever the reason was."""


_AT_START = (CertError, RegistryError, MissingProgram, RunDirectoryError, KernelError)
"""Errors at the start that only a person can correct, and errors that others may have caused later: then a new start
may work.
"""
_STATUS: Sequence[tuple[tuple[type[Exception], ...], int]] = (
    ((HookError, NodeFailed), EXIT_FAILED),
    ((CertError, RegistryError, MissingProgram, RunDirectoryError), EXIT_CONFIG),
    ((TooOld,), EXIT_TOO_OLD),
    ((PortInUse, MetricsError, OSError), EXIT_FAILED),
)
"""The exit status for each expected error."""

_COUNTRY = re.compile(r"[A-Za-z]{2}", re.ASCII)
_SERVING = ("pp", "ip", "max_clients", "client_count", "neighbour", "remote_gateway")
"""Options that mean nothing to a node with one tunnel (--client)."""
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)


def parser() -> OptionParser:
    """All options of re6stnet."""
    p = OptionParser(
        PROGRAM,
        "Run a node of a re6st network, which gives this machine a stable IPv6 subnet.",
        "example: re6stnet @/etc/re6stnet/re6stnet.conf",
        "%(prog)s [@FILE | OPTION ...]",
    )
    net = p.add_argument_group("network")
    net.add_argument("--registry", metavar="URL", required=True, help="URL of the registry that enrolled this machine")
    for name, what in (
        ("ca", "CA certificate"),
        ("cert", "certificate of this node"),
        ("key", "private key of this node"),
    ):
        net.add_argument(f"--{name}", metavar="FILE", type=Path, required=True, help=what)
    net.add_argument(
        "--dh", metavar="FILE", type=Path, help="Diffie-Hellman parameters of the OpenVPN servers (not needed)"
    )
    net.add_argument(
        "--country", metavar="CODE", default="", help="country of this machine (default: ask the registry)"
    )

    reach = p.add_argument_group("how other nodes reach this one")
    reach.add_argument(
        "--ip",
        metavar="IP",
        action="append",
        default=[],
        help="public address of this node; any: learn it from peers; upnp: ask the router (default: upnp, and any)",
    )
    reach.add_argument(
        "--pp",
        nargs=2,
        metavar=("PORT", "PROTO"),
        action="append",
        default=[],
        help="accept tunnels on this port; PROTO is udp, tcp, udp6 or tcp6 (default: 1194 udp, and 1194 tcp over IPv4"
        " and IPv6, without the disabled protocols)",
    )
    reach.add_argument(
        "--max-clients",
        metavar="N",
        type=integer(0, 100_000),
        help="maximum number of clients of each server; 0: run no server",
    )

    mesh = p.add_argument_group("mesh")
    mesh.add_argument(
        "--client-count",
        metavar="N",
        type=integer(0, 1000),
        help="tunnels that this node opens; 0: none, so that only others open tunnels to it (any node but the"
        " registry's own needs -i then)",
    )
    mesh.add_argument(
        "--disable-proto",
        action="append",
        choices=("none", *map(str, SERVED)),
        help="do not use this protocol for tunnels (default: udp and udp6); none: use all protocols",
    )
    mesh.add_argument(
        "--neighbour", metavar="CN", action="append", default=[], help="keep a direct tunnel to this node"
    )
    mesh.add_argument(
        "--remote-gateway",
        metavar="IP",
        action="append",
        default=[],
        help="IPv4 router of one of this machine's uplinks; tunnels use these routers in turn",
    )
    mesh.add_argument(
        "--client",
        metavar="HOST,PORT,PROTO;...",
        help="run no server, and open one tunnel, to the first of these servers that answers",
    )
    mesh.add_argument(
        "-i", "--interface", metavar="IF", action="append", default=[], help="exchange routes on this LAN"
    )
    mesh.add_argument(
        "-I", "--main-interface", metavar="IF", default="lo", help="gets the node's address (default: lo)"
    )
    mesh.add_argument(
        "-m", "--multicast", action="store_true", help="route IPv6 multicast too, with the program pim-dm"
    )
    mesh.add_argument(
        "--accept-route",
        metavar="PREFIX",
        action="append",
        default=[],
        help="accept routes to this IPv4 or IPv6 prefix, and to parts of it, besides those to the network's own",
    )
    mesh.add_argument(
        "--no-packet-filter",
        action="store_true",
        help="accept packets with any source from tunnels and forward them anywhere; do not limit connections to the"
        " servers",
    )
    mesh.add_argument(
        "--gateway",
        action="store_true",
        help="announce a default route, and forward the network's packets to the Internet",
    )

    files = p.add_argument_group("files and logs")
    files.add_argument(
        "-l",
        "--log",
        metavar="DIR",
        type=Path,
        default=LOG_DIRECTORY,
        help="directory of the log files (default: %(default)s, but the node itself logs to the journal where systemd"
        " starts it)",
    )
    for short, name, what in (
        ("r", "run", "run directory: sockets and records of processes, emptied at the end"),
        ("s", "state", "state directory: addresses of peers and other things to remember"),
    ):
        default = {"run": Path("/var/run/re6stnet"), "state": Path("/var/lib/re6stnet")}[name]
        files.add_argument(
            f"-{short}", f"--{name}", metavar="DIR", type=Path, default=default, help=f"{what} (default: %(default)s)"
        )
    files.add_argument("--ovpnlog", action="store_true", help="write a log file for each OpenVPN process")
    files.add_argument(
        "--console", metavar="SOCK", type=Path, help="make a second control socket here, besides RUN/control.sock"
    )
    files.add_argument("--metrics", metavar=metrics_place.METAVAR, type=metrics_place.place, help=metrics_place.HELP)
    p.add_verbosity(2, files)

    more = p.add_argument_group("other programs, and checks")
    more.add_argument(
        "-B", dest="babel_arguments", metavar="ARG", action="append", default=[], help="argument for babeld"
    )
    more.add_argument(
        "-O", dest="openvpn_arguments", metavar="ARG", action="append", default=[], help="argument for OpenVPN"
    )

    more.add_argument(
        "--up", metavar="CMD", action="append", default=[], help="run this command before the node starts its work"
    )
    more.add_argument(
        "--daemon", metavar="CMD", action="append", default=[], help="run this command while the node runs"
    )
    more.add_argument(
        "--check",
        action="store_true",
        help="print all options and where they were set, and everything that is wrong with options, files and this"
        " machine, then exit: status 0 if nothing is wrong, else 78",
    )
    more.add_argument(
        "--test", metavar="EXPR", help="exit with the value of this expression over the options as status (true: 1)"
    )

    old = p.add_argument_group("of older versions")
    old.add_argument("-D", "--default", action="store_true", help=argparse.SUPPRESS)
    old.add_argument("--table", type=int, choices=(0,), help=argparse.SUPPRESS)
    return p


def configuration(p: OptionParser, args: argparse.Namespace) -> Config:
    """Check the options. Wrong ones end the program with status 2."""
    remotes = _remotes(p, args)
    words = frozenset(args.disable_proto or ())
    if "none" in words and len(words) > 1:
        p.error("argument --disable-proto: none cannot be combined with others")
    disabled = frozenset(map(TunnelProtocol, words - {"none"})) if words else DISABLED
    ports = [_port(p, *pair) for pair in args.pp] or [(1194, each) for each in OFFERED if each not in disabled]
    for _, protocol in ports:
        if protocol in disabled:
            p.error(f"argument --pp: {protocol} is disabled: see --disable-proto")
    _check_families(p, ports)
    _check_places(p, args)
    try:
        parse_url(args.registry)
    except RegistryError as error:
        p.error(str(error).removesuffix("."))
    if args.country and not _COUNTRY.fullmatch(args.country):
        p.error(f"argument --country: {args.country!r} is not a country code of two letters")
    return Config(
        registry=args.registry,
        files=Files(args.ca, args.cert, args.key),
        log=args.log,
        run=args.run.absolute(),
        state=args.state,
        main_interface=_interface(p, "-I/--main-interface", args.main_interface),
        lan=tuple(_interface(p, "-i/--interface", name) for name in args.interface),
        ip=tuple(_ip(p, text) for text in args.ip if text not in ("any", "upnp")),
        ports=tuple(ports),
        both_families=not args.pp and TunnelProtocol.TCP6 not in disabled,
        disabled_protocols=disabled,
        client_count=args.client_count,
        max_clients=args.max_clients,
        neighbours=frozenset(_prefix(p, text) for text in args.neighbour),
        babel_arguments=tuple(args.babel_arguments),
        openvpn_arguments=tuple(args.openvpn_arguments),
        openvpn_log=args.ovpnlog,
        babel_log=args.verbose > 0,
        dh=args.dh,
        country=args.country.upper(),
        places=geoip.database(os.environ.get(geoip.ENVIRONMENT)),
        gateway=args.gateway,
        packet_filter=not args.no_packet_filter,
        accept_route=tuple(_route(p, text) for text in args.accept_route),
        upnp=not remotes and _upnp(p, args.ip),
        up=tuple(args.up),
        daemons=tuple(args.daemon),
        verbosity=args.verbose,
        console=args.console.absolute() if args.console else None,
        metrics=args.metrics,
        multicast=args.multicast,
        remote_gateways=tuple(_gateway(p, text) for text in args.remote_gateway),
        remotes=remotes,
    )


def _remotes(p: OptionParser, args: argparse.Namespace) -> tuple[Endpoint, ...]:
    """The servers of --client, all of which have to be valid."""
    if args.client is None:
        return ()
    for name in _SERVING:
        if getattr(args, name) not in (None, []):
            p.error(
                f"argument --client: cannot be combined with --{name.replace('_', '-')}: there is one tunnel, no server"
            )
    entries = [entry.strip() for entry in args.client.split(";") if entry.strip()]
    if not 0 < len(entries) <= ADDRESSES_LIMIT:
        p.error(f"argument --client: {len(entries)} servers: give 1 to {ADDRESSES_LIMIT}")
    for entry in entries:
        if entry.count(",") != 2 or not parse_addresses(entry, anywhere=True):
            p.error(f"argument --client: {entry!r} is not of the form HOST,PORT,PROTO (PROTO: {', '.join(SERVED)})")
    return tuple(endpoint for entry in entries for endpoint in parse_addresses(entry, anywhere=True))


def _port(p: OptionParser, port: str, name: str) -> tuple[int, TunnelProtocol]:
    if (protocol := named(name)) not in SERVED:
        p.error(f"argument --pp: {name!r} is not one of {', '.join(SERVED)}")
    try:
        return integer(1, 65535)(port), protocol
    except argparse.ArgumentTypeError as error:
        p.error(f"argument --pp: {error}")


def _check_families(p: OptionParser, ports: Sequence[tuple[int, TunnelProtocol]]) -> None:
    """Servers of udp6 and tcp6 listen on IPv4 too, so they need another port (wire.md 8.1)."""
    first: dict[TunnelProtocol, int] = {}
    for port, protocol in ports:
        first.setdefault(protocol, port)
    for one, other in combinations((each for each in SERVED if each in first), 2):
        if one.transport is other.transport and first[one] == first[other]:
            p.error(f"argument --pp: {one} and {other} both use port {first[one]}: give one of them another")


def _upnp(p: OptionParser, words: Sequence[str]) -> bool:
    """Whether to look for a router: if the user said so, or said nothing about IPv4 (wire.md 10.5)."""
    ipv4 = [word for word in words if ":" not in word]
    if len(ipv4) > 1 and ("upnp" in ipv4 or "any" in ipv4):
        p.error("argument --ip: with 'upnp' or 'any' no other IPv4 address can be given")
    return not ipv4 or ipv4 == ["upnp"]


def _ip(p: OptionParser, text: str) -> Ip:
    try:
        ip = ip_address(text)
    except ValueError:
        p.error(f"argument --ip: {text!r} is not an IP address, any or upnp")
    if not is_usable(ip):
        p.error(f"argument --ip: {text!r} is not an address that others can reach")
    return ip


def _gateway(p: OptionParser, text: str) -> IPv4Address:
    try:
        ip = IPv4Address(text)
    except ValueError:
        p.error(f"argument --remote-gateway: {text!r} is not an IPv4 address")
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback or ip == IPv4Address("255.255.255.255"):
        p.error(f"argument --remote-gateway: {text!r} cannot be the address of a router")
    return ip


def _route(p: OptionParser, text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        p.error(f"argument --accept-route: {text!r} is not a prefix such as 192.168.7.0/24 or 2001:db8:7::/48: {error}")


def _interface(p: OptionParser, option: str, name: str) -> str:
    """The name is written into babeld's configuration, where a blank would begin another word."""
    if not _INTERFACE.fullmatch(name):
        p.error(f"argument {option}: {name!r} is not the name of an interface")
    if interfaces.is_ours(name):
        p.error(f"argument {option}: {name!r} is the name of one of our tunnels")
    return name


def _check_places(p: OptionParser, args: argparse.Namespace) -> None:
    """The run directory is emptied at the end, so nothing that must be kept may be in it."""
    for option in ("state", "log"):
        if args.run.absolute() == getattr(args, option).absolute():
            p.error(f"argument --run: {args.run} is also the directory of --{option}: choose another")
    if args.dh is None:
        return
    try:
        with args.dh.open("rb") as file:
            parameters = b"-----BEGIN DH PARAMETERS-----" in file.read(DH_LIMIT)
    except OSError as error:
        p.error(f"argument --dh: {args.dh}: {error.strerror}")
    if not parameters:
        p.error(f"argument --dh: {args.dh} has no Diffie-Hellman parameters in PEM form")


def _prefix(p: OptionParser, text: str) -> Prefix:
    try:
        return Prefix.from_cn(text)
    except PrefixError as error:
        p.error(f"argument --neighbour: {error}")


async def _run(config: Config, handler: LogHandler | None) -> int:
    """Run until a signal ends it (wire.md 10.9); returns the exit status."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    status = 0
    is_awaited = False

    def await_one() -> None:
        """Another process starts the next daemon."""
        nonlocal is_awaited
        is_awaited = True
        stop_with(0)

    def stop_with(value: int) -> None:
        nonlocal status
        if not stop.is_set():
            status = value
        stop.set()

    def reopen() -> None:
        if handler is not None:
            handler.reopen()
        if node is not None:
            node.reopen_logs()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_with, 0)
    loop.add_signal_handler(signal.SIGUSR2, stop_with, EXIT_RESTART)
    loop.add_signal_handler(signal.SIGUSR1, reopen)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # before there is a node
    loop.add_signal_handler(signal.SIGQUIT, await_one)
    node = None
    notifier = Notifier()
    os.environ.update(notifier.environment)  # for the node
    waiting = asyncio.create_task(notifier.wait())
    try:
        node = await made_when_valid(lambda: Node(config), stop, notifier.status)
    finally:
        waiting.cancel()
        notifier.close()
    if node is None:
        if not is_awaited:
            await _leave_nothing(config.run)
        return status
    successor = Successor(node, stop)
    loop.add_signal_handler(signal.SIGHUP, successor.take_our_place)
    loop.add_signal_handler(signal.SIGQUIT, successor.await_one)
    successor.listen()
    allow_files(openvpn.OPEN_FILES)
    try:
        await node.run(stop)
    except Exception as error:
        if node.started and isinstance(cause := _cause(error), _AT_START):
            raise NodeFailed(str(cause)) from error
        raise
    return status


async def _leave_nothing(run: Path) -> None:
    """End the processes that an earlier daemon left to us, if we do not become a node."""
    try:
        await left_behind.remove_alone(run)
    except (OSError, RunDirectoryError) as error:
        logging.getLogger(PROGRAM).warning("cannot remove what an earlier run left: %s", error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a node; returns the exit status."""
    p = parser()
    args = p.parse(argv)
    config = configuration(p, args)
    if args.test is not None:
        return _test(p, args) or (_whether_ready(config) if os.environ.get(WHETHER_READY) else 0)
    if args.check:
        from re6st.cli.node import check

        return check.main(p, args, config)
    try:
        for directory in (config.state, *((config.log,) if args.verbose else ())):
            directory.mkdir(parents=True, exist_ok=True)
        journal = "log" not in p.given and in_journal()
        handler = setup_logging(args.verbose, config.log / LOG_FILE, journal=journal, style=args.log_format)
    except OSError as error:
        fail(
            PROGRAM,
            f"{error.filename}: {error.strerror}. Choose other directories with --log and --state.",
            EXIT_CONFIG,
        )
    for warning in p.warnings:
        logging.getLogger(PROGRAM).warning("%s", warning)
    for finding in router_settings():
        level = logging.ERROR if finding.level == "fail" else logging.WARNING
        logging.getLogger(PROGRAM).log(level, "%s; %s", finding.text, finding.remedy)
    if sys.version_info < (3, 12):
        # The default on Debian 12 is a thread for each child process.
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    try:
        return asyncio.run(_run(config, handler))
    except Exception as error:
        return _failed(error, config, handler)


def _test(p: OptionParser, args: argparse.Namespace) -> int:
    """--test: the value of an expression over the options, as exit status."""
    try:
        value = evaluate(args.test, vars(args))
    except ExpressionError as error:
        p.error(f"argument --test: {error}")
    return int(value) & 0xFF if isinstance(value, int) else int(bool(value))


def _whether_ready(config: Config) -> int:
    """The check that a running daemon makes before it hands over: if we could not start, it had better go on."""
    from re6st.cli.node import check

    faults = check.faults(config)
    for fault in faults:
        print(f"{PROGRAM}: {fault}", file=sys.stderr)
    return EXIT_CONFIG if faults else 0


def _cause(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _failed(error: Exception, config: Config, handler: LogHandler | None) -> int:
    """One line, on the terminal and in the log; returns the exit status."""
    error = _cause(error)
    log = logging.getLogger(PROGRAM)
    for kinds, status in _STATUS:
        if isinstance(error, kinds):
            if isinstance(error, KernelError) and error.lasting:
                status = EXIT_PERMISSION
            log.critical("%s", error)
            if handler is None or not handler.on_stderr:
                print(f"{PROGRAM}: {error}", file=sys.stderr)
            return status
    log.critical("unexpected error", exc_info=error)
    if handler is None or not handler.on_stderr:
        print(f"{PROGRAM}: unexpected error, please report it: see {config.log / LOG_FILE}", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
