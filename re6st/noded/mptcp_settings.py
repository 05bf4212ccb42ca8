"""The kernel's endpoints and limits of MPTCP: as a node wants them, and as they were at the end.

They are for the whole machine. So endpoints of others stay as they are, limits are only raised, and what they were is
noted in a file, for the daemon after us.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any, Protocol

from re6st.core.machine.mptcp import NEEDED, MptcpEndpoint, MptcpLimits, differences
from re6st.linux.mptcp_netlink import MptcpNetlink
from re6st.noded import changed_sysctls
from re6st.service import rundir

NOTE_LIMIT = 1 << 12
"""Bytes."""

log = logging.getLogger(__name__)


class MptcpKernel(Protocol):
    """linux/mptcp_netlink.py. Each raises OSError."""

    def need(self) -> None:
        """Raises NoMptcp where connections do not use endpoints now."""

    def endpoints(self) -> Mapping[int, MptcpEndpoint]: ...
    def add(self, endpoint: MptcpEndpoint) -> None: ...
    def delete(self, number: int, endpoint: MptcpEndpoint) -> None: ...
    def limits(self) -> MptcpLimits: ...
    def set_limits(self, limits: MptcpLimits) -> None: ...
    def close(self) -> None: ...


class MptcpSettings:
    """For one node. Nothing is changed before `follow`."""

    def __init__(self, note: Path, kernel: Callable[[], MptcpKernel] = MptcpNetlink) -> None:
        self._note = note
        self._make = kernel
        self._kernel: MptcpKernel | None = None
        self._room: IPv6Network | None = None
        """Where our endpoints are."""
        self._before: MptcpLimits | None = None
        """What the limits were; None where we did not change them."""
        self._raised: MptcpLimits | None = None
        """What we made of them."""

    def recall(self) -> None:
        """Take what an earlier run noted for what we did."""
        self._room, self._before, self._raised = _read(changed_sysctls.noted(self._note, NOTE_LIMIT))

    def follow(self, wanted: Collection[MptcpEndpoint], room: IPv6Network | None) -> list[str]:
        """Have these endpoints, and no others in this room, and what limits they need; says what keeps one away.

        Raises OSError: NoMptcp where there is none.
        """
        if self._kernel is None:
            self._kernel = self._make()
            self.recall()
        self._kernel.need()
        self._raise(self._kernel, room)
        surplus, missing = differences(wanted, self._kernel.endpoints(), room)
        for number, each in surplus.items():
            self._kernel.delete(number, each)
        return [text for text in (self._add(self._kernel, each) for each in missing) if text]

    def undo(self) -> None:
        """Put back what was there, where limits are still what we made of them: else somebody has set them since."""
        if self._kernel is None and self._room is None and self._before is None:
            return
        try:
            kernel = self._kernel = self._kernel or self._make()
            for number, each in differences((), kernel.endpoints(), self._room)[0].items():
                kernel.delete(number, each)
            if self._before is not None and kernel.limits() == self._raised:
                kernel.set_limits(self._before)
        except OSError as error:
            log.warning("cannot put back what MPTCP's endpoints and limits were: %s", error.strerror or error)
        self._room = self._before = self._raised = None
        with contextlib.suppress(OSError):
            self._note.unlink()
        self.close()

    def close(self) -> None:
        """Leave all as it is."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    # -- within --

    def _raise(self, kernel: MptcpKernel, room: IPv6Network | None) -> None:
        now = kernel.limits()
        raised = now.at_least(NEEDED)
        if raised == now and room == self._room:
            return
        if raised != now:
            self._before, self._raised = now, raised
        self._room = room
        self._write()
        if raised != now:
            kernel.set_limits(raised)

    def _write(self) -> None:
        """Note what we are about to change."""
        limits = ((each.subflows, each.accepted) if each else None for each in (self._before, self._raised))
        room = None if self._room is None else str(self._room)
        told = {"room": room, **dict(zip(("before", "raised"), limits, strict=True))}
        try:
            rundir.write(self._note, json.dumps(told).encode())
        except OSError as error:
            log.warning("%s: %s: after a crash MPTCP's endpoints and limits stay", self._note, error.strerror)

    def _add(self, kernel: MptcpKernel, endpoint: MptcpEndpoint) -> str:
        """What keeps it away; empty where nothing does."""
        try:
            kernel.add(endpoint)
        except OSError as error:
            if error.errno == errno.ERANGE:
                return (
                    f"the kernel takes no more endpoints ({endpoint.address}): delete some of yours (ip mptcp endpoint)"
                )
            return f"the kernel refuses the endpoint {endpoint.address} ({error.strerror})"
        return ""


def _read(found: Any) -> tuple[IPv6Network | None, MptcpLimits | None, MptcpLimits | None]:
    try:
        room = None if found["room"] is None else IPv6Network(found["room"])
        before, raised = (None if found[each] is None else _limits(*found[each]) for each in ("before", "raised"))
    except (TypeError, ValueError, KeyError):  # there is none, or it was damaged
        return None, None, None
    return room, before, raised


def _limits(subflows: Any, accepted: Any) -> MptcpLimits:
    return MptcpLimits(int(subflows) & 0xFF, int(accepted) & 0xFF)
