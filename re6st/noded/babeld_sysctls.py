"""The sysctls that babeld sets, put back at the end: whether this machine forwards packets, among others.

A babeld that ends in good order does that itself. One that is killed does not, as when the next one is to find its
routes; and that one takes what it finds for what the user set.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from re6st.linux.kept_state import SYSCTL
from re6st.noded import changed_sysctls
from re6st.service import rundir

BY_BABELD = {"forwarding": "1", "accept_redirects": "0", "rp_filter": "0"}
"""By the last part of their names, what it makes of them (see linux/router_settings.py)."""
EVERYWHERE = (
    "ipv6/conf/all/forwarding",
    "ipv6/conf/all/accept_redirects",
    "ipv4/conf/all/forwarding",
    "ipv4/conf/all/rp_filter",
)
NOTE_LIMIT = 1 << 16
"""Bytes."""

_NAME = re.compile(r"ipv[46]/conf/[^/]+/(forwarding|accept_redirects|rp_filter)")

log = logging.getLogger(__name__)


class BabeldSysctls:
    """What they were before the first babeld is noted in a file, for the daemon after us."""

    def __init__(self, note: Path, lan: Iterable[str] = (), sysctl: Path = SYSCTL) -> None:
        """`lan` are the interfaces on which babeld runs, besides tunnels, which take their settings along."""
        self._note = note
        self._sysctl = sysctl
        self._names = (*EVERYWHERE, *(f"ipv4/conf/{name}/rp_filter" for name in lan))
        self._before: dict[str, str] = {}

    def keep(self) -> None:
        """Keep in mind what babeld will change, and what an earlier run did not put back; before babeld starts."""
        now = {name: self._value(name) for name in self._names}
        self._before = self._left() | {name: value for name, value in now.items() if value not in ("", _wanted(name))}
        try:
            rundir.write(self._note, json.dumps(self._before).encode())
        except OSError as error:
            log.warning("%s: %s: after a crash this machine goes on forwarding packets", self._note, error.strerror)

    def recall(self) -> None:
        """Take what an earlier run noted for what was there before us, to `undo` it."""
        self._before = self._left()

    def undo(self) -> None:
        """Put back what was there, where it is still what babeld made of it: else somebody has set it since."""
        for name, value in self._before.items():
            if self._value(name) != _wanted(name):
                continue
            try:
                (self._sysctl / name).write_text(value)
            except OSError as error:
                log.warning("cannot set %s to %s again: %s", self._sysctl / name, value, error.strerror)
        self._before.clear()
        with contextlib.suppress(OSError):
            self._note.unlink()

    def _left(self) -> dict[str, str]:
        """What an earlier run noted."""
        found = changed_sysctls.noted(self._note, NOTE_LIMIT)
        told = found.items() if isinstance(found, dict) else ()
        return {name: value for name, value in told if _NAME.fullmatch(name) and value in ("0", "1", "2")}

    def _value(self, name: str) -> str:
        return changed_sysctls.value(self._sysctl / name)


def _wanted(name: str) -> str:
    return BY_BABELD[name.rpartition("/")[2]]
