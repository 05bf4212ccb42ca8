# SPDX-FileCopyrightText: 2026 the re6st authors
# SPDX-License-Identifier: Apache-2.0
"""re6st-registry: serves a registry (wire.md 11.3), or makes the files of a new one (`init`).

It runs in the foreground. Wrong options give status 2; a configuration that cannot work gives one line and status 1.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from re6st import cert
from re6st.api.admin import Admin
from re6st.api.admin_socket import AdminServer, socket_path
from re6st.api.http import HttpServer
from re6st.api.metrics import RegistryMetrics
from re6st.cli.options import fail
from re6st.cli.registry import check, commands, init, operator_port
from re6st.cli.registry import page as registry_web
from re6st.cli.registry.config import PROGRAM, ConfigError, RegistryConfig, configure, make_parser
from re6st.cli.registry.database import open_repository
from re6st.cli.registry.page import WebError, WebPage
from re6st.core.machine.packet_rules import SEGMENT
from re6st.core.prefix import Prefix
from re6st.core.wire.params import Parameters
from re6st.keys import pki
from re6st.registry import Registry
from re6st.registryd.local_node import LocalNode
from re6st.registryd.own_node import own_node
from re6st.registryd.parameters import NAMES_SHOWN
from re6st.registryd.repository import ContentError, Queries, Repository, RepositoryError
from re6st.registryd.resources import Resources
from re6st.service import geoip
from re6st.service.logs import LogHandler, in_journal, setup_logging
from re6st.service.metrics_http import MetricsServer, listen
from re6st.service.metrics_place import MetricsError
from re6st.service.run_names import BABELD_SOCKET, CONTROL_SOCKET
from re6st.service.sd_notify import Notifier

SERVING = "serving"

logger = logging.getLogger("registry")


def main(argv: Sequence[str] | None = None) -> int:
    """The program: serves until SIGTERM or SIGINT, or makes the files of a new registry. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["init"]:
        return init.main(arguments[1:])
    if commands.is_command(arguments):
        return commands.main(arguments)
    parser = make_parser()
    options = parser.parse(arguments)
    locations = os.environ.get(geoip.ENVIRONMENT)
    if options.check_config:
        return check.main(options, locations)
    try:
        journal = "logfile" not in parser.given and in_journal()
        log = setup_logging(options.verbose, options.logfile, journal=journal, style=options.log_format)
    except OSError as error:
        fail(PROGRAM, f"log file {options.logfile}: {error.strerror}. Choose another one with --logfile.")
    try:
        asyncio.run(serve(configure(options, locations), log))
    except ConfigError as error:
        _end(log, str(error))
    except Exception as error:
        logger.critical("unexpected error", exc_info=True)
        _end(log, f"unexpected error, please report it: {type(error).__name__}: {error}")
    return 0


def _end(log: LogHandler | None, message: str) -> NoReturn:
    """One line in the log and one for the user, unless that is the same place."""
    logger.critical("%s", message)
    if log is not None and log.on_stderr:
        raise SystemExit(1)
    fail(PROGRAM, message)


# --- serving ---


