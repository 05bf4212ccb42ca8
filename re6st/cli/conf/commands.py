"""The commands of re6st-conf for a machine that has enrolled: show, renew, rekey (docs/join.md)."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from re6st.cli.conf import renew, show
from re6st.cli.conf.files import NodeFiles, find
from re6st.cli.conf.program import PROGRAM, USAGE, carry_out
from re6st.cli.options import OptionParser, duration, fail, unknown_command


@dataclass(frozen=True, slots=True)
class ConfCommand:
    """One command. `run` returns the exit code."""

    help: str
    example: str
    options: Callable[[OptionParser], None]
    run: Callable[[NodeFiles, argparse.Namespace], int]


def main(arguments: Sequence[str]) -> int:
    """Run the command with which a command line begins. Returns the exit code."""
    name, *rest = arguments
    command = COMMANDS.get(name)
    if command is None:
        fail(PROGRAM, unknown_command(name, ("join", *COMMANDS), "; without one it enrols"), USAGE)
    options = make_parser_of(name).parse_args(rest)
    options.program = f"{PROGRAM} {name}"

    def work() -> int:
        return command.run(find(options.dir, getattr(options, "registry", None) or ()), options)

    return carry_out(options.program, work, options.dir or Path())


def make_parser_of(name: str) -> OptionParser:
    """The options of a command."""
    command, program = COMMANDS[name], f"{PROGRAM} {name}"
    parser = OptionParser(program, command.help, f"example: {program} {command.example}".rstrip())
    parser.add_argument(
        *("-d", "--dir"),
        metavar="DIR",
        type=Path,
        help="directory of the files (default: the current one if it has them, else /etc/re6stnet)",
    )
    command.options(parser)
    return parser


def _registry_option(parser: OptionParser) -> None:
    parser.add_argument(
        "--registry",
        metavar="URL",
        action="append",
        help="URL of the registry, instead of those in re6stnet.conf; repeat it for others that may be asked",
    )


def _show_options(parser: OptionParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _renew_options(parser: OptionParser) -> None:
    _registry_option(parser)
    add = parser.add_argument
    add(
        "--if-within",
        metavar="TIME",
        type=duration,
        default="30d",
        help="renew if an end is nearer than this (default: %(default)s)",
    )
    add("--force", action="store_true", help="ask the registry in any case; it may answer that it is too early")


def _rekey_options(parser: OptionParser) -> None:
    _registry_option(parser)
    parser.add_argument("--keep-old", action="store_true", help="do not revoke the certificate of the old key")


COMMANDS: Mapping[str, ConfCommand] = {
    "show": ConfCommand(
        "Show the certificates and the key of this machine, and what is wrong with them. Needs no network.",
        "-d /etc/re6stnet",
        _show_options,
        show.show,
    ),
    "renew": ConfCommand(
        "Renew the certificates of this machine if they end soon. A running node does so by itself.",
        "--if-within 30d",
        _renew_options,
        lambda place, options: asyncio.run(renew.renew(place, options.if_within, force=options.force)),
    ),
    "rekey": ConfCommand(
        "Make another private key for the subnet of this machine, and have the old one refused.",
        "",
        _rekey_options,
        lambda place, options: asyncio.run(renew.rekey(place, keep_old=options.keep_old)),
    ),
}
