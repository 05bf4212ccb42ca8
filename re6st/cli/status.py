"""re6st-status: what a node of this machine does, and how well, from its control socket (docs/status.md).

Exit status: 0 healthy, or done; 1 something is wrong, or failed; 2 wrong options; 3 not running; 4 no permission.
`check` has those of monitoring plug-ins (0 ok, 1 warning, 2 critical, 3 unknown), and `wait` 5 when time is over.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NoReturn

from re6st.cli.options import OptionParser, fail, integer
from re6st.control_client import DEFAULT, Connection, NotPermitted, NotRunning, Refused, Trouble, connect, in_group
from re6st.core import status_text as text
from re6st.core.screen import Line, Span, line, paint
from re6st.core.words import duration

PROGRAM = "re6st-status"
SCHEMA = 1
"""Counts up when a field of the JSON changes its meaning or goes."""
HEALTHY, UNHEALTHY, USAGE, NOT_RUNNING, NOT_PERMITTED, TIMEOUT = range(6)
POLL = 0.3
"""Seconds between two looks of `wait`."""
PLUGIN = {"ok": (0, "OK"), "warning": (1, "WARNING"), "failed": (2, "CRITICAL")}
"""Exit status and word of a monitoring plug-in, by verdict."""
UNKNOWN = 3

_EPILOG = """\
examples:
  re6st-status                    the whole picture; exit status 0: healthy
  re6st-status --watch            the same, live
  re6st-status why 4/16           by whom a node is reached, and since when
  re6st-status wait --timeout 60  for scripts: until this node is well
"""

_WAITED: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "healthy": lambda status: status["health"]["verdict"] == "ok",
    "address": lambda status: status["babel"]["running"],
    "peer": lambda status: status["mesh"]["peers"] > 0,
    "registry": lambda status: status["registry"]["connected"],
}


def parser() -> OptionParser:
    """All words and options of re6st-status."""
    p = OptionParser(
        PROGRAM, "Says what the re6stnet node of this machine does: all of it, or what a word asks for.", _EPILOG
    )
    _add_common(p, top=True)
    p.add_argument(
        "--watch", action="store_true", help="show it live, until q or Ctrl-C; with --json, a line each time"
    )
    p.add_argument(
        "--interval", metavar="S", type=integer(1, 3600), default=1, help="seconds between two looks of --watch"
    )
    words = p.add_subparsers(dest="word", metavar="WORD", title="words", parser_class=OptionParser)

    def add(name: str, what: str) -> argparse.ArgumentParser:
        word = words.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        _add_common(word, top=False)
        return word

    add("tunnels", "tunnels, ours and those of the clients of our servers")
    add("neighbours", "everybody that babel exchanges routes with")
    add("routes", "the routes in use")
    events = add("events", "what happened, the newest last")
    events.add_argument("-n", metavar="N", type=integer(1, 500), default=30, help="how many (default: %(default)s)")
    events.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    for name, what in (
        ("why", "which way to a node is used, since when, and what else there is"),
        ("ping", "ask a node for an echo, through the mesh"),
        ("trace", "which nodes the way to a node leads over"),
    ):
        word = add(name, what)
        word.add_argument("peer", metavar="PEER", help="a node: its CN such as 4/16, an address, or its subnet")
        if name != "why":
            word.add_argument(
                *("-t", "--timeout"), metavar="S", type=integer(1, 60), default=2, help="seconds for an answer"
            )
        if name == "ping":
            word.add_argument("-c", "--count", metavar="N", type=integer(1, 10_000), default=3, help="how many")
    wait = add("wait", "wait until the node is well, or has what --for says")
    wait.add_argument(
        "--for",
        dest="until",
        choices=tuple(_WAITED),
        default="healthy",
        help="address: our address is there and babeld runs; peer: another node is reached (default: %(default)s)",
    )
    wait.add_argument(
        "-t",
        "--timeout",
        metavar="S",
        type=integer(0, 86400),
        default=60,
        help="seconds, then exit status 5 (default: %(default)s; 0: without end)",
    )
    add("check", "one line, and the exit status of a monitoring plug-in")
    level = add("log", "change the level of the node's log until it ends, as its option -v")
    level.add_argument("level", metavar="LEVEL", type=integer(0, 4), help="0 nothing to 4 trace")
    return p


def _add_common(p: argparse.ArgumentParser, *, top: bool) -> None:
    """Options that stand before or behind the word."""
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
    """Ask, print, return the exit status."""
    p = parser()
    options = p.parse(argv)
    try:
        return _main(p, options)
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEALTHY
    except KeyboardInterrupt:
        return 130


def _main(p: OptionParser, options: argparse.Namespace) -> int:
    if options.watch and options.word is not None:
        p.error(f"argument --watch: goes with no word: {options.word}")
    try:
        if options.watch:
            return _watch(p, options)
        if options.word == "wait":
            return _wait(options)
        with connect(options.control) as connection:
            return _WORDS[options.word](connection, options)
    except Refused as error:
        _end(options, str(error), error.status if error.status in (USAGE, NOT_PERMITTED) else UNHEALTHY)
    except NotRunning as error:
        return _not_running(options, error)
    except NotPermitted as error:
        _end(options, str(error), NOT_PERMITTED)
    except Trouble as error:
        _end(options, str(error), UNHEALTHY)
    except (LookupError, TypeError) as error:
        message = f"re6stnet's answer is not understood ({error!r}): is it of another version? Restart re6stnet."
        _end(options, message, UNHEALTHY)


def _end(options: argparse.Namespace, message: str, status: int) -> NoReturn:
    """One line; for a monitoring plug-in on its output, and as unknown."""
    if options.word == "check":
        print(f"RE6ST UNKNOWN - {message}")
        raise SystemExit(UNKNOWN)
    if options.json:
        print_json({"error": message})
    fail(PROGRAM, message, status)


# --- output ---


def print_json(record: Mapping[str, Any]) -> None:
    print(json.dumps({"schema": SCHEMA, **record}, indent=2))


def width() -> int | None:
    """Columns of the terminal; None off a terminal, where nothing needs to be cut."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None
    except OSError:
        return None


