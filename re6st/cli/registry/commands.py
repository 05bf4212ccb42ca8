"""The operator's commands of re6st-registry: nodes, invite, tokens, revoke and so on (docs/registry-admin.md).

A command asks the registry that runs on the database, through the socket beside it. If none runs, the command works on
the file itself, and locks it meanwhile. `check` and `backup` only read, so they need neither.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from re6st import cert
from re6st.api import invitation
from re6st.api.admin import USES_LIMIT, Admin, guessed_url
from re6st.api.admin_socket import Remote, socket_path
from re6st.api.operations import AdminError, Operations
from re6st.cli.options import OptionParser, duration, fail, integer, registry_url, unknown_command
from re6st.cli.registry import migrate, output
from re6st.cli.registry.config import PROGRAM, ConfigError, configure, make_parser
from re6st.cli.registry.database import DatabaseError, DatabasePlace, open_repository, place
from re6st.cli.registry.init import OPTIONS_FILE
from re6st.registry import Registry
from re6st.registryd.listings import Record
from re6st.registryd.local_node import LocalNode
from re6st.registryd.repository import Repository, RepositoryError, RepositoryInUse
from re6st.registryd.resources import Resources
from re6st.registryd.sqlite.check import BackupError, backup, check
from re6st.service import geoip
from re6st.service.json_lines import Status
from re6st.service.run_names import BABELD_SOCKET

CONFIG = Path("/etc/re6stnet") / OPTIONS_FILE
START_TIME = 5.0
"""Seconds for a registry that has locked the database to make its socket."""
FILES = ("db", "database_file", "ca", "key", "dh", "run", "community")


@dataclass(frozen=True, slots=True)
class Command:
    """One command."""

    help: str
    example: str
    options: Callable[[OptionParser], None]
    run: Callable[[Any, argparse.Namespace], Record] | None = None
    """For a command that needs only the files: it gets the daemon's options and its own."""
    ask: Callable[[Operations, argparse.Namespace], Awaitable[Record]] | None = None
    show: Callable[[Record, argparse.Namespace], str] = lambda record, options: ""
    changes: str = ""
    """What remains to be done if no registry runs to tell the nodes."""


def is_command(arguments: Sequence[str]) -> bool:
    """Whether a command line has one of our commands, or a mistyped one, rather than options of the daemon."""
    return bool(arguments) and arguments[0][:1] not in ("-", "@", "")


