# SPDX-FileCopyrightText: 2026 the re6st authors
# SPDX-License-Identifier: Apache-2.0
"""re6st-status: what a node of this machine does, and how well, from its control socket (docs/status.md).

Exit status: 0 healthy, or done; 1 something is wrong, or failed; 2 wrong options; 3 not running; 4 no permission.
`check` has the exit status of monitoring plug-ins (0 ok, 1 warning, 2 critical, 3 unknown), and `wait` ends with 5 when
its time is over.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from re6st.cli.options import OptionParser, fail, integer
from re6st.cli.status.output import (
    HEALTHY,
    NOT_PERMITTED,
    NOT_RUNNING,
    PROGRAM,
    SCHEMA,
    TIMEOUT,
    UNHEALTHY,
    UNKNOWN,
    USAGE,
    end,
    health_of,
    picture,
    print_json,
)
from re6st.cli.terminal import show, width
from re6st.core.words import clock, duration
from re6st.service.control_client import (
    DEFAULT,
    NodeConnection,
    NotPermitted,
    NotRunning,
    RequestRefused,
    Trouble,
    connect,
    in_group,
)
from re6st.view import status_tables as tables
from re6st.view import status_text as text
from re6st.view.event_text import event_lines, event_words
from re6st.view.screen import Line, Span, line
from re6st.view.uplink_table import uplink_lines

POLL = 0.3
"""Seconds between two looks of `wait`."""
PLUGIN = {"ok": (0, "OK"), "warning": (1, "WARNING"), "failed": (2, "CRITICAL")}
"""Exit status and word of a monitoring plug-in, by verdict."""

_EPILOG = """\
examples:
  re6st-status                    everything; exit status 0: healthy
  re6st-status --watch            the same, updated all the time
  re6st-status why 4/16           the next hop to a node, and since when
  re6st-status netcheck           what is wrong with machine and network
  re6st-status wait --timeout 60  for scripts: wait until healthy