def has_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(lines: Iterable[Line]) -> None:
    """Print lines, none wider than the terminal."""
    for each in paint(lines, colour=has_colour(), width=width()):
        print(each, flush=True)


# --- words ---


def picture(connection: Connection) -> dict[str, Any]:
    """All that the overview is made from."""
    return {
        "status": connection.ask("status"),
        "tunnels": connection.ask("tunnels")["tunnels"],
        "routes": connection.ask("routes", limit=0),
        "events": connection.ask("events", limit=text.EVENTS_READ)["events"],
    }


def health_of(status: Mapping[str, Any]) -> int:
    return HEALTHY if status["health"]["verdict"] == "ok" else UNHEALTHY


def _overview(connection: Connection, options: argparse.Namespace) -> int:
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


def _tunnels(connection: Connection, options: argparse.Namespace) -> int:
    answer = connection.ask("tunnels")
    return _list(answer, options, lambda: text.tunnel_table(answer["tunnels"], width()))


def _neighbours(connection: Connection, options: argparse.Namespace) -> int:
    answer = connection.ask("neighbours")
    return _list(answer, options, lambda: text.neighbour_table(answer["neighbours"], width()))


def _routes(connection: Connection, options: argparse.Namespace) -> int:
    answer = connection.routes()
    return _list(answer, options, lambda: text.route_table(answer["routes"], width()))


def _list(answer: Mapping[str, Any], options: argparse.Namespace, lines: Callable[[], list[Line]]) -> int:
    if options.json:
        print_json(answer)
    else:
        show(lines())
    return HEALTHY


def _events(connection: Connection, options: argparse.Namespace) -> int:
    answer = connection.ask("events", limit=options.n)
    if not options.follow:
        return _list(answer, options, lambda: text.event_lines(answer["events"], time.time()))
    last = 0
    with connect(options.control, timeout=None) as live:
        live.ask("watch")
        # What came between the two is in both.
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
        when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(event["time"]))
        show([line(Span(when, "dim"), "  ", text.event_words(event))])


def _why(connection: Connection, options: argparse.Namespace) -> int:
    answer = connection.ask("why", peer=options.peer)
    _list(answer, options, lambda: text.why_lines(answer, time.time(), width()))
    return HEALTHY if any(way["in_use"] for way in answer["routes"]) else UNHEALTHY


def _log(connection: Connection, options: argparse.Namespace) -> int:
    answer = connection.ask("log", level=options.level)
    return _list(answer, options, lambda: [line(f"log level {answer['level']}, it was {answer['was']}")])


def _check(connection: Connection, options: argparse.Namespace) -> int:
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
    """Until the node is as wanted. That it does not run yet is no reason to give up."""
    good, started = _WAITED[options.until], time.monotonic()
    while True:
        try:
            with connect(options.control) as connection:
                status = connection.ask("status")
            if good(status):
                if options.json:
                    print_json({"reached": True, "seconds": round(time.monotonic() - started, 1)})
                return HEALTHY
            why = "; ".join(problem["text"] for problem in status["health"]["problems"]) or "not yet"
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


