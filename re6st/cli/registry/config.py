"""The configuration of re6st-registry: its options (wire.md 11.3), and the files that they name.

`configure` returns all of it, or raises for the first thing that cannot work; `problems` lists everything that is
wrong.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from cryptography.x509.oid import NameOID

from re6st import MIN_PROTOCOL, PROTOCOL, cert
from re6st.cli import metrics_place
from re6st.cli.options import OptionParser, integer, registry_url
from re6st.cli.registry import database, init, operator_port, page
from re6st.cli.registry.database import DatabaseError, DatabasePlace
from re6st.cli.registry.operator_port import SAME_PORT, OperatorPlace, operator_place
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.registry.allocator import (
    WHOLE_NETWORK,
    AllocationError,
    Allocator,
    Community,
    CommunityError,
    parse_communities,
)
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.params import PLANES, REGIONS_LIMIT, REGISTRIES_LIMIT, URL_LIMIT, Parameters, ParamsError, check
from re6st.registryd.mail import SMTPS_PORT, Mailer, is_address, is_deliverable
from re6st.registryd.resources import RegistrySettings
from re6st.service import geoip, states
from re6st.service.geoip import GeoIp, GeoIpError
from re6st.service.metrics_place import ListenAddress
from re6st.view import pasted

PROGRAM = "re6st-registry"
DATABASE = Path("/var/lib/re6st-registry/registry.db")
LOG_FILE = Path("/var/log/re6st-registry/registry.log")
COMMUNITY_LIMIT = 1 << 20

P = ParamSpec("P")
T = TypeVar("T")


class ConfigError(Exception):
    """A configuration that cannot work; the text is for the user."""


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """Everything that a registry needs to start."""

    authority: cert.Authority
    ca: Path
    settings: RegistrySettings
    database: DatabasePlace
    run: Path
    origins: tuple[str, ...]
    port: int
    ipv4: str
    """Address on which to listen; empty: none."""
    ipv6: str
    trust_clock: bool = False
    require_anyway: bool = False
    web: page.WebConfig | None = None
    metrics: ListenAddress | None = None
    metrics_per_node: bool = False
    url: str | None = None
    names: tuple[str, ...] = ()
    """The names of this machine that the operator's calls may use, besides IP addresses."""
    operators: OperatorPlace = SAME_PORT
    warnings: tuple[str, ...] = ()
    """Warnings for the log: what does less than the options say."""