async def serve(config: RegistryConfig, log: LogHandler | None) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError when it cannot start."""
    network = config.authority.trust.network
    sockets = _listen(config)
    for warning in config.warnings:
        logger.warning("%s", warning)
    for warning in operator_port.warnings(config.ipv4, config.ipv6, config.port, config.url, config.operators):
        logger.warning("%s", warning)
    operators = _listen_to_operators(config, sockets)
    try:
        repository = open_repository(config.database, network)
    except RepositoryError as error:
        _close([*sockets, *operators])
        raise ConfigError(str(error)) from None
    node = LocalNode(network, config.run / BABELD_SOCKET)
    page: WebPage | None = None
    try:
        await _check_ca(config, repository)
        if not config.require_anyway:
            await check_required(config.settings.parameters, repository, time.time())
        for community in config.settings.communities:
            if community.prefix.length and await repository.read(partial(_is_used, prefix=community.prefix)):
                raise ConfigError(f"--community: {community.prefix.bits} lies in a prefix that a node has already")
        own = await repository.read(own_node)
        if own is not None and own.problem:
            logger.error("%s", own.problem)
        registry = await Registry.open(Resources(config.authority, repository, config.settings), node)
        admin = Admin(registry)
        page = _page(config, registry, admin)
        metrics = _metrics(config, registry)
        servers = _servers(config, registry, metrics, sockets, operators)
        await _serve(
            config, registry, AdminServer(admin, socket_path(config.database.file)), page, metrics, servers, log
        )
    except RepositoryError as error:
        raise _database_error(config, error) from None
    except ExceptionGroup as errors:
        expected, others = errors.split(RepositoryError)
        if others or not expected:
            raise
        raise _database_error(config, expected.exceptions[0]) from None
    finally:
        if page is not None:
            page.close()
        node.close()
        repository.close()
        _close([*sockets, *operators])


def _database_error(config: RegistryConfig, error: Exception) -> ConfigError:
    """Name the database in an error, unless the error does so already."""
    return ConfigError(f"database {config.database}: {error}" if isinstance(error, ContentError) else str(error))


def _page(config: RegistryConfig, registry: Registry, admin: Admin) -> WebPage | None:
    """The operator's page, if there is to be one. Raises ConfigError."""
    if config.web is None:
        return None
    try:
        listening = registry_web.listen(config.web)
    except WebError as error:
        raise ConfigError(str(error)) from None
    page = WebPage(config.web, listening, registry, admin, config.origins)
    admin.new_login = page.new_login
    return page


def _metrics(config: RegistryConfig, registry: Registry) -> tuple[RegistryMetrics, MetricsServer] | None:
    """The counters, and the server of the metrics, if they are wanted. Raises ConfigError."""
    if config.metrics is None:
        return None
    figures = RegistryMetrics(registry, per_node=config.metrics_per_node)
    try:
        return figures, MetricsServer(listen(config.metrics), figures.render)
    except MetricsError as error:
        raise ConfigError(str(error)) from None


async def _check_ca(config: RegistryConfig, repository: Repository) -> None:
    """The CA must be the one that issued the certificates in the database. Raises ConfigError."""

    def own_certificate(queries: Queries) -> tuple[Prefix | None, bytes | None]:
        own = queries.registry_prefix()
        return own, queries.pem(own) if own else None

    own, pem = await repository.read(own_certificate)
    if own is None or pem is None:
        return
    try:
        if config.authority.trust.signed(cert.load_pem(pem)):
            return
    except cert.CertError as error:
        logger.warning("certificate of the registry node %s: %s", own.cn, error)
        return
    raise ConfigError(
        f"--ca {config.ca} did not issue the certificate of the registry node {own.cn} in {config.database}."
        f" Check --ca and {config.database.option}; a renewed CA keeps its key and its subject."
    )


def _is_used(queries: Queries, prefix: Prefix) -> bool:
    return queries.is_used(prefix)


def _without(queries: Queries, extension: str, now: float) -> list[Prefix]:
    return queries.without(extension, now)


async def check_required(parameters: Parameters, repository: Repository, now: float) -> None:
    """Check that all nodes have the extensions that are newly required. Raises ConfigError."""
    before = json.loads(await repository.read(lambda queries: queries.config("last_config")) or "{}").get("require", [])
    for name in sorted(parameters.require.difference(before)):
        if lacking := await repository.read(partial(_without, extension=name, now=now)):
            some = ", ".join(prefix.cn for prefix in lacking[:NAMES_SHOWN]) + (" ..." if lacking[NAMES_SHOWN:] else "")
            raise ConfigError(
                f"--require {name}: {len(lacking)} node(s) have not announced this extension, and would have to stop:"
                f" {some}. Upgrade or revoke them, or give --require-anyway."
            )