def main(arguments: Sequence[str]) -> int:
    """Run the command with which a command line begins. Returns the exit status."""
    name, *rest = arguments
    command = COMMANDS.get(name)
    if command is None:
        fail(PROGRAM, unknown_command(name, ("init", *COMMANDS)), Status.USAGE)
    program = f"{PROGRAM} {name}"
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())  # the operator sees what matters below
    options = _parse(name, rest)
    daemon = _daemon_options(program, options)
    try:
        if command.run is not None:
            record = command.run(daemon, options)
        else:
            record = asyncio.run(_carry_out(program, command, daemon, options))
        text = output.to_json(record) if options.json else command.show(record, options)
        if text:
            print(text)
        sys.stdout.flush()
    except AdminError as error:
        fail(program, str(error), error.status)
    except (ConfigError, RepositoryError, BackupError, cert.CertError) as error:
        fail(program, str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has read enough
    except KeyboardInterrupt:
        fail(program, "interrupted", 130)
    return int(Status.FAILED if record.get("ok") is False else Status.DONE)


# --- the command line ---


def make_parser_of(name: str) -> OptionParser:
    """The options of a command."""
    command, program = COMMANDS[name], f"{PROGRAM} {name}"
    parser = OptionParser(program, command.help, f"example: {program} {command.example}".rstrip())
    command.options(parser)
    add = parser.add_argument_group("which registry").add_argument
    add("--config", metavar="FILE", type=Path, help=f"option file of the registry, also @FILE (default: {CONFIG})")
    add("--db", metavar="FILE", type=Path, help="database, instead of the one in the option file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _parse(name: str, arguments: Sequence[str]) -> argparse.Namespace:
    files = [argument[1:] for argument in arguments if argument.startswith("@") and len(argument) > 1]
    parser = make_parser_of(name)
    options = parser.parse_args([argument for argument in arguments if not argument.startswith("@")])
    options.error = parser.error
    if len(files) + (options.config is not None) > 1:
        parser.error("more than one option file")
    if files:
        options.config = Path(files[0])
    return options


def _daemon_options(program: str, options: argparse.Namespace) -> argparse.Namespace:
    """The options of the registry; its files are looked for where it finds them."""
    path = Path(str(options.config or CONFIG).removeprefix("@"))
    if not path.is_file():
        fail(program, f"option file {path}: no such file. Name the registry's: {program} @FILE", Status.USAGE)
    daemon = make_parser().parse([f"@{path}"])
    # Its names are relative to the directory in which it is started: that of its option file, if it is a service.
    if (path.parent / daemon.ca).exists():
        for name in FILES:
            if (value := getattr(daemon, name)) is not None:
                setattr(daemon, name, type(value)(path.parent / value))
    if options.db is not None:
        daemon.db, daemon.database, daemon.database_file = options.db, None, None
    return daemon


# --- the registry, or its file ---


async def _carry_out(program: str, command: Command, daemon: argparse.Namespace, options: argparse.Namespace) -> Record:
    if command.ask is None:
        raise AdminError(Status.FAILED, "not carried out")
    async with _operations(daemon) as operations:
        record = await command.ask(operations, options)
        resting = isinstance(operations, Admin) and _place(daemon).url is None
        if command.changes and resting and not getattr(options, "status", False):
            _note(program, f"the registry does not run: {command.changes}")
    if command is COMMANDS["invite"]:
        record |= _joining(program, record, daemon, options)
    return record


@asynccontextmanager
async def _operations(daemon: argparse.Namespace) -> AsyncIterator[Operations]:
    """Carries out operations on a database. Raises AdminError, ConfigError, RepositoryError."""
    path = socket_path(daemon.db)
    loop = asyncio.get_running_loop()
    end = loop.time() + START_TIME
    while True:
        try:
            remote = await Remote.connect(path)
        except PermissionError:
            _refuse_permission(path)
        except OSError:
            try:
                store = _open(daemon)
            except RepositoryInUse:
                if loop.time() < end:  # it is just starting, or another command uses it
                    await asyncio.sleep(0.1)
                    continue
                raise AdminError(
                    Status.FAILED,
                    f"database {daemon.db}: a registry uses it, but does not listen on {path}. See its log.",
                ) from None
            break
        try:
            yield remote
        finally:
            remote.close()
        return
    try:
        config = configure(daemon, os.environ.get(geoip.ENVIRONMENT))
        node = LocalNode(config.authority.trust.network, config.run / BABELD_SOCKET)
        try:
            registry = await Registry.open(Resources(config.authority, store, config.settings), node)
            await registry.parameter_service.load()
            yield Admin(registry)
            await registry.event_log.try_flush()
        finally:
            node.close()
    finally:
        store.close()


def _open(daemon: argparse.Namespace) -> Repository:
    where = _place(daemon)
    if where.url is not None:
        return open_repository(where, _trust(daemon).network)
    try:
        if not daemon.db.exists():
            raise AdminError(
                Status.FAILED,
                f"database {daemon.db}: no such file. Start the registry first, which makes it;"
                " if it is started with another --db, give that here too.",
            )
    except PermissionError:
        _refuse_permission(daemon.db)
    return open_repository(where, _trust(daemon).network)


def _place(daemon: argparse.Namespace) -> DatabasePlace:
    try:
        return place(daemon, os.environ)
    except DatabaseError as error:
        raise ConfigError(str(error)) from None


def _file(daemon: argparse.Namespace) -> Path:
    """The database, for what needs a file. Raises AdminError."""
    if _place(daemon).url is not None:
        raise AdminError(
            Status.FAILED, "the state is in PostgreSQL: back it up, and check it, with PostgreSQL's programs (pg_dump)"
        )
    path: Path = daemon.db
    if not path.exists():
        raise AdminError(Status.FAILED, f"database {path}: no such file")
    return path


def _refuse_permission(path: Path) -> NoReturn:
    raise AdminError(Status.FAILED, f"no permission for {path}. Run it as root, or as the user of the registry.")


def _trust(daemon: argparse.Namespace) -> cert.Trust:
    return cert.Trust(cert.load_pem(cert.read_file(daemon.ca), str(daemon.ca)))


def _note(program: str, text: str) -> None:
    print(f"{program}: {text}", file=sys.stderr)


# --- commands ---


async def _all(operations: Operations, operation: str, arguments: Mapping[str, Any]) -> list[Record]:
    """All pages of a list."""
    records: list[Record] = []
    after: str | None = ""
    while after is not None:
        page = await operations.call(operation, {**arguments, "after": after})
        records += page[operation]
        after = page["next"]
    return records


async def _nodes(operations: Operations, options: argparse.Namespace) -> Record:
    if options.cn is not None:
        if options.email or options.expiring or options.unseen or options.tag or options.online is not None:
            options.error("PEER is one node, so it cannot be combined with a filter")
        return {"nodes": [(await operations.call("node", {"target": options.cn}))["node"]]}
    wanted = {"email": options.email, "expiring": options.expiring, "unseen": options.unseen, "online": options.online}
    found = await _all(operations, "nodes", wanted)
    return {"nodes": [node for node in found if set(options.tag) <= set(node["tags"])]}


async def _tag(operations: Operations, options: argparse.Namespace) -> Record:
    if options.none and options.tags:
        options.error("--none removes all tags, so it cannot be combined with tags")
    if not (options.tags or options.none):
        return await operations.call("node", {"target": options.cn})
    return await operations.call("tag", {"target": options.cn, "tags": " ".join(options.tags)})


async def _invite(operations: Operations, options: argparse.Namespace) -> Record:
    arguments = {
        "email": options.email,
        "prefix_length": options.prefix_length,
        "life": options.expires,
        "uses": options.reusable,
        "tags": " ".join(options.tag),
    }
    return await operations.call("invite", arguments)


def _joining(program: str, invited: Record, daemon: argparse.Namespace, options: argparse.Namespace) -> Record:
    url = options.url or daemon.url
    if url is None:
        url = guessed_url(daemon.port)
        _note(program, f"the URL {url} is a guess: give the right one with --url, or as url in the option file")
    link = invitation.link(url, invited)
    return {"url": url, "link": link, "join": invitation.command(link)}


async def _tokens(operations: Operations, options: argparse.Namespace) -> Record:
    if options.delete is not None:
        return {"deleted": (await operations.call("delete-token", {"token": options.delete}))["token"]}
    return {"tokens": await _all(operations, "tokens", {})}


async def _revoke(operations: Operations, options: argparse.Namespace) -> Record:
    if not options.yes:
        node = (await operations.call("node", {"target": options.target}))["node"]
        serial = options.target if options.target.isdigit() else ""
        if node["registry"] and not serial:  # it will be refused, so there is nothing to ask
            return await operations.call("revoke", {"target": options.target})
        if not sys.stdin.isatty():
            raise AdminError(Status.USAGE, "there is no terminal to ask on: nothing was revoked. Give --yes.")
        print(output.warning(node, serial), file=sys.stderr)
        print("Revoke it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise AdminError(Status.FAILED, "nothing was revoked")
    return await operations.call("revoke", {"target": options.target, "reason": options.reason})


async def _own_node(operations: Operations, options: argparse.Namespace) -> Record:
    return await operations.call("own-node", {"target": options.cn})


async def _name(operations: Operations, options: argparse.Namespace) -> Record:
    if options.name is not None and options.remove:
        options.error("--remove takes the name away, so it cannot be combined with NAME")
    return await operations.call("name", {"target": options.peer, "name": options.name, "remove": int(options.remove)})


async def _revoked(operations: Operations, options: argparse.Namespace) -> Record:
    return {"revoked": await _all(operations, "revoked", {})}


async def _rotate(operations: Operations, options: argparse.Namespace) -> Record:
    record = await operations.call("rotate", {"step": 0 if options.status else 1, "force": int(options.force)})
    return record | {"next": output.next_rotation(record)}


async def _hellos(operations: Operations, options: argparse.Namespace) -> Record:
    return await operations.call("hellos", {"short": int(options.short)})


async def _regions(operations: Operations, options: argparse.Namespace) -> Record:
    return await operations.call("regions", {"now": int(options.now)})


def _simple(operation: str) -> Callable[[Operations, argparse.Namespace], Awaitable[Record]]:
    async def ask(operations: Operations, options: argparse.Namespace) -> Record:
        return await operations.call(operation, {})

    return ask


def _check(daemon: argparse.Namespace, options: argparse.Namespace) -> Record:
    path = _file(daemon)
    report = check(path, _trust(daemon))
    return {"database": str(path), "ok": not (report.problems or report.warnings), **output.report_record(report)}


def _backup(daemon: argparse.Namespace, options: argparse.Namespace) -> Record:
    path = _file(daemon)
    if options.file.exists() and not options.force:
        message = f"{options.file} exists already, and is not replaced. Choose another name, or give --force."
        raise AdminError(Status.CONFLICT, message)
    report = backup(path, options.file, _trust(daemon), force=options.force)
    return {"file": str(options.file), "bytes": options.file.stat().st_size, **output.report_record(report)}


# --- their options ---


def _no_options(parser: OptionParser) -> None:
    pass


def _nodes_options(parser: OptionParser) -> None:
    add = parser.add_argument
    add(
        "cn",
        metavar="PEER",
        nargs="?",
        help="show one node: its name, its CN, its certificate's serial, or an address in its subnet",
    )
    add(
        "--expiring",
        metavar="TIME",
        type=duration,
        help="only nodes whose certificate has ended or ends within this time, e.g. 30d",
    )
    add("--unseen", metavar="TIME", type=duration, help="only nodes that have not called for this time, e.g. 7d")
    add("--email", metavar="EMAIL", help="only nodes with this e-mail address")
    add("--tag", metavar="TAG", action="append", default=[], help="only nodes with this tag; may be given again")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--online", dest="online", action="store_const", const=1, help="only nodes that are online")
    either("--offline", dest="online", action="store_const", const=0, help="only nodes that are offline")


def _tag_options(parser: OptionParser) -> None:
    add = parser.add_argument
    add("cn", metavar="PEER", help="the node: its name, its CN, its certificate's serial, or an address in its subnet")
    add("tags", metavar="TAG", nargs="*", help="its tags from now on; without any, they are shown")
    add("--none", action="store_true", help="remove all its tags")


def _invite_options(parser: OptionParser) -> None:
    add = parser.add_argument
    add("email", metavar="EMAIL", nargs="?", help="owner of the new machine; no mail is sent")
    add("--prefix-length", metavar="N", type=integer(1, 128), help="bits of the prefix (default: the registry's)")
    add(
        "--expires",
        metavar="TIME",
        type=duration,
        default="7d",
        help="how long the token is valid (default: %(default)s)",
    )
    add(
        "--reusable",
        metavar="N",
        type=integer(1, USES_LIMIT),
        default=1,
        help="let in so many machines with this invitation (default: %(default)s)",
    )
    add("--tag", metavar="TAG", action="append", default=[], help="give each machine this tag; may be given again")
    add("--url", metavar="URL", type=registry_url, help="URL of this registry, for the new machine")
    add("--qr", action="store_true", help="also print the link as a QR code")


def _tokens_options(parser: OptionParser) -> None:
    parser.add_argument("--delete", metavar="TOKEN", help="delete this token")


def _revoke_options(parser: OptionParser) -> None:
    add = parser.add_argument
    add(
        "target",
        metavar="PEER|SERIAL",
        help="name, CN or address: the node loses its membership. Serial: it has to renew its certificate",
    )
    add("--yes", action="store_true", help="do not ask for confirmation")
    add("--reason", metavar="TEXT", default="", help="reason, for the list of revoked certificates")


def _own_node_options(parser: OptionParser) -> None:
    parser.add_argument("cn", metavar="PEER", nargs="?", help="make this node, on the registry's machine, its own node")


def _name_options(parser: OptionParser) -> None:
    add = parser.add_argument
    add(
        "peer", metavar="PEER", help="the node: its name, its CN, its certificate's serial, or an address in its subnet"
    )
    add("name", metavar="NAME", nargs="?", help="its name from now on; without this, show its name")
    add("--remove", action="store_true", help="take the name away")


def _rotate_options(parser: OptionParser) -> None:
    parser.add_argument("what", metavar="hmac", nargs="?", choices=["hmac"], help="babel's key: there is no other")
    parser.add_argument("--status", action="store_true", help="only show the current step")
    parser.add_argument("--force", action="store_true", help="take the next step before its time")


def _hellos_options(parser: OptionParser) -> None:
    parser.add_argument("--short", action="store_true", help="no node of the older software is left: do not wait a day")


def _regions_options(parser: OptionParser) -> None:
    parser.add_argument("--now", action="store_true", help="no node of older software is left: do not wait a day")


def _topology_options(parser: OptionParser) -> None:
    parser.add_argument("--dot", action="store_true", help="print a graph for Graphviz")


def _backup_options(parser: OptionParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


_LATER = "nodes learn of it when it does"

COMMANDS: Mapping[str, Command] = {
    "nodes": Command(
        "List the nodes, or show one of them.", "--expiring 30d", _nodes_options, None, _nodes, output.nodes
    ),
    "invite": Command(
        "Make a token, and print the command with which a new machine joins.",
        "alice@example.org --expires 7d",
        *(_invite_options, None, _invite, output.invitation),
    ),
    "tag": Command("Show or change the tags of a node.", "120/16 web paris", _tag_options, None, _tag, output.tags),
    "tokens": Command(
        "List the unused tokens, or delete one of them.", "", _tokens_options, None, _tokens, output.tokens
    ),
    "revoke": Command(
        "Revoke the certificate of a node.",
        "120/16 --reason stolen",
        _revoke_options,
        None,
        _revoke,
        output.revocation,
        _LATER,
    ),
    "revoked": Command("List the revoked certificates.", "", _no_options, None, _revoked, output.revoked),
    "own-node": Command(
        "Show which node is the registry's own, or replace it by another node of this machine.",
        "8/16",
        *(_own_node_options, None, _own_node, output.own_node, _LATER),
    ),
    "name": Command(
        "Show the name of a node, or give it another one.",
        "120/16 web1",
        *(_name_options, None, _name, output.name),
    ),
    "rotate": Command(
        "Change babel's key: each call takes one of three steps.",
        "--status",
        _rotate_options,
        None,
        _rotate,
        output.rotation,
        _LATER,
    ),
    "hellos": Command(
        "Show whether the intervals of babel's hellos are short, and which nodes prevent that.",
        "--short",
        *(_hellos_options, None, _hellos, output.hellos),
    ),
    "regions": Command(
        "Show whether the network is in regions, and which nodes keep it flat.",
        "--now",
        *(_regions_options, None, _regions, output.regions),
    ),
    "params": Command("Show the parameters of the network.", "", _no_options, None, _simple("params"), output.params),
    "topology": Command(
        "Show who has tunnels to whom.", "--dot", _topology_options, None, _simple("topology"), output.topology
    ),
    "versions": Command(
        "Show what software the nodes run.", "", _no_options, None, _simple("versions"), output.versions
    ),
    "web-login": Command(
        "Make a link to log in to the operator's page: for one use, within ten minutes.",
        *("", _no_options, None, _simple("web-login"), output.web_login),
    ),
    "backup": Command(
        "Copy the database, also while the registry runs.",
        "/var/backups/registry.db",
        _backup_options,
        _backup,
        None,
        output.backup,
    ),
    "migrate": Command(
        "Move the state of a registry that does not run from a file to PostgreSQL, or back.",
        "--from registry.db --to postgresql://db1/re6st",
        *(migrate.add_options, migrate.run, None, migrate.show),
    ),
    "check": Command("Verify the database.", "", _no_options, _check, None, output.check),
}
