"""With which peers something is not tried for a while, and why: the latest so many of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from re6st.core.prefix import Prefix

R = TypeVar("R")


class Pauses(Generic[R]):
    """At most `limit` peers: of more than that, those whose pause began first are forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._until: OrderedDict[Prefix, tuple[float, R]] = OrderedDict()

    def begin(self, peer: Prefix, reason: R, seconds: float, now: float) -> None:
        """It failed with a peer now; an earlier pause is over."""
        self._until.pop(peer, None)
        self._until[peer] = now + seconds, reason
        if len(self._until) > self._limit:
            self._until.popitem(last=False)

    def end(self, peer: Prefix) -> None:
        """It went well."""
        self._until.pop(peer, None)

    def reason(self, peer: Prefix, now: float) -> R | None:
        """Why it is not tried now; None where it may be."""
        until, reason = self._until.get(peer, (now, None))
        return reason if now < until else None
