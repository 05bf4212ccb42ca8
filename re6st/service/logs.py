"""Logs: to a file that can be reopened, or to the journal. They are limited, and never end the program (wire.md 10.9,
11.2).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from re6st.core import interfaces
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Endpoint, format_addresses

TRACE = 5
"""Log level of -v 4, below logging.DEBUG."""

LEVELS = (logging.CRITICAL + 1, logging.WARNING, logging.INFO, logging.DEBUG, TRACE)
"""The levels of -v, from 0 on."""

FORMATS = ("text", "json")
"""The values of --log-format."""

LEFT_OUT = "left_out"
"""The attribute of a record: how many similar ones were left out before it."""
_LIBRARIES = ("aiohttp.access", "asyncio")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Priorities of syslog(3); all lower levels have 7."""


class LogHandler(logging.Handler):
    """Writes to a file, or to standard error if there is none. `reopen` is for the rotation of logs.

    A message that cannot be written is lost, and this is said once on standard error: a full disk ends no program.
    """

    def __init__(self, path: Path | None) -> None:
        """Raises OSError if the file cannot be opened."""
        super().__init__()
        self._path = path
        self._file = self._open()
        self._complained = False

    @property
    def on_stderr(self) -> bool:
        """Whether its output appears where the program's last words do."""
        return self._path is None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record) + "\n")
            self._complained = False
        except (OSError, ValueError) as error:  # ValueError: closed
            self._complain(error)

    def reopen(self) -> None:
        """Open the file of this name again."""
        with self.lock or contextlib.nullcontext():
            try:
                file = self._open()
            except OSError as error:
                self._complain(error)
                return
            self._close()
            self._file = file

    def close(self) -> None:
        self._close()
        super().close()

    def _open(self) -> int | None:
        if self._path is None:
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, text: str) -> None:
        # Without a buffer, which would keep what does not fit on a full disk.
        if self._file is not None:
            os.write(self._file, text.encode("utf-8", "backslashreplace"))
        elif self._path is None:
            sys.stderr.write(text)
            sys.stderr.flush()

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            with contextlib.suppress(OSError, ValueError):
                print(f"cannot write the log {self._path or 'on standard error'}: {error}", file=sys.stderr)


class _LineFormatter(logging.Formatter):
    """Writes a message as one line: time in UTC, level, part of the program, text with control characters escaped."""

    FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

    def __init__(self) -> None:
        super().__init__(self.FORMAT)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return time.strftime(datefmt or "%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        text = record.message
        if left_out := getattr(record, LEFT_OUT, 0):
            text += f" ({left_out} more like this before)"
        record.message = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        return super().formatMessage(record)


class _JournalFormatter(_LineFormatter):
    """Writes lines for the journal: with the priority before each line (sd-daemon(3)), and without the time, which the
    journal adds.
    """

    FORMAT = "%(name)s: %(message)s"

    def format(self, record: logging.LogRecord) -> str:
        return _with_priority(record, super().format(record))


class _JsonFormatter(logging.Formatter):
    """Writes a message as one line with a JSON object (JSON Lines): `time` (ISO 8601, UTC), `level`, `logger`,
    `message`, and what it is about.

    This is found by the types of the message's arguments: `peer` is a CN, `interface` one of our tunnel interfaces.
    """

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_subjects(record),
        }
        if left_out := getattr(record, LEFT_OUT, 0):
            told[LEFT_OUT] = left_out
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        line = json.dumps(told)
        return _with_priority(record, line) if self._journal else line


def _subjects(record: logging.LogRecord) -> dict[str, str]:
    """What a message names, the first one of each kind."""
    found: dict[str, str] = {}
    for value in record.args if isinstance(record.args, tuple) else ():
        match value:
            case Prefix():
                found.setdefault("peer", value.cn)
            case Endpoint():
                found.setdefault("endpoint", format_addresses((value,)))
            case IPv4Address() | IPv6Address():
                found.setdefault("address", str(value))
            case str() if _is_tunnel(value):
                found.setdefault("interface", value)
    return found


