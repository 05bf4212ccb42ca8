"""The options of re6stnet, and what they come to: a Config (wire.md 11.2)."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from itertools import combinations
from pathlib import Path

from re6st.cli import metrics_place
from re6st.cli.node import babel_arguments, bulk_options, uplink_option, wireguard_ports
from re6st.cli.options import COMMAND_LINE, OptionParser, integer
from re6st.client.files import Files
from re6st.client.registry_client import RegistryError, parse_url
from re6st.core import interfaces
from re6st.core.machine.hosts import Ip, is_usable
from re6st.core.machine.uplinks import UplinkOption
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.registry.registry_choice import LIMIT
from re6st.core.tunnel_protocols import SERVED, TunnelProtocol, named
from re6st.core.wire.datagrams import ADDRESSES_LIMIT, Endpoint, parse_addresses
from re6st.noded.settings import Config
from re6st.service import geoip

PROGRAM = "re6stnet"

OFFERED = TunnelProtocol.UDP, TunnelProtocol.TCP
"""The default of --pp, less what is disabled."""
DISABLED = frozenset((TunnelProtocol.UDP, TunnelProtocol.UDP6))
"""The default of --disable-proto."""

DH_LIMIT = 1 << 16
"""Bytes of the file of --dh that are read."""
LOG_DIRECTORY = Path("/var/log/re6stnet")

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
    net.add_argument(
        "--registry",
        metavar="URL",
        action="append",
        required=True,
        help="URL of the registry that enrolled this machine; repeat it for others of the network, which are asked when"
        " those before them do not answer",
    )
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

    wireguard_ports.add_option(reach)

    mesh = p.add_argument_group("mesh")
    mesh.add_argument(
        "--wireguard",
        choices=("auto", "any", "off"),
        help="auto: have WireGuard links in place of tunnels where both ends can, and the kernel has WireGuard and"
        " nftables; any: also by wireguard-go, which is slower than OpenVPN for small packets; off: OpenVPN only"
        " (default: auto, without a warning where WireGuard or nftables is missing)",
    )
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
    uplink_option.add_option(mesh)
    mesh.add_argument(
        "--mptcp",
        action="store_true",
        help="have one connection use all lines, where both ends speak MPTCP: set the kernel's endpoints and limits for"
        " programs that ask for it, or run under mptcpize",
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

    bulk_options.add_options(mesh)

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
    babel_arguments.add_option(more)
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
    registry, *others = _registries(p, args)
    if args.country and not _COUNTRY.fullmatch(args.country):
        p.error(f"argument --country: {args.country!r} is not a country code of two letters")
    return Config(
        registry=registry,
        other_registries=tuple(others),
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
        babel_arguments=babel_arguments.arguments_of(p, args.babel_arguments),
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
        uplinks=_uplinks(p, args),
        mptcp=args.mptcp,
        bulk=bulk_options.bulk_of(p, args.bulk),
        probe=not args.no_probe,
        remotes=remotes,
        wireguard=args.wireguard != "off",
        wireguard_asked=args.wireguard is not None,
        wireguard_go=args.wireguard == "any",
        wireguard_ports=wireguard_ports.ports_of(p, args.wireguard_ports, ports),
    )


def _registries(p: OptionParser, args: argparse.Namespace) -> list[str]:
    """The URLs of the registries. Those of the command line replace those of files, as with options that have one
    value.
    """
    urls, places = args.registry, p.given.get("registry", ())
    urls = [url for url, place in zip(urls, places, strict=False) if place == COMMAND_LINE] or urls
    if len(urls) > LIMIT:
        p.error(f"argument --registry: given {len(urls)} times, at most {LIMIT} are possible")
    for url in urls:
        try:
            parse_url(url)
        except RegistryError as error:
            p.error(str(error).removesuffix("."))
    return urls


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


def _uplinks(p: OptionParser, args: argparse.Namespace) -> tuple[UplinkOption, ...]:
    if args.uplink and args.remote_gateway:
        p.error("argument --uplink: cannot be combined with --remote-gateway: give the routers with gateway=IP")
    return uplink_option.uplinks_of(p, args.uplink)


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
