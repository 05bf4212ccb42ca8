"""The room of WireGuard links (noded/wireguard.py) of a node that has none: it offers nothing, and does nothing.

So a node without WireGuard needs none of the modules that know how two nodes agree on a link: they are a tenth of all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from re6st.core.prefix import Prefix
from re6st.core.telemetry.report import Link
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.noded.contracts import LinkEnd
from re6st.noded.takeover import Records
from re6st.service.tasks import Tasks

if TYPE_CHECKING:
    from re6st.core.transport.link_records import LinkRecord


class LinkRemover(Protocol):
    """What removes the interface of a link: the kernel."""

    async def delete_link(self, name: str) -> None: ...


class NoLinks:
    """See contracts.Links. What an earlier daemon left of links is removed. `lacking` says why there are none, if they
    are wanted.
    """

    def __init__(self, kernel: LinkRemover, run: Path, tasks: Tasks, lacking: str = "") -> None:
        self._kernel = kernel
        self._lacking = lacking
        self._records = Records(run)
        self._tasks = tasks

    def go_on(self, found: Iterable[LinkRecord], resumed: Callable[[list[LinkRecord]], None]) -> None:
        """With none."""
        for record in found:
            self._tasks.start(self._kernel.delete_link(record.link.interface), "links left over")
            self._records.forget(record.link.interface)
        resumed([])

    def carries(self, peer: Prefix) -> bool:
        """None does."""
        return False

    async def outlast(self, peer: Prefix) -> None:
        """At once."""

    async def outlast_all(self) -> None:
        """At once."""

    def end(self, peer: Prefix) -> None:
        """There is none."""

    def cut(self, peer: Prefix) -> None:
        """There is none."""

    def cut_off(self, crl: frozenset[int]) -> None:
        """There is none."""

    async def leave(self) -> None:
        """There is none."""

    def ends(self) -> Iterable[LinkEnd]:
        """None."""
        return ()

    def reports(self) -> Iterable[Link]:
        """None."""
        return ()

    def why_not(self, peer: Prefix) -> str:
        """What this machine lacks; nothing keeps a link away that nobody wants."""
        return self._lacking

    def served(self, protocol: TunnelProtocol, besides: Prefix) -> int:
        """None."""
        return 0

    def is_served(self, peer: Prefix, protocol: TunnelProtocol) -> bool:
        """Nobody is."""
        return False

    def beside(self, interface: str) -> Iterable[str]:
        """None."""
        return ()

    def gives_up(self, peer: Prefix, interface: str) -> bool:
        """Nothing goes on instead."""
        return False

    def leave_line(self, name: str) -> None:
        """There is none."""

    def user_of(self, peer: Prefix, interface: str) -> Hashable:
        """Our tunnel."""
        return peer
