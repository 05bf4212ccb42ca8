"""What the programs share to read their command lines: option files (wire.md 11.1) and errors of one line.

`OptionParser` is argparse with `@FILE`; `fail` ends a program with one line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import stat
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from re6st import PROTOCOL, __version__
from re6st.service.logs import FORMATS, LEVELS
from re6st.view import pasted

FILE_LIMIT = 1 << 20
"""Maximum number of characters in an option file."""
COMMAND_LINE = "command line"
"""The place of an option that is in no file."""
HELP_WIDTH = 78
"""Columns, for texts that argparse does not fold itself."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds of each unit of a duration."""
DURATION_LIMIT = 100 * 366 * 86400
DEPTH_LIMIT = 8
"""How deep option files may include each other."""


def fail(program: str, message: str, status: int = 1) -> NoReturn:
    """End the program with one line for the user."""
    print(f"{program}: {message}", file=sys.stderr)
    raise SystemExit(status)


def is_text(argument: str) -> bool:
    """Whether text from outside, a command line or a terminal, was in its encoding, mostly UTF-8."""
    return not any("\udc80" <= each <= "\udcff" for each in argument)


# --- options ---


@dataclass(frozen=True, slots=True)
class _Line:
    """Where some arguments come from: a line of a file."""

    place: str
    words: tuple[str, ...]