def make_parser() -> OptionParser:
    """The options of wire.md 11.3, and our own."""
    parser = OptionParser(
        PROGRAM,
        "Run a registry: it issues certificates, which give each node its subnet, and tells newcomers a first peer.",
        f"Make the files of a new network:     {PROGRAM} init --network NET\n"
        f"Run with the options of a file:      {PROGRAM} @{init.OPTIONS_FILE}\n"
        f"Administer it, running or not:       {PROGRAM} nodes @{init.OPTIONS_FILE}\n"
        "   also invite, tokens, revoke, revoked, rotate, hellos, regions, params,\n"
        "   topology, versions, web-login, backup, migrate, check; each has --help",
        "%(prog)s [COMMAND] [@FILE | OPTION ...]",
    )
    add = parser.add_argument_group("the CA and its certificates").add_argument
    add("--ca", metavar="FILE", required=True, help="certificate of the CA, in PEM form")
    add("--key", metavar="FILE", required=True, help="key of the CA, in PEM form")
    add("--dh", metavar="FILE", required=True, help="Diffie-Hellman parameters for the nodes, in PEM form")
    length = integer(0, 128)
    add(
        "--prefix-length",
        metavar="N",
        type=length,
        default=16,
        help="bits of the prefix that a token gives; 0: no tokens",
    )
    add(
        "--anonymous-prefix-length",
        metavar="N",
        type=length,
        default=0,
        help="bits of the prefix that anybody gets without a token; 0: nobody",
    )
    add("--community", metavar="FILE", help="file that gives parts of the network to countries and continents")
    add(
        "--grace-period",
        metavar="S",
        type=integer(0, 1 << 40),
        default=8640000,
        help="seconds for which an expired certificate can still be renewed",
    )
    add("--trust-clock", action="store_true", help="believe the clock, though it is far from the time of the last run")

    add = parser.add_argument_group("where it listens, and who may call").add_argument
    add("--port", metavar="N", type=integer(0, 65535), default=80, help="port to listen on (default: %(default)s)")
    add("-4", dest="ipv4_address", metavar="IP", default="0.0.0.0", help="address to listen on; '' disables IPv4")  # noqa: S104
    add("-6", dest="ipv6_address", metavar="IP", default="::", help="address to listen on; '' disables IPv6")
    add("--url", metavar="URL", help="URL of this registry, for the invitations that `invite` prints")
    add(
        "--authorized-origin",
        metavar="IP",
        action="append",
        default=[],
        help="an address that may call the operator's methods, like ::1",
    )
    help = "serve the operator's methods here only, or `off`: behind a proxy (default: on --port)"
    add("--operator-port", metavar="[IP:]PORT", type=operator_place, default=SAME_PORT, help=help)

    add = parser.add_argument_group("tokens by mail").add_argument
    help = "SMTP server that mails tokens, HOST[:PORT], with TLS on port 465; or the path of an mbox file"
    add("--mailhost", metavar="HOST", help=help)
    help = "sender of the mails (default: the e-mail address in the CA's certificate)"
    add("--mail-from", metavar="EMAIL", default="", help=help)
    add("--smtp-user", metavar="USER", help="user name for the SMTP server")
    add("--smtp-pwd", metavar="PASSWORD", help="password for the SMTP server")
    add("--smtp-starttls", action="store_true", help="encrypt the connection to the SMTP server")

    net = parser.add_argument_group("parameters of the network, which all nodes get")
    add = net.add_argument
    protocol = integer(MIN_PROTOCOL, PROTOCOL)
    add(
        "--min-protocol",
        metavar="N",
        type=protocol,
        default=MIN_PROTOCOL,
        help="nodes that speak an older protocol must stop",
    )
    add(
        "--require",
        action="append",
        choices=sorted(KNOWN),
        default=[],
        metavar="EXTENSION",
        help="nodes that lack this extension must stop, and get nothing from this registry (repeatable): %(choices)s",
    )
    add(
        "--require-anyway",
        action="store_true",
        help="start even if some nodes have not announced a required extension",
    )
    add("--ipv4", nargs=2, metavar=("IP/N", "K"), help="IPv4 network for the nodes; each node gets a subnet /(N+K)")
    add(
        "--hello",
        metavar="S",
        type=integer(1, 3600),
        default=15,
        help="seconds between two hellos of babel (default: %(default)s)",
    )
    add("--encrypt", action="store_true", help="encrypt tunnels")
    add("--client-count", metavar="N", type=integer(0, 1000), default=10, help="number of tunnels that a node opens")
    add(
        "--max-clients",
        metavar="N",
        type=integer(0, 100_000),
        help="maximum number of clients of each server (default: twice client-count)",
    )
    add(
        "--tunnel-refresh",
        metavar="S",
        type=integer(1, 1 << 30),
        default=300,
        help="seconds after which a node replaces one of its tunnels",
    )
    add(
        "--planes",
        metavar="N",
        type=integer(1, PLANES),
        default=1,
        help="2: nodes have a second routing plane, which leads bulk traffic (class CS1 or LE) by capacity instead of"
        " latency (default: %(default)s)",
    )
    add(
        "--regions",
        metavar="BITS",
        type=integer(0, REGIONS_LIMIT),
        default=0,
        help="nodes whose prefixes begin with the same BITS bits are a region: each knows those of its own, and one"
        " route for each other region; while some node cannot have regions, and with 0, the network is flat"
        " (default: %(default)s)",
    )
    add(
        "--registries",
        metavar="URL",
        nargs="+",
        type=registry_url,
        default=[],
        help="URLs of all registries of this network, or of all addresses of this one, the same at each of them: nodes"
        " ask another one when theirs does not answer",
    )
    add(
        "--registry-nodes",
        metavar="CN",
        nargs="+",
        default=[],
        help="the nodes on the machines of the other registries, as in 7/16: a node that reaches one of them, or the"
        " registry's own node, is connected to the network",
    )
    add(
        "--same-country",
        metavar="CODE",
        action="append",
        default=[],
        help="nodes in this country open tunnels only to each other",
    )

    files = parser.add_argument_group("files and logs")
    add = files.add_argument
    add("--db", metavar="FILE", type=states.database, default=str(DATABASE), help="database (default: %(default)s)")
    database.add_options(files)
    log = "log file (default: the journal where systemd starts the registry, else %(default)s)"
    add("-l", "--logfile", metavar="FILE", type=states.log_file, default=str(LOG_FILE), help=log)
    add(
        "-r",
        "--run",
        metavar="DIR",
        type=Path,
        default=Path("/var/run/re6stnet"),
        help="run directory of the registry's own node",
    )
    parser.add_verbosity(1, files)
    add(
        "--check-config",
        action="store_true",
        help="print what is wrong with options and files, then exit: status 0 if nothing is wrong, else 78",
    )

    watch = parser.add_argument_group("page and metrics")
    page.add_options(watch)
    add = watch.add_argument
    add("--metrics", metavar=metrics_place.METAVAR, type=metrics_place.place, help=metrics_place.HELP)
    add("--metrics-per-node", action="store_true", help="with --metrics: also show when each node last called")
    return parser


