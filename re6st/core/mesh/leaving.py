"""The server's side of closing a tunnel gently: clients that ask whether they may (wire.md 10.7).

The client has made its routes move away before it asks; ours are still to move. Those of a client of our own software
have moved too by then, as both ends see what it does. Beside older software, whose hellos are rare, we drain our side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from re6st.core.mesh.events import Action, AllowClose, DrainClient, Settings, UndrainClient
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import SurveyLike


@dataclass(slots=True)
class _Leaving:
    since: float
    drained: NextHop | None = None
    allowed: float | None = None


class Leavers:
    """Clients of our servers that want to close their tunnel, or have been told that they may."""

    def __init__(self) -> None:
        self._peers: dict[Prefix, _Leaving] = {}

    def ask(self, peer: Prefix, now: float) -> None:
        """A client asks; it may ask again, as the answer may get lost."""
        self._peers.setdefault(peer, _Leaving(now)).allowed = None

    def gone(self, peer: Prefix) -> list[Action]:
        """A client has left."""
        leaving = self._peers.pop(peer, None)
        return [] if leaving is None else _undrain(peer, leaving)

    def deadlines(self, settings: Settings) -> Iterator[float]:
        """When something may be to be done though nothing happens."""
        for leaving in self._peers.values():
            if leaving.allowed is not None:
                yield leaving.allowed + settings.close_time
            else:
                yield leaving.since + settings.close_time / 2

    def advance(self, survey: SurveyLike, settings: Settings, now: float) -> list[Action]:
        """Agree once nothing goes through a client, or at half of its patience; forget one that stays."""
        actions: list[Action] = []
        for peer, leaving in list(self._peers.items()):
            carried = survey.carried(peer, besides=settings.lan)
            if leaving.allowed is not None:
                if now - leaving.allowed > settings.close_time:
                    actions += self.gone(peer)
            elif not carried or now - leaving.since > settings.close_time / 2:
                leaving.allowed = now
                actions.append(AllowClose(peer))
            elif not settings.drains and leaving.drained is None:
                links = (link for link in survey.neighbours[peer] if link.carried)
                leaving.drained = next((link.hop for link in links if link.hop.interface not in settings.lan), None)
                if leaving.drained is not None:
                    actions.append(DrainClient(peer, leaving.drained))
        return actions


def _undrain(peer: Prefix, leaving: _Leaving) -> list[Action]:
    return [] if leaving.drained is None else [UndrainClient(peer, leaving.drained)]