"""

_WAITED: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "healthy": lambda status: status["health"]["verdict"] == "ok",
    "address": lambda status: status["babel"]["running"],
    "peer": lambda status: status["mesh"]["peers"] > 0,
    "registry": lambda status: status["registry"]["connected"],
}


def parser() -> OptionParser:
    """All commands and options of re6st-status."""
    p = OptionParser(PROGRAM, "Show what the node of this machine does, and whether it is healthy.", _EPILOG)
    _add_common(p, top=True)
    p.add_argument(
        "--watch", action="store_true", help="update the output until q or Ctrl-C; with --json, print a line each time"
    )
    p.add_argument(
        "--interval", metavar="S", type=integer(1, 3600), default=1, help="seconds between two updates of --watch"
    )
    words = p.add_subparsers(dest="word", metavar="COMMAND", title="commands", parser_class=OptionParser)

    def add(name: str, what: str) -> argparse.ArgumentParser:
        word = words.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        _add_common(word, top=False)
        return word

    add("tunnels", "show the tunnels that this node and its peers opened")
    add("uplinks", "show the lines of this machine to the Internet, and how tunnels use them")
    add("neighbours", "show the neighbours with which babel exchanges routes")
    add("routes", "show the routes in use")
    add("peers", "show the nodes that this one remembers: addresses, and how the last tunnel went")
    graph = add("graph", "show the mesh as this node sees it: neighbours, and the next hop to each node")
    graph.add_argument("--dot", action="store_true", help="print a graph for Graphviz")
    add("cert", "show the certificates of this node and of the network's CA")
    events = add("events", "show the last events, the newest at the end")
    events.add_argument(
        "-n", metavar="N", type=integer(1, 500), default=30, help="number of events (default: %(default)s)"
    )
    events.add_argument("-f", "--follow", action="store_true", help="show new events too, until Ctrl-C")
    for name, what in (
        ("why", "show the next hop to a node, since when it is used, and other routes"),
        ("ping", "send echo requests to a node through the mesh"),
        ("trace", "show the nodes along the route to a node"),
    ):
        word = add(name, what)
        word.add_argument("peer", metavar="PEER", help="a node: its CN such as 4/16, an address, or its subnet")
        if name != "why":
            word.add_argument(
                *("-t", "--timeout"), metavar="S", type=integer(1, 60), default=2, help="seconds to wait for an answer"
            )
        if name == "ping":
            word.add_argument(
                "-c", "--count", metavar="N", type=integer(1, 10_000), default=3, help="number of echo requests"
            )
    wait = add("wait", "wait until the node is healthy, or for what --for says")
    wait.add_argument(
        "--for",
        dest="until",
        choices=tuple(_WAITED),
        default="healthy",
        help="address: the node has its address and babeld runs; peer, registry: another node, or the registry's own,"
        " answers through the mesh (default: %(default)s: nothing is wrong, and a node answers)",
    )
    wait.add_argument(
        "-t",
        "--timeout",
        metavar="S",
        type=integer(0, 86400),
        default=60,
        help="give up after so many seconds, with exit status 5 (default: %(default)s; 0: never)",
    )
    add("netcheck", "check this machine and its network, and say what to do")
    add("check", "print one line, with the exit status of a monitoring plug-in")
    bug = add("bugreport", "write a file that helps to find a fault: versions, state, logs, no secrets")
    bug.add_argument(
        "--anonymise", action="store_true", help="replace addresses, nodes, host names and e-mail addresses by others"
    )
    bug.add_argument(
        *("-o", "--output"),
        metavar="FILE",
        help="file to write (default: a new one here, for its owner only); -: print it",
    )
    log = add("log", "show the node's log as it is written, or change its level until the node ends")
    log.add_argument(
        "level",
        metavar="LEVEL",
        nargs="?",
        type=integer(0, 4),
        help="log level, from 0 (nothing) to 4 (trace); needs root",
    )
    log.add_argument(
        *("-f", "--follow"),
        action="store_true",
        help="show new lines until Ctrl-C; then LEVEL applies to this output only",
    )
    return p


def _add_common(p: argparse.ArgumentParser, *, top: bool) -> None:
    """Options that may stand before or after the command."""
    p.add_argument(
        "--control",
        metavar="SOCK",
        type=Path,
        default=DEFAULT if top else argparse.SUPPRESS,
        help="the node's control socket" + (" (default: %(default)s)" if top else ""),
    )
    p.add_argument(
        "--json", action="store_true", default=False if top else argparse.SUPPRESS, help="print JSON, for programs"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Ask and print; returns the exit status."""
    p = parser()
    options = p.parse(argv)
    try:
        return _main(p, options)
    except BrokenPipeError:  # the reader has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEALTHY
    except KeyboardInterrupt:
        return 130


def _main(p: OptionParser, options: argparse.Namespace) -> int:
    if options.watch and options.word is not None:
        p.error(f"argument --watch: cannot be combined with {options.word}")
    try:
        if options.watch:
            return _watch(p, options)
        if options.word in _ALWAYS:
            return _ALWAYS[options.word](options)
        if options.word == "log" and options.level is None and not options.follow:
            p.error("argument LEVEL: give a level (0 to 4), or --follow to see the log")
        with connect(options.control) as connection:
            return _WORDS[options.word](connection, options)
    except RequestRefused as error:
        end(options, str(error), error.status if error.status in (USAGE, NOT_PERMITTED) else UNHEALTHY)
    except NotRunning as error:
        return _not_running(options, error)
    except NotPermitted as error:
        end(options, str(error), NOT_PERMITTED)
    except Trouble as error:
        end(options, str(error), UNHEALTHY)
    except (LookupError, TypeError) as error:
        message = f"cannot understand re6stnet's answer ({error!r}): does it run another version? Restart re6stnet."
        end(options, message, UNHEALTHY)


# --- words ---


def _overview(connection: NodeConnection, options: argparse.Namespace) -> int:
    found = picture(connection)
    if options.json:
        print_json(
            {
                "running": True,
                **found["status"],
                "tunnels": found["tunnels"],
                "by_next_hop": found["routes"]["by_next_hop"],
                "events": found["events"],
            }
        )
    else:
        show(text.overview(**found, now=time.time(), width=width()))
    return health_of(found["status"])


def _tunnels(connection: NodeConnection, options: argparse.Namespace) -> int:
    answer = connection.ask("tunnels")
    return _list(answer, options, lambda: tables.tunnel_table(answer["tunnels"], width()))


