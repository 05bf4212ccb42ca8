"""What the host loses when babeld turns IPv6 forwarding on: its default route, if a router advertised it.

A Linux host that forwards takes itself for a router: it drops the default routes it learned from router advertisements
and listens to no more of them, except on interfaces whose accept_ra is 2 (Linux, ip-sysctl; RFC 4861 section 6.2.1).
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

from re6st.noded.changed_sysctls import noted, value
from re6st.service import rundir

AS_HOST, ALWAYS = "1", "2"
"""Values of accept_ra."""
NOTE_LIMIT = 1 << 20
"""Bytes."""

log = logging.getLogger(__name__)


class Advertisements:
    """Router advertisements are heard also while the host forwards. Interfaces where the user set that are left."""

    def __init__(self, note: Path, interfaces: Path = Path("/proc/sys/net/ipv6/conf")) -> None:
        """What is changed is noted in a file, so that the daemon after us knows it from what the user set."""
        self._interfaces = interfaces
        self._note = note
        self._changed: list[Path] = []

    def keep(self) -> None:
        """Listen further on every interface that listens now, and on those to come; before forwarding is on."""
        left = self._left()
        found = []
        # The kernel reads no interface's accept_ra from `all`; `default` is where new ones have it from.
        for setting in sorted(self._interfaces.glob("*/accept_ra")):
            name = setting.parent.name
            if name in ("all", "lo"):
                continue
            if value(setting) == ALWAYS and name in left:
                self._changed.append(setting)
            elif value(setting) == AS_HOST and not self._forwards(name):
                found.append(setting)
        self._changed += found
        self._remember()  # first: a daemon that is killed in between has changed nothing that is not noted
        for setting in found:
            self._write(setting, ALWAYS)

    def recall(self) -> None:
        """Take what an earlier run changed for changed by us, to `undo` it."""
        self._changed = [self._interfaces / name / "accept_ra" for name in sorted(self._left()) if "/" not in name]

    def again(self) -> list[str]:
        """Listen again where others put back what was there, while the host forwards: interfaces, for the log."""
        reset = [each for each in self._changed if value(each) == AS_HOST and self._forwards(each.parent.name)]
        for setting in reset:
            self._write(setting, ALWAYS)
        return [setting.parent.name for setting in reset]

    def undo(self) -> None:
        """Put back what was there; not where forwarding stayed on (babeld was killed), as that would take the route."""
        for setting in self._changed:
            if value(setting) == ALWAYS and not self._forwards(setting.parent.name):
                self._write(setting, AS_HOST)
        self._changed.clear()
        with contextlib.suppress(OSError):
            self._note.unlink()

    def _left(self) -> frozenset[str]:
        """The interfaces that an earlier run changed and did not put back."""
        names = noted(self._note, NOTE_LIMIT)
        return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()

    def _remember(self) -> None:
        names = [setting.parent.name for setting in self._changed]
        try:
            rundir.write(self._note, json.dumps(names).encode())
        except OSError as error:
            log.warning("%s: %s: after a crash accept_ra stays 2", self._note, error.strerror)

    def _forwards(self, name: str) -> bool:
        return value(self._interfaces / name / "forwarding") != "0"

    def _write(self, setting: Path, new: str) -> None:
        try:
            setting.write_text(new)
        except OSError as error:
            log.warning("%s: %s", setting, error.strerror)