class OptionParser(argparse.ArgumentParser):
    """An argument parser that also reads options from files, if an argument is `@FILE` (wire.md 11.1).

    Wrong options end the program with status 2 and one line, which names the file and line in which they are.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None, usage: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=textwrap.fill(description, HELP_WIDTH),
            epilog=epilog,
            usage=usage,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            exit_on_error=False,  # parse_known_args does
        )
        self._lines: list[_Line] = []
        self._value = ""
        """The value that was checked last."""
        self.given: dict[str, list[str]] = {}
        """Where each option was set, by its name in the namespace: on the command line, or in FILE:LINE."""
        self.warnings: list[str] = []
        """Warnings for the log, which does not exist yet."""
        version = f"{prog} {__version__} (protocol {PROTOCOL})"
        self.add_argument("-V", "--version", action="version", version=version, help="print the version and exit")

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """The options in `argv` (default: the program's arguments) and in the files that it names."""
        return self.parse_args(self.expand(sys.argv[1:] if argv is None else argv))

    def _check_text(self, arguments: Sequence[str]) -> None:
        """A text that is not in the right encoding could neither be shown nor sent."""
        for number, argument in enumerate(arguments, 1):
            if not is_text(argument):
                self.exit(2, f"{self.prog}: argument {number}, {argument!a}, is not in UTF-8\n")

    def expand(self, argv: Sequence[str]) -> list[str]:
        """The arguments; those of the form @FILE are replaced by the contents of the files."""
        self._check_text(argv)
        expanded: list[str] = []
        for argument in argv:
            if argument.startswith("@") and len(argument) > 1:
                expanded += self._read(argument[1:], ())
            else:
                self._note(argument, COMMAND_LINE)
                expanded.append(argument)
        return expanded

    def _note(self, word: str, place: str) -> None:
        """Remember where an option was given, if `word` is one."""
        known, name = self._option_string_actions, word.partition("=")[0]
        if word.startswith("--"):  # it may be abbreviated
            actions = {
                known[each].dest for each in known if each == name or (name not in known and each.startswith(name))
            }
        else:
            actions = {known[word[:2]].dest} if word[:2] in known else set()
        for dest in actions:
            self.given.setdefault(dest, []).append(place)

    def add_verbosity(self, default: int, group: argparse._ArgumentGroup | None = None) -> None:
        """The options -v/--verbose (wire.md 11.2) and --log-format of re6stnet and re6st-registry."""
        options = group or self
        options.add_argument(
            "--log-format",
            choices=FORMATS,
            default=FORMATS[0],
            help="json: one object on each line (default: %(default)s)",
        )
        options.add_argument(
            "-v",
            "--verbose",
            metavar="N",
            type=integer(0, len(LEVELS) - 1),
            default=default,
            help="log level: 0 nothing and no file, 1 warnings, 2 information, 3 debug, 4 trace (default: %(default)s)",
        )

    # Each version of Python words argparse's errors differently, so nothing here reads them.

    def parse_args(  # type: ignore[override]  # nobody gives it an object of another kind
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """The options in `args`; anything else ends the program."""
        options, others = self.parse_known_args(args, namespace)
        if others:
            self._refuse(f"unrecognized arguments: {' '.join(others)}", others)
        return options

    def parse_known_args(  # type: ignore[override]  # nobody gives it an object of another kind
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """The options in `args`, and the remaining arguments. A text in a wrong encoding also ends the program."""
        self._check_text(sys.argv[1:] if args is None else args)
        try:
            return super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            self._refuse(str(error), (error.argument_name or "").split("/"))

    def _get_nargs_pattern(self, action: argparse.Action) -> str:
        """The value of an option cannot begin with a dash: since 3.13.1, argparse takes the next option for the second
        value.
        """
        if action.option_strings and isinstance(action.nargs, int):
            return f"({'A' * action.nargs})"
        return super()._get_nargs_pattern(action)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        self._value = arg_string
        return super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """For an unknown command, the message names the most similar one; for an unknown value, it names all values."""
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            self.exit(2, f"{self.prog}: {unknown_command(value, action.choices)} Try {self.prog} --help.\n")
        raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(map(str, action.choices))}")

    def error(self, message: str) -> NoReturn:
        """End the program. If a message of ours is about an option, it begins with `argument NAME: `."""
        names = re.match(r"argument (\S+): ", message)
        self._refuse(message, names[1].split("/") if names else ())

    def _refuse(self, message: str, names: Iterable[str] = ()) -> NoReturn:
        """End the program because of an option, or of arguments with these names, and say in which line of a file they
        are.
        """
        names = set(names)
        lines = [line for line in self._lines if names.intersection(line.words)]
        exact = [line for line in lines if self._value in line.words]
        place = next((line.place for line in exact + lines), "")
        self.exit(2, f"{self.prog}: {place}{message}. Try {self.prog} --help.\n")

    def _read(self, name: str, parents: tuple[str, ...]) -> list[str]:
        if name in parents or len(parents) >= DEPTH_LIMIT:
            self.error(f"option file {name}: it includes itself, or is included too deep")
        try:
            with open(name, "rb") as file:
                self._check_writers(name, os.fstat(file.fileno()))
                text = pasted.lines(pasted.text(file.read(FILE_LIMIT + 1)))
        except OSError as error:
            self.error(f"option file {name}: {error.strerror}")
        except UnicodeDecodeError:
            self.error(f"option file {name}: not in UTF-8")
        if len(text) > FILE_LIMIT:
            self.error(f"option file {name}: more than {FILE_LIMIT} characters")
        if "\0" in text:  # no argument of a program, and no file name, can contain one
            self.error(f"option file {name}: not a text file, it has a zero byte")
        arguments: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if line.startswith("@"):
                arguments += self._read(line[1:].strip(), (*parents, name))
            elif line and not line.startswith("#"):
                words = self._words(f"{name}:{number}: ", line)
                self._lines.append(_Line(f"{name}:{number}: ", tuple(words)))
                self._note(words[0], f"{name}:{number}")
                arguments += words
        return arguments

    def _check_writers(self, name: str, file: os.stat_result) -> None:
        """Whoever can write an option file controls us: a daemon runs commands that are in it."""
        if not stat.S_ISREG(file.st_mode):
            return
        directory = os.path.dirname(os.path.abspath(name))
        place = os.stat(directory)
        if file.st_mode & stat.S_IWOTH:
            self.error(f"option file {name}: anybody may write to it. Run chmod o-w {name}")
        if place.st_mode & stat.S_IWOTH and not place.st_mode & stat.S_ISVTX:
            self.error(f"option file {name}: anybody may replace it in its directory. Run chmod o-w {directory}")
        if os.geteuid() == 0 and file.st_uid:
            owner = f"option file {name} belongs to the user {file.st_uid}"
            self.warnings.append(f"{owner}, who could have root do anything: run chown root {name}")

    def _words(self, place: str, line: str) -> list[str]:
        """The arguments that one line stands for."""
        try:
            word, *values = shlex.split(line)
        except ValueError as error:
            self.error(f"{place}{error}")
        if quote := next((each[0] for each in values if pasted.typography(each[:1])), None):
            self.error(f"{place}{quote} is a quote of a word processor: write ' or \" instead")
        known = self._option_string_actions
        if (option := f"--{word}") not in known and (option := f"-{word}")[:2] not in known:
            self.error(f"{place}unknown option {word!r}")
        # argparse takes a separate word that begins with a dash for an option.
        action = known.get(option)
        if action is not None and action.nargs is None and len(values) == 1 and values[0].startswith("-"):
            return [f"{option}={values[0]}" if option.startswith("--") else f"{option}{values[0]}"]
        if action is not None and isinstance(action.nargs, int) and 0 < action.nargs != len(values):
            self.error(f"{place}argument {option}: expected {action.nargs} arguments")
        return [option, *values]


def unknown_command(word: str, known: Iterable[str], more: str = "") -> str:
    """A message that a command is unknown, with the most similar one, or else all of them, and `more`."""
    from difflib import get_close_matches  # a daemon never needs it

    words = list(known)
    near = get_close_matches(word, words, 1)
    return f"unknown command {word!r}. " + (
        f"Did you mean {near[0]}?" if near else f"Commands are {', '.join(words)}{more}."
    )


def integer(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: an integer within bounds."""

    def convert(text: str) -> int:
        with contextlib.suppress(ValueError):
            if low <= (value := int(text)) <= high:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between {low} and {high}")

    return convert


def duration(text: str) -> int:
    """An argparse type: the seconds of 30d, 12h, 90m, 45s, 2w, or of a plain number of seconds."""
    number, unit = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1)
    if number.isascii() and number.isdigit() and len(number) < 12 and 0 < int(number) * unit <= DURATION_LIMIT:
        return int(number) * unit
    raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30d, 12h or 90m")


def registry_url(text: str) -> str:
    """An argparse type: the URL of a registry."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.fragment or parts.query or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL of a registry such as https://re6st.example.com/")
    return text
