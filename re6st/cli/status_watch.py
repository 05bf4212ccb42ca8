"""re6st-status --watch: the picture, live in the terminal, until q or Ctrl-C.

The screen is the alternate one of the terminal (as less(1) has it), so nothing is left behind; a new size is taken over
at once. While the node does not run, that is what is shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from re6st.cli import status
from re6st.control_client import Trouble, connect
from re6st.core import status_text as text
from re6st.core.screen import Line, Span, line, paint

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def stream(control: Path, interval: float) -> int:
    """One object a line, each time, until Ctrl-C or until nobody reads."""
    while True:
        try:
            with connect(control) as connection:
                found = status.picture(connection)
            record = {"running": True, **found.pop("status"), **found}
        except Trouble as error:
            record = {"running": False, "error": str(error)}
        print(json.dumps({"schema": status.SCHEMA, "time": round(time.time(), 3), **record}), flush=True)
        time.sleep(interval)


def live(control: Path, interval: float) -> int:
    """Until the user has seen enough; returns what the last look's exit status would have been."""
    verdict = status.HEALTHY
    with _screen() as woken:
        while True:
            columns, rows = os.get_terminal_size(sys.stdout.fileno())
            lines, verdict = _look(control, columns)
            sys.stdout.write(frame(lines, columns, rows, colour=status.has_colour()))
            sys.stdout.flush()
            if _key(woken, interval) in (b"q", b"Q", b"\x03", b"\x1b"):
                return verdict


def frame(lines: list[Line], columns: int, rows: int, *, colour: bool) -> str:
    """A screen full: what does not fit is counted on the last line but one, and the last one says how to leave."""
    room = max(1, rows - 1)
    if len(lines) > room:
        rest = len(lines) - room + 1
        lines = [*lines[: room - 1], line(Span(f"and {rest} more lines: re6st-status shows them all", "dim"))]
    lines = [*lines, *[()] * (room - len(lines)), line(Span("q: leave", "dim"))]
    painted = paint(lines, colour=colour, width=columns)
    return _HOME + f"{_END_OF_LINE}\r\n".join(painted[:rows]) + _END_OF_LINE + _BELOW


def _look(control: Path, columns: int) -> tuple[list[Line], int]:
    try:
        with connect(control) as connection:
            found = status.picture(connection)
    except Trouble as error:
        return [line(Span(each, "bad")) for each in text.wrap("", str(error), columns)], status.NOT_RUNNING
    return text.overview(**found, now=time.time(), width=columns), status.health_of(found["status"])


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """The alternate screen, with keys as they are struck; yields what can be read when the size has changed."""
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)[::-1]
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def changed(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(wake, b"\0")

    def ended(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    handlers = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, changed)
    try:
        tty.setcbreak(keyboard)
        sys.stdout.write(_ENTER)
        yield woken
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(woken)


def _key(woken: int, interval: float) -> bytes:
    """The key that is struck within the interval; nothing for none, or for a new size; q without a terminal."""
    ready, _, _ = select.select([sys.stdin, woken], [], [], interval)
    if woken in ready:
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
    return os.read(sys.stdin.fileno(), 64)[:1] or b"q" if sys.stdin in ready else b""
