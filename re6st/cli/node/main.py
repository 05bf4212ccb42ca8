# SPDX-FileCopyrightText: 2026 the re6st authors
# SPDX-License-Identifier: Apache-2.0
"""re6stnet: the node daemon's command line (wire.md 11.2)."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from re6st.cert import CertError
from re6st.cli.node.expression import ExpressionError, evaluate
from re6st.cli.node.options import PROGRAM, configuration, parser
from re6st.cli.options import OptionParser, fail
from re6st.client.registry_client import RegistryError
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
from re6st.service.logs import LogHandler, in_journal, setup_logging
from re6st.service.metrics_place import MetricsError
from re6st.service.rundir import RunDirectoryError
from re6st.service.sd_notify import Notifier
from re6st.service.threads import threads
from re6st.transport import openvpn

EXIT_FAILED, EXIT_TOO_OLD, EXIT_PERMISSION, EXIT_CONFIG = 1, 76, 77, 78
EXIT_RESTART = 255


LOG_FILE = "re6stnet.log"

THREADS = 4
"""For names that are looked up, and routes that are read."""


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


async def _run(config: Config, handler: LogHandler | None) -> int:
    """Run until a signal ends it (wire.md 10.9); returns the exit status."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads(THREADS, "blocking"))
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
    logging.getLogger(PROGRAM).debug("the program is loaded")
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
    finally:
        if sys.version_info < (3, 12):
            asyncio.set_child_watcher(None)  # type: ignore[arg-type]  # the default: ours is of no use without this loop


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