def _uplinks(connection: NodeConnection, options: argparse.Namespace) -> int:
    answer = connection.ask("uplinks")
    return _list(answer, options, lambda: uplink_lines(answer, time.time(), width()))


def _neighbours(connection: NodeConnection, options: argparse.Namespace) -> int:
    answer = connection.ask("neighbours")
    return _list(answer, options, lambda: tables.neighbour_table(answer["neighbours"], width()))


def _routes(connection: NodeConnection, options: argparse.Namespace) -> int:
    answer = connection.routes()
    return _list(answer, options, lambda: tables.route_table(answer["routes"], width()))


def _list(answer: Mapping[str, Any], options: argparse.Namespace, lines: Callable[[], list[Line]]) -> int:
    if options.json:
        print_json(answer)
    else:
        show(lines())
    return HEALTHY


def _events(connection: NodeConnection, options: argparse.Namespace) -> int:
    answer = connection.ask("events", limit=options.n)
    if not options.follow:
        return _list(answer, options, lambda: event_lines(answer["events"], time.time()))
    last = 0
    with connect(options.control, timeout=None) as live:
        live.ask("watch")
        # Events between the two requests are in both answers.
        for event in connection.ask("events", limit=options.n)["events"]:
            _show_event(event, options)
            last = event["number"]
        while True:
            event = live.next()
            if event["number"] > last:
                _show_event(event, options)