def _is_tunnel(word: str) -> bool:
    """Whether a word is the name of a tunnel interface, and not that of the program."""
    interface = interfaces.parse(word)
    return interface is not None and not interface.is_sole


def _with_priority(record: logging.LogRecord, text: str) -> str:
    """Each line with its priority before it."""
    priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


@dataclass(frozen=True, slots=True)
class _Allowance:
    """A limit: so many lines at once, and one more every so many seconds."""

    at_once: int
    every: float


class RepeatFilter(logging.Filter):
    """Writes a message that is repeated at most ten times an hour, and similar messages about different things more
    often.

    Messages count as the same even if a duration, a number or a time in them differs. The next one that passes says how
    many were left out.
    """

    SAME_LINE = _Allowance(5, 720)
    SAME_DETAIL = _Allowance(5, 12)
    """The limit below INFO."""
    SAME_KIND = _Allowance(100, 36)
    """The limit for warnings and errors."""
    SAME_NEWS = _Allowance(600, 1)
    KEYS = 1024

    _VARYING = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?|\b\d+(\.\d+)? ((s|min|h|d|times?)\b|datagram\(s\))", re.ASCII)

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[str, int, str], tuple[float, float, int]] = OrderedDict()
        """How many more may pass, when that was computed, and how many were left out since the last one that passed."""

    def filter(self, record: logging.LogRecord) -> bool:
        news = record.levelno >= logging.INFO
        gist = self._VARYING.sub("#", record.getMessage())
        left_out = self._pass(record, gist, self.SAME_LINE if news else self.SAME_DETAIL)
        if left_out is not None and news:
            allowance = self.SAME_KIND if record.levelno >= logging.WARNING else self.SAME_NEWS
            of_kind = self._pass(record, f"kind {record.msg}", allowance)
            left_out = None if of_kind is None else left_out + of_kind
        if left_out:
            setattr(record, LEFT_OUT, left_out)
        return left_out is not None

    def _pass(self, record: logging.LogRecord, text: str, allowance: _Allowance) -> int | None:
        """How many messages were left out before this one; None if this one is left out, too."""
        key = (record.name, record.levelno, text)
        left, last, left_out = self._seen.get(key, (allowance.at_once, record.created, 0))
        left = min(allowance.at_once, left + max(0.0, record.created - last) / allowance.every)
        passes = left >= 1
        self._seen[key] = (left - 1, record.created, 0) if passes else (left, record.created, left_out + 1)
        self._seen.move_to_end(key)
        if len(self._seen) > self.KEYS:
            self._seen.popitem(last=False)
        return left_out if passes else None


def in_journal(environment: Mapping[str, str] = os.environ, descriptor: int = 2) -> bool:
    """Whether systemd connected our standard error to its journal (JOURNAL_STREAM in systemd.exec(5))."""
    with contextlib.suppress(OSError):
        found = os.fstat(descriptor)
        return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def setup_logging(
    verbosity: int, path: Path | None, *, journal: bool = False, style: str = FORMATS[0]
) -> LogHandler | None:
    """Log to a file (None: standard error) at the level of -v; returns the handler, or None for level 0.

    `journal`: standard error is the journal. `style` is one of FORMATS. Raises OSError if the file cannot be opened.
    """
    logging.addLevelName(TRACE, "TRACE")
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    set_verbosity(verbosity)
    if verbosity == 0:
        root.addHandler(logging.NullHandler())
        return None
    handler = LogHandler(None if journal else path)
    if style == "json":
        handler.setFormatter(_JsonFormatter(journal=journal))
    else:
        handler.setFormatter(_JournalFormatter() if journal else _LineFormatter())
    handler.addFilter(RepeatFilter())
    root.addHandler(handler)
    return handler


def set_verbosity(verbosity: int) -> None:
    """From now on, log at another level of -v."""
    logging.getLogger().setLevel(LEVELS[verbosity])
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(max(LEVELS[verbosity], logging.WARNING))
