"""What the programs share at their edge: option files (wire.md 11.1), one-line errors, log files.

`OptionParser` is argparse with `@FILE`; `fail` ends a program with one line; `setup_logging` opens a log file that can
be reopened and that no repeated message can fill.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from re6st import PROTOCOL, __version__

FILE_LIMIT = 1 << 20
"""Bytes of an option file."""
DEPTH_LIMIT = 8
"""Option files that include each other."""

TRACE = 5
"""Log level of -v 4, below logging.DEBUG."""

_LEVELS = (logging.CRITICAL + 1, logging.WARNING, logging.INFO, logging.DEBUG, TRACE)


def fail(program: str, message: str, status: int = 1) -> NoReturn:
    """End the program with one line for the user."""
    print(f"{program}: {message}", file=sys.stderr)
    raise SystemExit(status)


# --- options ---


@dataclass(frozen=True, slots=True)
class _Line:
    """Where in a file some arguments come from."""

    place: str
    words: tuple[str, ...]


class OptionParser(argparse.ArgumentParser):
    """An argument parser that reads options from files too, where an argument is `@FILE` (wire.md 11.1).

    Wrong options end the program with status 2 and one line, which names the file and line they come from.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self._lines: list[_Line] = []
        version = f"{prog} {__version__} (protocol {PROTOCOL})"
        self.add_argument("-V", "--version", action="version", version=version, help="print the version and exit")

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """The options in `argv` (default: the program's arguments) and in the files it names."""
        return self.parse_args(self.expand(sys.argv[1:] if argv is None else argv))

    def expand(self, argv: Sequence[str]) -> list[str]:
        """The arguments, with those of the form @FILE replaced by what the files say."""
        expanded: list[str] = []
        for argument in argv:
            if argument.startswith("@") and len(argument) > 1:
                expanded += self._read(argument[1:], ())
            else:
                expanded.append(argument)
        return expanded

    def add_verbosity(self, default: int) -> None:
        """The option -v/--verbose of re6stnet and re6st-registry (wire.md 11.2)."""
        self.add_argument(
            "-v",
            "--verbose",
            metavar="N",
            type=integer(0, len(_LEVELS) - 1),
            default=default,
            help="log level: 0 nothing and no file, 1 warnings, 2 information, 3 debug, 4 trace (default: %(default)s)",
        )

    def error(self, message: str) -> NoReturn:
        place = self._place_of(message)
        self.exit(2, f"{self.prog}: {place}{message}. Try {self.prog} --help.\n")

    def _read(self, name: str, parents: tuple[str, ...]) -> list[str]:
        if name in parents or len(parents) >= DEPTH_LIMIT:
            self.error(f"option file {name}: included by itself, or too deep")
        try:
            with open(name, encoding="utf-8") as file:
                text = file.read(FILE_LIMIT + 1)
        except OSError as error:
            self.error(f"option file {name}: {error.strerror}")
        except UnicodeDecodeError:
            self.error(f"option file {name}: not in UTF-8")
        if len(text) > FILE_LIMIT:
            self.error(f"option file {name}: more than {FILE_LIMIT} characters")
        arguments: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if line.startswith("@"):
                arguments += self._read(line[1:].strip(), (*parents, name))
            elif line and not line.startswith("#"):
                words = self._words(f"{name}:{number}: ", line)
                self._lines.append(_Line(f"{name}:{number}: ", tuple(words)))
                arguments += words
        return arguments

    def _words(self, place: str, line: str) -> list[str]:
        """The arguments one line stands for."""
        try:
            word, *values = shlex.split(line)
        except ValueError as error:
            self.error(f"{place}{error}")
        known = self._option_string_actions
        if (option := f"--{word}") not in known and (option := f"-{word}")[:2] not in known:
            self.error(f"{place}unknown option {word!r}")
        # argparse takes a separate word that begins with a dash for an option.
        action = known.get(option)
        if action is not None and action.nargs is None and len(values) == 1 and values[0].startswith("-"):
            return [f"{option}={values[0]}" if option.startswith("--") else f"{option}{values[0]}"]
        return [option, *values]

    def _place_of(self, message: str) -> str:
        """The line of a file that argparse complains about, as far as its message tells."""
        kind, _, rest = message.partition(" ")
        if kind == "argument":
            names = set(rest.partition(":")[0].split("/"))
        elif message.startswith("unrecognized arguments: "):
            names = set(message.split()[2:])
        else:
            return ""
        lines = [line for line in self._lines if names.intersection(line.words)]
        exact = [line for line in lines if any(repr(word) in message for word in line.words)]
        return next((line.place for line in exact + lines), "")