def _show_event(event: Mapping[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps({"schema": SCHEMA, **event}), flush=True)
    else:
        show([line(Span(clock(event["time"]), "dim"), "  ", event_words(event))])


def _why(connection: NodeConnection, options: argparse.Namespace) -> int:
    answer = connection.ask("why", peer=options.peer)
    _list(answer, options, lambda: text.why_lines(answer, time.time(), width()))
    return HEALTHY if any(way["in_use"] for way in answer["routes"]) else UNHEALTHY


def _peers(connection: NodeConnection, options: argparse.Namespace) -> int:
    answer = connection.ask("peers")
    return _list(answer, options, lambda: tables.peer_table(answer["peers"], time.time(), width()))


def _graph(connection: NodeConnection, options: argparse.Namespace) -> int:
    from re6st.view.neighbourhood import dot, lines_of, neighbourhood

    own, routes = connection.ask("status")["cn"], connection.routes()["routes"]
    neighbours, tunnels = connection.ask("neighbours")["neighbours"], connection.ask("tunnels")["tunnels"]
    graph = neighbourhood(own, neighbours, tunnels, routes)
    if options.dot:
        print(dot(graph), end="")
        return HEALTHY
    return _list(graph, options, lambda: lines_of(graph, width()))


def _log(connection: NodeConnection, options: argparse.Namespace) -> int:
    if not options.follow:
        answer = connection.ask("log", level=options.level)
        return _list(answer, options, lambda: [line(f"log level {answer['level']}, it was {answer['was']}")])
    with connect(options.control, timeout=None) as live:
        level = live.ask("follow", **({} if options.level is None else {"level": options.level}))["level"]
        if not options.json and sys.stdout.isatty():  # a quiet node logs nothing for hours
            show([line(Span(f"following the log at level {level}, until Ctrl-C", "dim"))])
        while True:
            record = live.next()
            if options.json:
                print(json.dumps({"schema": SCHEMA, **record}), flush=True)
            else:
                show(text.log_lines(record))


def _cert(options: argparse.Namespace) -> int:
    """Certificates of the node; if none runs, those in the package's files."""
    try:
        with connect(options.control) as connection:
            certificate, status = connection.ask("certificate"), HEALTHY
    except NotRunning as error:
        from re6st.cli.status import down

        found = down.certificate()
        if isinstance(found, str):
            end(options, f"{error}; {found}", NOT_RUNNING)
        print(f"{PROGRAM}: {error}; this is in {down.DIRECTORY}", file=sys.stderr)
        certificate, status = found, NOT_RUNNING
    _list(certificate, options, lambda: text.certificate_lines(certificate, time.time(), width()))
    return status


def _check(connection: NodeConnection, options: argparse.Namespace) -> int:
    status = connection.ask("status")
    number, word = PLUGIN.get(status["health"]["verdict"], (UNKNOWN, "UNKNOWN"))
    mesh, problems = status["mesh"], [problem["text"] for problem in status["health"]["problems"]]
    if options.json:
        print_json({"verdict": status["health"]["verdict"], "problems": status["health"]["problems"]})
        return number
    what = "; ".join(problems) or f"{mesh['tunnels']} tunnels, {mesh['peers']} nodes reached"
    print(
        f"RE6ST {word} - {what.replace('|', '/')} | tunnels={mesh['tunnels']};;;0 clients={mesh['clients']};;;0"
        f" neighbours={mesh['neighbours']};;;0 nodes={mesh['peers']};;;0"
    )
    return number


def _wait(options: argparse.Namespace) -> int:
    """Wait until the node is as wanted. It may start only later."""
    from re6st.cli.status import ping

    good, started = _WAITED[options.until], time.monotonic()
    while True:
        try:
            with connect(options.control) as connection:
                status = connection.ask("status")
                if not good(status):
                    why = "; ".join(problem["text"] for problem in status["health"]["problems"]) or "not yet"
                elif options.until == "address":
                    why = ""
                else:
                    why = ping.silence(connection, status, only_registry=options.until == "registry")
            if not why:
                if options.json:
                    print_json({"reached": True, "seconds": round(time.monotonic() - started, 1)})
                return HEALTHY
        except NotPermitted:
            # While it starts, its directory is not yet open to the group.
            if not in_group():
                raise
            why = f"no permission for {options.control}"
        except Trouble as error:
            why = str(error)
        if options.timeout and time.monotonic() - started >= options.timeout:
            if options.json:
                print_json({"reached": False, "seconds": round(time.monotonic() - started, 1), "reason": why})
            fail(PROGRAM, f"not {options.until} within {duration(options.timeout)}: {why}", TIMEOUT)
        time.sleep(POLL)


def _ping(connection: NodeConnection, options: argparse.Namespace) -> int:
    from re6st.cli.status import ping

    return ping.ping(connection, options)


def _trace(connection: NodeConnection, options: argparse.Namespace) -> int:
    from re6st.cli.status import ping

    return ping.trace(connection, options)


def _netcheck(options: argparse.Namespace) -> int:
    from re6st.cli.status import netcheck

    return netcheck.run(options)


def _bugreport(options: argparse.Namespace) -> int:
    from re6st.cli.status import bugreport

    return bugreport.run(options)


_WORDS: Mapping[str | None, Callable[[NodeConnection, argparse.Namespace], int]] = {
    None: _overview,
    "tunnels": _tunnels,
    "uplinks": _uplinks,
    "neighbours": _neighbours,
    "routes": _routes,
    "peers": _peers,
    "graph": _graph,
    "events": _events,
    "why": _why,
    "ping": _ping,
    "trace": _trace,
    "check": _check,
    "log": _log,
}
_ALWAYS: Mapping[str | None, Callable[[argparse.Namespace], int]] = {
    "wait": _wait,
    "cert": _cert,
    "netcheck": _netcheck,
    "bugreport": _bugreport,
}
"""Commands that also work while no node runs."""


def _watch(p: OptionParser, options: argparse.Namespace) -> int:
    from re6st.cli.status import live as status_watch

    if options.json:
        return status_watch.stream(options.control, options.interval)
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        p.error("argument --watch: needs a terminal; with --json it needs none")
    return status_watch.live(options.control, options.interval)


def _not_running(options: argparse.Namespace, error: NotRunning) -> int:
    """Say so, with what can be found out without the node."""
    from re6st.cli.status import down

    if options.word == "check":
        print(f"RE6ST CRITICAL - {error}")
        return PLUGIN["failed"][0]
    found = down.look()
    if options.json:
        print_json({"running": False, "error": str(error), **found})
    print(f"{PROGRAM}: {str(error).rstrip('.')}. {down.remedy(found)}", file=sys.stderr)
    if not options.json and options.word is None:
        for each in down.words(found, time.time()):
            print(each, file=sys.stderr)
    return NOT_RUNNING


if __name__ == "__main__":
    sys.exit(main())
