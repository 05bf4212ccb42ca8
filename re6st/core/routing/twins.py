"""Two machines with one certificate: a copied disk, or a stolen key. OpenVPN keeps the newer of two connections only.

So each ends the tunnel of the other, which comes back at once: from two addresses, in turn. After a few seconds each
server has one of the two, and peace. A machine that moves to another address seldom comes back within a minute.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from re6st.core.prefix import Prefix

WINDOW = 60.0
"""Seconds in which the changes of address come."""
CHANGES = 2
"""From one address to the other, and back."""
LASTS = 3600.0
"""Seconds for which it is told, from the last change on: both go on, each with other servers."""
ADVICE = (
    "a disk that was copied, or a stolen key; or one machine whose way out changes again and again."
    " Enrol one of the two anew, or change the key (re6st-conf rekey)"
)
PEERS_LIMIT = 1000
ELSEWHERE = "elsewhere"
COMINGS_LIMIT = 8
"""Of one peer, that are remembered."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A certificate that two machines use, and where they come from."""

    peer: Prefix
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        places = " and ".join(self.addresses)
        return f"two machines have the certificate of {self.peer}: they connect from {places} in turn"


class Own:
    """Who has seen another machine with our own certificate, and where. Times as in `Twins`."""

    def __init__(self) -> None:
        self._seen: dict[Prefix, tuple[float, str]] = {}
        self._said = float("-inf")

    def told(self, peer: Prefix, place: str, now: float) -> bool:
        """A peer says so; whether that is to be said now."""
        self._seen.pop(peer, None)
        self._seen[peer] = now, place
        if len(self._seen) > COMINGS_LIMIT:
            del self._seen[next(iter(self._seen))]
        due = now - self._said > LASTS
        self._said = now if due else self._said
        return due

    def words(self, now: float) -> str:
        """What is known of it now; empty where nothing is."""
        seen = {peer: place for peer, (since, place) in self._seen.items() if now - since <= LASTS}
        if not seen:
            return ""
        places = " and ".join(sorted({place for place in seen.values() if place != ELSEWHERE} or {ELSEWHERE}))
        return f"another machine has our certificate too ({places}), as {', '.join(map(str, sorted(seen)))} saw"


class Twins:
    """Remembers from where the owners of certificates come. Times are seconds of a clock that the caller reads."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._comings: dict[tuple[Prefix, bool], deque[tuple[float, str]]] = {}
        """By peer and family: a machine may use IPv4 and IPv6 in turn."""
        self._found: dict[Prefix, tuple[float, Twin]] = {}

    def came(self, peer: Prefix, address: str, now: float) -> Twin | None:
        """A peer has connected; what that shows, where it shows it for the first time in a while."""
        key = peer, ":" in address
        comings = self._comings.pop(key, deque(maxlen=COMINGS_LIMIT))
        comings.append((now, address))
        self._comings[key] = comings
        if len(self._comings) > PEERS_LIMIT:
            del self._comings[next(iter(self._comings))]
        recent = [each for since, each in comings if now - since <= self._window]
        changes = sum(one != other for one, other in pairwise(recent))
        if changes < CHANGES or len(set(recent)) >= changes + 1:  # each another one: it wanders
            return None
        told = self._found.pop(peer, (float("-inf"), None))[0]
        twin = Twin(peer, tuple(sorted(set(recent))))
        self._found[peer] = now, twin
        if len(self._found) > PEERS_LIMIT:
            del self._found[next(iter(self._found))]
        return twin if now - told > LASTS else None

    def other(self, peer: Prefix, address: str, now: float) -> str:
        """Where the twin is of who has come from this address; empty where there is none."""
        since, twin = self._found.get(peer, (float("-inf"), None))
        if twin is None or now - since > LASTS:
            return ""
        family = ":" in address
        return next((each for each in twin.addresses if each != address and (":" in each) is family), ELSEWHERE)

    def found(self, now: float) -> list[Twin]:
        """Those of now."""
        return [twin for since, twin in self._found.values() if now - since <= LASTS]
