"""re6st-registry: serve a registry (wire.md 11.3), or make the files of a new one (`init`).

Runs in the foreground. Wrong options: status 2; a configuration that cannot work: one line and status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from pathlib import Path

from cryptography.x509.oid import NameOID

from re6st import MIN_PROTOCOL, PROTOCOL, cert
from re6st.cli import registry_init
from re6st.cli.options import LogHandler, OptionParser, fail, integer, setup_logging
from re6st.core.allocator import WHOLE_NETWORK, AllocationError, Allocator, Community, CommunityError, parse_communities
from re6st.core.params import Parameters, ParamsError, check
from re6st.core.prefix import Prefix
from re6st.ledger import LedgerError
from re6st.localnode import CONTROL_SOCKET, LocalNode
from re6st.mail import Mailer
from re6st.registry import Registry, Settings
from re6st.registry_http import HttpServer
from re6st.store import Store, StoreError

PROGRAM = "re6st-registry"
COMMUNITY_LIMIT = 1 << 20

logger = logging.getLogger("registry")


class ConfigError(Exception):
    """A configuration that cannot work; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a registry needs to start."""

    authority: cert.Authority
    settings: Settings
    database: Path
    run: Path
    origins: tuple[str, ...]
    port: int
    ipv4: str
    """Address to listen on; empty: do not."""
    ipv6: str
    trust_clock: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """The program: serves until SIGTERM or SIGINT, or makes the files of a new registry. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["init"]:
        return registry_init.main(arguments[1:])
    options = _parser().parse(arguments)
    try:
        log = setup_logging(options.verbose, options.logfile)
    except OSError as error:
        fail(PROGRAM, f"log file {options.logfile}: {error.strerror}. Choose another one with --logfile.")
    try:
        asyncio.run(serve(configure(options), log))
    except ConfigError as error:
        logger.error("%s", error)
        fail(PROGRAM, str(error))
    except Exception as error:
        logger.critical("unexpected error", exc_info=True)
        fail(PROGRAM, f"unexpected error, please report it: {type(error).__name__}: {error}")
    return 0


# --- options ---


def _parser() -> OptionParser:
    parser = OptionParser(
        PROGRAM,
        "Serve a registry: it issues certificates, which give each node its subnet, and points nodes to a first peer.",
        f"To make the files of a new network: {PROGRAM} init --network 2001:db8:42::/48\n"
        f"To serve with the options of a file:  {PROGRAM} @{registry_init.OPTIONS_FILE}",
    )
    add = parser.add_argument
    add("--port", metavar="N", type=integer(0, 65535), default=80, help="port to listen on (default: %(default)s)")
    add("-4", dest="ipv4_address", metavar="IP", default="0.0.0.0", help="address to listen on; '' disables IPv4")  # noqa: S104
    add("-6", dest="ipv6_address", metavar="IP", default="::", help="address to listen on; '' disables IPv6")
    add("--db", metavar="FILE", type=Path, default=Path("/var/lib/re6stnet/registry.db"), help="database")
    add("--dh", metavar="FILE", required=True, help="Diffie-Hellman parameters for the nodes, in PEM form")
    add("--ca", metavar="FILE", required=True, help="certificate of the CA, in PEM form")
    add("--key", metavar="FILE", required=True, help="key of the CA, in PEM form")
    add("--mailhost", metavar="HOST", help="SMTP server to mail tokens with, or the path of an mbox file")
    add("--smtp-user", metavar="USER", help="user name for the SMTP server")
    add("--smtp-pwd", metavar="PASSWORD", help="password for the SMTP server")
    add("--smtp-starttls", action="store_true", help="encrypt the connection to the SMTP server")
    length = integer(0, 128)
    add("--prefix-length", metavar="N", type=length, default=16, help="bits of prefixes given for tokens; 0: no tokens")
    add("--anonymous-prefix-length", metavar="N", type=length, default=0, help="bits of prefixes given to anybody")
    add("--ipv4", nargs=2, metavar=("IP/N", "K"), help="IPv4 network for nodes; each gets a subnet /(N+K)")
    log = Path("/var/log/re6stnet/registry.log")
    add("-l", "--logfile", metavar="FILE", type=Path, default=log, help="log file (default: %(default)s)")
    add("-r", "--run", metavar="DIR", type=Path, default=Path("/var/run/re6stnet"), help="run directory of the node")
    parser.add_verbosity(1)
    protocol = integer(MIN_PROTOCOL, PROTOCOL)
    add("--min-protocol", metavar="N", type=protocol, default=MIN_PROTOCOL, help="nodes older than this must stop")
    add("--authorized-origin", metavar="IP", action="append", default=[], help="may call restricted methods, like ::1")
    add("--community", metavar="FILE", help="communities by location")
    add("--grace-period", metavar="S", type=integer(0, 1 << 40), default=8640000, help="seconds to keep what has ended")
    add("--trust-clock", action="store_true", help="the clock is right, though it is far from that of the last run")
    add(
        "--hello", metavar="S", type=integer(1, 3600), default=15, help="hello interval of babel (default: %(default)s)"
    )
    add("--encrypt", action="store_true", help="encrypt tunnels")
    add("--client-count", metavar="N", type=integer(0, 1000), default=10, help="tunnels that a node opens")
    add("--max-clients", metavar="N", type=integer(0, 100_000), help="clients per server (default: twice client-count)")
    add("--tunnel-refresh", metavar="S", type=integer(1, 1 << 30), default=300, help="seconds between tunnel changes")
    add(
        "--same-country",
        metavar="CODE",
        action="append",
        default=[],
        help="countries whose nodes stay among themselves",
    )
    return parser