def configure(options: argparse.Namespace, locations: str | None = None) -> RegistryConfig:
    """Read the files, and check that everything fits; `locations` is the value of GEOIP2_MMDB, if it is
    set. Raises ConfigError.
    """
    config, found = _read(options, locations)
    if config is None:
        raise ConfigError(found[0])
    return config


def problems(options: argparse.Namespace, locations: str | None = None) -> tuple[RegistryConfig | None, list[str]]:
    """Like `configure`, but returns everything that is wrong, one line each, and the configuration if nothing is."""
    return _read(options, locations)


class _Attempts:
    """Goes on after an error, and remembers it."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def make(self, make: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | None:
        try:
            return make(*args, **options)
        except ConfigError as error:
            self.problems.append(str(error))
            return None


def _read(options: argparse.Namespace, locations: str | None) -> tuple[RegistryConfig | None, list[str]]:
    attempts = _Attempts()
    locator = attempts.make(_locator, options, locations)
    authority = attempts.make(_authority, options)
    dh = attempts.make(_dh, options.dh)
    parameters = attempts.make(_parameters, options)
    communities = attempts.make(_communities, options.community)
    mailer = attempts.make(_mailer, options, authority) if authority else None
    if authority and communities:
        attempts.make(_check_length, authority, communities, "--prefix-length", options.prefix_length)
        anonymous_length = options.anonymous_prefix_length
        attempts.make(_check_length, authority, communities, "--anonymous-prefix-length", anonymous_length)
    attempts.make(_check_regions, options)
    where = attempts.make(_database, options)
    origins = [attempts.make(_origin, text) for text in options.authorized_origin]
    for text in filter(None, (options.ipv4_address, options.ipv6_address)):
        attempts.make(_listen_address, text)
    if (
        attempts.problems
        or authority is None
        or dh is None
        or parameters is None
        or communities is None
        or where is None
    ):
        return None, attempts.problems
    settings = RegistrySettings(
        parameters=parameters,
        dh=dh,
        communities=communities,
        prefix_length=options.prefix_length,
        anonymous_prefix_length=options.anonymous_prefix_length,
        grace=options.grace_period,
        mailer=mailer,
        geoip=locator,
    )
    config = RegistryConfig(
        authority=authority,
        ca=Path(options.ca),
        settings=settings,
        database=where,
        run=options.run,
        origins=tuple(filter(None, origins)),
        port=options.port,
        ipv4=options.ipv4_address,
        ipv6=options.ipv6_address,
        trust_clock=options.trust_clock,
        require_anyway=options.require_anyway,
        web=page.configured(options),
        metrics=options.metrics,
        metrics_per_node=options.metrics_per_node,
        url=options.url,
        names=operator_port.own_names(options.url),
        operators=options.operator_port,
        warnings=tuple(_warnings(options, mailer=mailer, locator=locator)),
    )
    return config, []


def _warnings(options: argparse.Namespace, mailer: Mailer | None, locator: GeoIp | None) -> Iterator[str]:
    """Reasons to warn, but not to refuse: somebody may expect more than the registry does."""
    if options.mailhost and mailer is None:
        yield (
            f"--mailhost: the CA {options.ca} has no emailAddress to send mails from: no tokens are mailed."
            " Give --mail-from, or make tokens with invite"
        )
    if mailer and not mailer.to_file and not is_deliverable(mailer.sender):
        yield (
            f"--mailhost: mails come from {mailer.sender}, which other mail servers refuse:"
            " give an address of yours as --mail-from"
        )
    if mailer and mailer.password and not (mailer.to_file or mailer.starttls or mailer.tls_at_once):
        yield f"--smtp-pwd: the password goes to {mailer.host} in clear: give --smtp-starttls, or port {SMTPS_PORT}"
    if options.community and locator is None:
        yield (
            f"--community {options.community}: without a database of countries all nodes are in the community *:"
            f" {geoip.ADVICE}"
        )


def _locator(options: argparse.Namespace, database: str | None) -> GeoIp | None:
    path = geoip.database(database)
    if path is not None:
        try:
            return GeoIp(path)
        except GeoIpError as error:
            if database or options.same_country or options.community:
                raise ConfigError(f"the database of countries: {error}") from None
    if options.same_country:
        raise ConfigError(f"--same-country needs a database of countries: {geoip.ADVICE}")
    return None


def _authority(options: argparse.Namespace) -> cert.Authority:
    try:
        ca = cert.load_pem(cert.read_file(options.ca), options.ca)
        return cert.Authority(ca, cert.load_private_key(cert.read_file(options.key), options.key))
    except cert.CertError as error:
        raise ConfigError(f"{error}. Check --ca and --key.") from None


def _dh(path: str) -> bytes:
    try:
        data = cert.read_file(path)
    except cert.CertError as error:
        raise ConfigError(f"{error}. Check --dh.") from None
    if b"-----BEGIN " not in data:
        raise ConfigError(f"{path} has no Diffie-Hellman parameters in PEM form. Check --dh.")
    return data


def _parameters(options: argparse.Namespace) -> Parameters:
    ipv4, sublen = options.ipv4 or (None, "0")
    max_clients = 2 * options.client_count if options.max_clients is None else options.max_clients
    try:
        network = None if ipv4 is None else IPv4Network(ipv4)
        extra = integer(0, 16)(sublen)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ConfigError(f"--ipv4 {ipv4} {sublen}: {error}") from None
    if network is not None and network.prefixlen + extra > 32:
        raise ConfigError(
            f"--ipv4 {ipv4} {sublen}: a network of /{network.prefixlen} has no {extra} bits to number nodes"
        )
    parameters = Parameters(
        registry_prefix=Prefix(0, 0),
        protocol=PROTOCOL,
        min_protocol=options.min_protocol,
        extensions=KNOWN,
        require=frozenset(options.require),
        client_count=options.client_count,
        max_clients=max_clients,
        encrypt=options.encrypt,
        hello=options.hello,
        planes=options.planes,
        regions=options.regions,
        registries=_registries(options),
        registry_nodes=_registry_nodes(options),
        tunnel_refresh=options.tunnel_refresh,
        ipv4=network,
        ipv4_sublen=extra,
        same_country=tuple(code.upper() for code in options.same_country) or None,
    )
    try:
        check(parameters.public() | {"version": b"\0"})  # as the nodes will read them
    except ParamsError as error:
        raise ConfigError(f"the network's parameters: {error}") from None
    return parameters


def _registries(options: argparse.Namespace) -> tuple[str, ...]:
    """The URLs that nodes are told."""
    urls: tuple[str, ...] = tuple(dict.fromkeys(options.registries))
    if len(urls) > REGISTRIES_LIMIT:
        raise ConfigError(f"--registries: {len(urls)} URLs, at most {REGISTRIES_LIMIT} are possible")
    for url in urls:
        if urlsplit(url).username is not None:
            host = urlsplit(url).hostname
            raise ConfigError(f"--registries, the URL at {host}: leave out its password, which all nodes would learn")
        if len(url) > URL_LIMIT or not url.isascii():
            raise ConfigError(f"--registries {url}: more than {URL_LIMIT} characters, or others than those of ASCII")
    return urls


def _registry_nodes(options: argparse.Namespace) -> tuple[Prefix, ...]:
    """The nodes beside other registries."""
    if len(options.registry_nodes) > REGISTRIES_LIMIT:
        raise ConfigError(f"--registry-nodes: {len(options.registry_nodes)}, at most {REGISTRIES_LIMIT} are possible")
    try:
        return tuple(dict.fromkeys(map(Prefix.from_cn, options.registry_nodes)))
    except PrefixError as error:
        raise ConfigError(f"--registry-nodes: {error}") from None


def _communities(path: str | None) -> tuple[Community, ...]:
    if path is None:
        return WHOLE_NETWORK
    try:
        with open(path, "rb") as file:
            return parse_communities(pasted.lines(pasted.text(file.read(COMMUNITY_LIMIT))))
    except OSError as error:
        raise ConfigError(f"--community {path}: {error.strerror}") from None
    except (CommunityError, UnicodeDecodeError) as error:
        raise ConfigError(f"--community {path}: {error}") from None


def _mailer(options: argparse.Namespace, authority: cert.Authority) -> Mailer | None:
    if not options.mailhost:
        return None
    senders = authority.trust.ca.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
    sender = options.mail_from or (str(senders[0].value) if senders else "")
    if options.mail_from and not is_address(sender):
        raise ConfigError(f"--mail-from {sender}: not an e-mail address")
    if not sender:
        return None  # SlapOS has no sender, and its registries get their tokens from the operator: see _warnings
    return Mailer(options.mailhost, sender, options.smtp_user, options.smtp_pwd, starttls=options.smtp_starttls)


def _database(options: argparse.Namespace) -> DatabasePlace:
    try:
        return database.place(options, os.environ)
    except DatabaseError as error:
        raise ConfigError(str(error)) from None


def _check_length(authority: cert.Authority, communities: tuple[Community, ...], option: str, length: int) -> None:
    allocator = Allocator(authority.trust.network.prefixlen)
    for community in communities if length else ():
        try:
            allocator.check_length(community.prefix, length)
        except AllocationError as error:
            where = f" in community {community.prefix.bits}" if community.prefix.length else ""
            raise ConfigError(f"{option} {length}{where}: {error}") from None


def _check_regions(options: argparse.Namespace) -> None:
    for option, length in (
        ("--prefix-length", options.prefix_length),
        ("--anonymous-prefix-length", options.anonymous_prefix_length),
    ):
        if options.regions and 0 < length <= options.regions:
            raise ConfigError(
                f"--regions {options.regions}: with {option} {length}, each node would be a region by itself."
                " Give fewer bits, or longer prefixes."
            )


def _origin(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ConfigError(f"--authorized-origin {text}: not an IP address") from None


def _listen_address(text: str) -> None:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        raise ConfigError(f"cannot listen on {text}: it is not an IP address. Check -4 and -6.") from None
