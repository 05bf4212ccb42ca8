"""What the host loses when babeld turns IPv6 forwarding on: its default route, if a router advertised it.

A Linux host that forwards takes itself for a router: it drops the default routes it learned from router advertisements
and listens to no more of them, except on interfaces whose accept_ra is 2 (Linux, ip-sysctl; RFC 4861 section 6.2.1).
"""

from __future__ import annotations

import logging
from pathlib import Path

AS_HOST, ALWAYS = "1", "2"
"""Values of accept_ra."""

log = logging.getLogger(__name__)


class Advertisements:
    """Router advertisements are heard also while the host forwards. Interfaces where the user set that are left."""

    def __init__(self, interfaces: Path = Path("/proc/sys/net/ipv6/conf")) -> None:
        self._interfaces = interfaces
        self._changed: list[Path] = []

    def keep(self) -> None:
        """Listen further on every interface that listens now, and on those to come; before forwarding is on."""
        # The kernel reads no interface's accept_ra from `all`; `default` is where new ones have it from.
        for setting in sorted(self._interfaces.glob("*/accept_ra")):
            name = setting.parent.name
            if name not in ("all", "lo") and _read(setting) == AS_HOST and not self._forwards(name):
                self._write(setting, ALWAYS)
                self._changed.append(setting)

    def undo(self) -> None:
        """Put back what was there; not where forwarding stayed on (babeld was killed), as that would take the route."""
        for setting in self._changed:
            if _read(setting) == ALWAYS and not self._forwards(setting.parent.name):
                self._write(setting, AS_HOST)
        self._changed.clear()

    def _forwards(self, name: str) -> bool:
        return _read(self._interfaces / name / "forwarding") != "0"

    def _write(self, setting: Path, value: str) -> None:
        try:
            setting.write_text(value)
        except OSError as error:
            log.warning("%s: %s", setting, error.strerror)


def _read(setting: Path) -> str:
    try:
        return setting.read_text().strip()
    except OSError:  # an interface that went away
        return ""