def configure(options: argparse.Namespace) -> Config:
    """Read the files, and check what goes together. Raises ConfigError."""
    if options.same_country:
        raise ConfigError("--same-country needs a geolocation database (GEOIP2_MMDB), which this version cannot read")
    try:
        ca = cert.load_pem(cert.read_file(options.ca), options.ca)
        authority = cert.Authority(ca, cert.load_private_key(cert.read_file(options.key), options.key))
        dh = cert.read_file(options.dh)
    except cert.CertError as error:
        raise ConfigError(f"{error}. Check --ca, --key and --dh.") from None
    if b"-----BEGIN " not in dh:
        raise ConfigError(f"{options.dh}: no Diffie-Hellman parameters in PEM form. Check --dh.")
    settings = Settings(
        parameters=_parameters(options),
        dh=dh,
        communities=_communities(options.community),
        prefix_length=options.prefix_length,
        anonymous_prefix_length=options.anonymous_prefix_length,
        grace=options.grace_period,
        mailer=_mailer(options, authority),
    )
    _check_lengths(authority, settings)
    return Config(
        authority=authority,
        settings=settings,
        database=options.db,
        run=options.run,
        origins=tuple(_origin(text) for text in options.authorized_origin),
        port=options.port,
        ipv4=options.ipv4_address,
        ipv6=options.ipv6_address,
        trust_clock=options.trust_clock,
    )


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
        client_count=options.client_count,
        max_clients=max_clients,
        encrypt=options.encrypt,
        hello=options.hello,
        tunnel_refresh=options.tunnel_refresh,
        ipv4=network,
        ipv4_sublen=extra,
    )
    try:
        check(parameters.public() | {"version": b"\0"})  # as the nodes will
    except ParamsError as error:
        raise ConfigError(f"the network's parameters: {error}") from None
    return parameters


def _communities(path: str | None) -> tuple[Community, ...]:
    if path is None:
        return WHOLE_NETWORK
    try:
        with open(path, encoding="utf-8") as file:
            return parse_communities(file.read(COMMUNITY_LIMIT))
    except OSError as error:
        raise ConfigError(f"--community {path}: {error.strerror}") from None
    except (CommunityError, UnicodeDecodeError) as error:
        raise ConfigError(f"--community {path}: {error}") from None


def _mailer(options: argparse.Namespace, authority: cert.Authority) -> Mailer | None:
    if not options.mailhost:
        return None
    senders = authority.trust.ca.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
    if not senders:
        raise ConfigError(f"--mailhost: the CA {options.ca} has no emailAddress to send mails from")
    return Mailer(
        options.mailhost, str(senders[0].value), options.smtp_user, options.smtp_pwd, starttls=options.smtp_starttls
    )


def _check_lengths(authority: cert.Authority, settings: Settings) -> None:
    allocator = Allocator(authority.trust.network.prefixlen)
    for option, length in (
        ("--prefix-length", settings.prefix_length),
        ("--anonymous-prefix-length", settings.anonymous_prefix_length),
    ):
        for community in settings.communities if length else ():
            try:
                allocator.check_length(community.prefix, length)
            except AllocationError as error:
                where = f" in community {community.prefix.bits}" if community.prefix.length else ""
                raise ConfigError(f"{option} {length}{where}: {error}") from None


def _origin(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ConfigError(f"--authorized-origin {text}: no IP address") from None


# --- serving ---


async def serve(config: Config, log: LogHandler | None) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError when it cannot start."""
    network = config.authority.trust.network
    sockets = _listen(config)
    try:
        store = Store(config.database, network)
    except StoreError as error:
        _close(sockets)
        raise ConfigError(str(error)) from None
    node = LocalNode(network, config.run / CONTROL_SOCKET)
    try:
        for community in config.settings.communities:
            if community.prefix.length and store.rows.is_used(community.prefix):
                raise ConfigError(f"--community: {community.prefix.bits} lies in a prefix that a node has already")
        await _serve(config, Registry(config.authority, store, config.settings, node), sockets, log)
    except (LedgerError, StoreError) as error:
        raise ConfigError(f"database {config.database}: {error}") from None
    except ExceptionGroup as errors:
        expected, others = errors.split((LedgerError, StoreError))
        if others or not expected:
            raise
        raise ConfigError(f"database {config.database}: {expected.exceptions[0]}") from None
    finally:
        node.close()
        store.close()
        _close(sockets)


async def _serve(config: Config, registry: Registry, sockets: list[socket.socket], log: LogHandler | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if log is not None:
        loop.add_signal_handler(signal.SIGUSR1, log.reopen)
    if config.trust_clock:
        registry.upkeep.trust_clock()
    await registry.upkeep.start()
    server = HttpServer(registry, config.origins)
    await server.start(sockets)
    for each in sockets:
        logger.info("listening on %s port %d", *each.getsockname()[:2])
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(registry.upkeep.run(), name="clean-up"),
                group.create_task(server.run(), name="connections"),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()
    finally:
        await server.stop()
        await registry.upkeep.stop()
    logger.info("stopped")


def _listen(config: Config) -> list[socket.socket]:
    """The bound sockets. Raises ConfigError."""
    sockets: list[socket.socket] = []
    for family, address in ((socket.AF_INET, config.ipv4), (socket.AF_INET6, config.ipv6)):
        if not address:
            continue
        try:
            bound = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address, config.port))
        except OSError as error:
            if address == "::" and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                logger.warning("this machine has no IPv6: listening on IPv4 only")
                continue
            _close(sockets)
            raise ConfigError(
                f"cannot listen on {address} port {config.port}: {error.strerror}."
                " Choose another --port, or other addresses with -4 and -6."
            ) from None
    if not sockets:
        raise ConfigError("neither IPv4 nor IPv6 to listen on: give -4 or -6 an address")
    return sockets


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


if __name__ == "__main__":
    sys.exit(main())