def _ping(connection: Connection, options: argparse.Namespace) -> int:
    from re6st.probe import ProbeError, ping

    node = _find(connection, options.peer)
    times: list[float | None] = []
    if not options.json:
        show([line(f"echo requests to {node['peer']} at {node['address']}")])
    try:
        for number in range(options.count):
            started = time.monotonic()
            seconds = ping(IPv6Address(node["address"]), options.timeout)
            times.append(None if seconds is None else round(seconds * 1000, 3))
            if not options.json:
                answer = text.milliseconds(times[-1]) if seconds is not None else f"no answer in {options.timeout} s"
                show([line(f"{number + 1:>3}  ", Span(answer, "" if seconds is not None else "warning"))])
            if number + 1 < options.count:
                time.sleep(max(0.0, min(1.0, options.timeout) - (time.monotonic() - started)))
    except ProbeError as error:
        _end(options, f"{error}. {_known_way(connection, node)}", UNHEALTHY)
    answered = any(each is not None for each in times)
    if options.json:
        print_json({**node, "milliseconds": times})
    else:
        show([text.ping_summary(times)])
        if not answered:
            show([line(_known_way(connection, node))])
    return HEALTHY if answered else UNHEALTHY


def _trace(connection: Connection, options: argparse.Namespace) -> int:
    from re6st.probe import ProbeError, trace

    node = _find(connection, options.peer)
    hops: list[dict[str, Any]] = []
    reached, refusal = False, ""
    if not options.json:
        show([line(f"the way to {node['peer']} at {node['address']}")])
    try:
        for hop in trace(IPv6Address(node["address"]), options.timeout):
            reached, refusal = hop.reached, hop.refusal
            hops.append(
                {
                    "hop": hop.number,
                    "peer": _name(connection, hop.address),
                    "address": str(hop.address) if hop.address else None,
                    "ms": round(hop.seconds * 1000, 3) if hop.seconds is not None else None,
                }
            )
            if not options.json:
                show([text.hop_line(hops[-1])])
            if [each["address"] for each in hops[-4:]] == [None] * 4:
                break  # nobody farther on answers either
    except ProbeError as error:
        _end(options, f"{error}. {_known_way(connection, node)}", UNHEALTHY)
    if options.json:
        print_json({**node, "hops": hops, "reached": reached, "refusal": refusal})
    elif reached:
        show([line(Span(f"reached in {len(hops)} hop{'s' if len(hops) > 1 else ''}", "good"))])
    else:
        show([line(Span(f"not reached{f': {refusal}' if refusal else ''}", "bad")), line(_known_way(connection, node))])
    return HEALTHY if reached else UNHEALTHY


def _find(connection: Connection, target: str) -> Mapping[str, Any]:
    """The node that is meant. Raises Refused."""
    node: Mapping[str, Any] | None = connection.ask("names", peers=[target])["names"][target]
    if node is None:
        raise Refused(f"{target}: no node is known to have this address", UNHEALTHY)
    return node


def _name(connection: Connection, address: IPv6Address | None) -> str | None:
    """The CN of a node that answered; None for an address outside of re6st."""
    if address is None:
        return None
    try:
        found = connection.ask("names", peers=[str(address)])["names"][str(address)]
    except Refused:
        return None
    return None if found is None else str(found["peer"])


def _known_way(connection: Connection, node: Mapping[str, Any]) -> str:
    """What babel knows about the way to a node that does not answer."""
    try:
        ways = connection.ask("why", peer=node["peer"])["routes"]
    except Refused:
        return f"Babel knows no way to {node['peer']}: it is down, cut off, or was never there."
    used = next((way for way in ways if way["in_use"]), None)
    if used is None:
        return f"Babel has no way to {node['peer']} in use: see {PROGRAM} why {node['peer']}."
    return f"Babel has a way, by {used['via'] or used['address']} on {used['interface']}: see {PROGRAM} trace."


_WORDS: Mapping[str | None, Callable[[Connection, argparse.Namespace], int]] = {
    None: _overview,
    "tunnels": _tunnels,
    "neighbours": _neighbours,
    "routes": _routes,
    "events": _events,
    "why": _why,
    "ping": _ping,
    "trace": _trace,
    "check": _check,
    "log": _log,
}


def _watch(p: OptionParser, options: argparse.Namespace) -> int:
    from re6st.cli import status_watch

    if options.json:
        return status_watch.stream(options.control, options.interval)
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        p.error("argument --watch: needs a terminal; with --json it needs none")
    return status_watch.live(options.control, options.interval)


def _not_running(options: argparse.Namespace, error: NotRunning) -> int:
    """Say so, with what can be found without the node."""
    from re6st.cli import status_down

    if options.word == "check":
        print(f"RE6ST CRITICAL - {error}")
        return PLUGIN["failed"][0]
    found = status_down.look(time.time())
    if options.json:
        print_json({"running": False, "error": str(error), **found})
    print(f"{PROGRAM}: {str(error).rstrip('.')}. {status_down.remedy(found)}", file=sys.stderr)
    if not options.json and options.word is None:
        for each in status_down.words(found, time.time()):
            print(each, file=sys.stderr)
    return NOT_RUNNING


if __name__ == "__main__":
    sys.exit(main())
