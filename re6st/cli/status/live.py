"""re6st-status --watch: the overview, live in the terminal, until q or Ctrl-C; arrow and page keys scroll it.

It uses the alternate screen of the terminal (as less(1) does), so nothing is left behind. A new size of the terminal is
used at once. While the node does not run, the screen says so.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from re6st.cli.status.output import HEALTHY, NOT_RUNNING, SCHEMA, health_of, picture
from re6st.cli.terminal import has_colour
from re6st.service.control_client import Trouble, connect
from re6st.view import status_text as text
from re6st.view.screen import Line, Span, line, paint, wrap

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
LEAVE = (b"q", b"Q", b"\x03", b"\x1b")
UP, DOWN = (b"\x1b[A", b"\x1bOA", b"k"), (b"\x1b[B", b"\x1bOB", b"j", b"\r", b"\n")
PAGE_UP, PAGE_DOWN = (b"\x1b[5~", b"b"), (b"\x1b[6~", b" ")
FIRST, LAST = (b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"g"), (b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"G")
"""Keys, as terminals send them (xterm, with and without application mode), and as less(1) uses them."""
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def stream(control: Path, interval: float) -> int:
    """One JSON object on a line, each time, until Ctrl-C or until nobody reads."""
    while True:
        try:
            with connect(control) as connection:
                found = picture(connection)
            record = {"running": True, **found.pop("status"), **found}
        except Trouble as error:
            record = {"running": False, "error": str(error)}
        print(json.dumps({"schema": SCHEMA, "time": round(time.time(), 3), **record}), flush=True)
        time.sleep(interval)


def live(control: Path, interval: float) -> int:
    """Run until the user ends it; returns what the exit status of the last look would have been."""
    verdict = HEALTHY
    with _screen() as woken:
        top, looked, lines = 0, -math.inf, list[Line]()
        while True:
            columns, rows = os.get_terminal_size(sys.stdout.fileno())
            if time.monotonic() >= looked + interval:
                lines, verdict = _look(control, columns)
                looked = time.monotonic()
            top = max(0, min(top, len(lines) - room(rows)))
            sys.stdout.write(frame(lines, columns, rows, top, colour=has_colour()))
            sys.stdout.flush()
            key = _key(woken, max(0.0, looked + interval - time.monotonic()))
            if key in LEAVE:
                return verdict
            if key is None:  # the size has changed, and so has the number of lines that fit
                looked = -math.inf
            top = scrolled(key or b"", top, len(lines), rows)


def room(rows: int) -> int:
    """The lines that fit on a screen with so many."""
    return max(1, rows - 1)


def scrolled(key: bytes, top: int, lines: int, rows: int) -> int:
    """The first line to show after a key."""
    page = room(rows)
    step = {**dict.fromkeys(UP, -1), **dict.fromkeys(DOWN, 1), **dict.fromkeys(PAGE_UP, -page)}
    step |= dict.fromkeys(PAGE_DOWN, page) | dict.fromkeys(FIRST, -lines) | dict.fromkeys(LAST, lines)
    return max(0, min(top + step.get(key, 0), lines - page))


def frame(lines: list[Line], columns: int, rows: int, top: int = 0, *, colour: bool) -> str:
    """A full screen, from the line `top` on; the last line says how to see the rest, and how to leave."""
    shown = lines[top : top + room(rows)]
    foot = "q: leave"
    if len(shown) < len(lines):
        foot += f"   lines {top + 1} to {top + len(shown)} of {len(lines)}: arrows and PageUp, PageDown scroll"
    shown = [*shown, *[()] * (room(rows) - len(shown)), line(Span(foot, "dim"))]
    painted = paint(shown, colour=colour, width=columns)
    return _HOME + f"{_END_OF_LINE}\r\n".join(painted[:rows]) + _END_OF_LINE + _BELOW


def _look(control: Path, columns: int) -> tuple[list[Line], int]:
    try:
        with connect(control) as connection:
            found = picture(connection)
    except Trouble as error:
        return [line(Span(each, "bad")) for each in wrap("", str(error), columns)], NOT_RUNNING
    return text.overview(**found, now=time.time(), width=columns), health_of(found["status"])


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """The alternate screen, on which keys are read at once; yields a descriptor that can be read when the size has
    changed.
    """
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


def _key(woken: int, interval: float) -> bytes | None:
    """The key that is pressed within the interval, empty for none, q without a terminal; None: a new size."""
    ready, _, _ = select.select([sys.stdin, woken], [], [], interval)
    if sys.stdin in ready:
        return first_key(os.read(sys.stdin.fileno(), 64)) or b"q"
    if woken in ready:
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
        return None
    return b""


def first_key(read: bytes) -> bytes:
    """The first key in what a terminal sends: one byte, or a whole escape sequence (ECMA-48 section 5.4)."""
    sequence = re.match(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])", read)
    return sequence[0] if sequence else read[:1]