def integer(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: an integer within bounds."""

    def convert(text: str) -> int:
        with contextlib.suppress(ValueError):
            if low <= (value := int(text)) <= high:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is no number between {low} and {high}")

    return convert


# --- logs ---


class LogHandler(logging.Handler):
    """Writes to a file, or to standard error where there is none. `reopen` goes with the rotation of logs."""

    def __init__(self, path: Path | None) -> None:
        """Raises OSError when the file cannot be opened."""
        super().__init__()
        self._path = path
        self._stream = self._open()
        self._complained = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._stream.write(self.format(record) + "\n")
            self._stream.flush()
            self._complained = False
        except (OSError, ValueError) as error:  # ValueError: closed
            self._complain(error)

    def reopen(self) -> None:
        """Open the file again under its name."""
        with self.lock or contextlib.nullcontext():
            try:
                stream = self._open()
            except OSError as error:
                self._complain(error)
                return
            if self._path is not None:
                self._stream.close()
            self._stream = stream

    def close(self) -> None:
        if self._path is not None:
            self._stream.close()
        super().close()

    def _open(self) -> TextIO:
        if self._path is None:
            return sys.stderr
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return open(self._path, "a", encoding="utf-8", errors="backslashreplace")

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            with contextlib.suppress(OSError, ValueError):
                print(f"cannot write the log {self._path or 'on standard error'}: {error}", file=sys.stderr)


class _LineFormatter(logging.Formatter):
    """One line a message: time in UTC, level, part of the program, text with control characters escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return time.strftime(datefmt or "%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        text = record.message
        if not text.isprintable():
            record.message = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        return super().formatMessage(record)


class RepeatFilter(logging.Filter):
    """Lets the same line pass a few times a minute, and warnings of one kind a hundred times.

    The first that passes after a silence says how many were left out.
    """

    PERIOD = 60.0
    SAME_LINE = 5
    SAME_KIND = 100
    KEYS = 1024

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[str, int, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        dropped = self._count(record, text, self.SAME_LINE)
        if dropped is not None and record.levelno >= logging.WARNING:
            of_kind = self._count(record, f"kind {record.msg}", self.SAME_KIND)
            dropped = None if of_kind is None else dropped + of_kind
        if dropped:
            record.msg, record.args = f"{text} ({dropped} more like this before)", ()
        return dropped is not None

    def _count(self, record: logging.LogRecord, text: str, limit: int) -> int | None:
        """How many lines were left out before this one; None when this one is left out too."""
        key = (record.name, record.levelno, text)
        start, count = self._seen.get(key, (record.created, 0))
        dropped = 0
        if not 0 <= record.created - start < self.PERIOD:
            dropped = max(0, count - limit)
            start, count = record.created, 0
        self._seen[key] = start, count + 1
        self._seen.move_to_end(key)
        if len(self._seen) > self.KEYS:
            self._seen.popitem(last=False)
        return dropped if count < limit else None


def setup_logging(verbosity: int, path: Path | None) -> LogHandler | None:
    """Log to a file (None: standard error) at the level of -v; returns the handler, None for level 0.

    Raises OSError when the file cannot be opened.
    """
    logging.addLevelName(TRACE, "TRACE")
    root = logging.getLogger()
    root.setLevel(_LEVELS[verbosity])
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    if verbosity == 0:
        root.addHandler(logging.NullHandler())
        return None
    handler = LogHandler(path)
    handler.setFormatter(_LineFormatter())
    handler.addFilter(RepeatFilter())
    root.addHandler(handler)
    for library in ("aiohttp.access", "asyncio", "pyroute2"):
        logging.getLogger(library).setLevel(max(_LEVELS[verbosity], logging.WARNING))
    return handler