async def _serve(
    config: RegistryConfig,
    registry: Registry,
    admin: AdminServer,
    page: WebPage | None,
    metrics: tuple[RegistryMetrics, MetricsServer] | None,
    servers: list[tuple[HttpServer, list[socket.socket]]],
    log: LogHandler | None,
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if log is not None:
        loop.add_signal_handler(signal.SIGUSR1, log.reopen)
    notifier = Notifier()
    loop.add_signal_handler(signal.SIGHUP, _reload, config, log, notifier)
    if config.trust_clock:
        registry.parameter_service.trust_clock()
    await registry.restored.look(config.run / CONTROL_SOCKET)  # before we count the version up, or answer anybody
    await registry.parameter_service.start()
    for server, sockets in servers:
        await server.start(sockets)
        for each in sockets:
            logger.info("listening on %s port %d", *each.getsockname()[:2])
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(registry.parameter_service.run(), name="clean-up"),
                *(group.create_task(server.run(), name="connections") for server, _ in servers),
                group.create_task(registry.seen.run(), name="seen"),
                group.create_task(registry.presence.run(), name="presence"),
                group.create_task(registry.event_log.run(), name="events"),
                group.create_task(registry.others.run(), name="other registries"),
                group.create_task(registry.restored.run(config.run / CONTROL_SOCKET), name="restored copies"),
                group.create_task(admin.run(), name="administration"),
                group.create_task(_tell_systemd(notifier), name="systemd"),
            ]
            if page is not None:
                tasks.append(group.create_task(page.run(), name="page"))
            if metrics is not None:
                tasks.append(group.create_task(metrics[1].run(), name="metrics"))
            await stop.wait()
            notifier.stopping()
            for task in tasks:
                task.cancel()
    finally:
        for server, _ in servers:
            await server.stop()
        await registry.seen.try_flush()
        await registry.presence.try_flush()
        await registry.event_log.try_flush()
        await registry.parameter_service.stop()
        notifier.close()
    logger.info("stopped")


async def _tell_systemd(notifier: Notifier) -> None:
    """We listen already; report this, and then that the event loop runs."""
    notifier.ready(SERVING)
    while notifier.watchdog:
        notifier.alive()
        await asyncio.sleep(notifier.watchdog / 3)


def _reload(config: RegistryConfig, log: LogHandler | None, notifier: Notifier) -> None:
    """Read again what may change while we run: the CA certificate, if it was renewed. The log file is opened again."""
    notifier.reloading()
    if log is not None:
        log.reopen()
    _renew_ca(config)
    notifier.ready(SERVING)


def _renew_ca(config: RegistryConfig) -> None:
    try:
        renewed = config.authority.renew(cert.load_pem(cert.read_file(config.ca), str(config.ca)))
    except cert.CertError as error:
        logger.error("--ca %s: %s. Still serving the previous one.", config.ca, error)
        return
    if renewed:
        logger.warning("serving a new CA certificate, valid until %s", pki.end_of(config.authority.trust.ca))


def _listen(config: RegistryConfig) -> list[socket.socket]:
    """The bound sockets. Raises ConfigError."""
    sockets: list[socket.socket] = []
    for family, address in ((socket.AF_INET, config.ipv4), (socket.AF_INET6, config.ipv6)):
        if not address:
            continue
        try:
            bound = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Newcomers get answers even if the path swallows large packets: both ends learn this size.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
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


def _listen_to_operators(config: RegistryConfig, others: list[socket.socket]) -> list[socket.socket]:
    """The bound socket of --operator-port, if there is one. Raises ConfigError, after closing the others."""
    if config.operators.listen is None:
        return []
    try:
        return [operator_port.bound(config.operators.listen)]
    except OSError as error:
        _close(others)
        raise ConfigError(
            f"--operator-port: cannot listen on {config.operators}: {error.strerror}. Choose another one."
        ) from None


def _servers(
    config: RegistryConfig,
    registry: Registry,
    metrics: tuple[RegistryMetrics, MetricsServer] | None,
    sockets: list[socket.socket],
    operators: list[socket.socket],
) -> list[tuple[HttpServer, list[socket.socket]]]:
    """The HTTP servers, and the sockets on which they listen."""
    public = HttpServer(registry, config.origins, config.names, operators=config.operators.with_others)
    servers = [(public, sockets)]
    if operators:
        servers.append((HttpServer(registry, config.origins, config.names), operators))
    if metrics is not None:
        for server, _ in servers:
            server.observed = metrics[0].observed
    return servers


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


if __name__ == "__main__":
    sys.exit(main())
