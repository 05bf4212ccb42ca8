"""Finds two machines with one certificate: a copied disk, or a stolen key. OpenVPN keeps only the newer of two
connections.

So each machine ends the tunnel of the other, which connects again at once: they come from two addresses in turn. After
a few seconds each server has one of the two, and it stops. A machine that moves to another address seldom returns
within a minute.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from re6st.core.prefix import Prefix

WINDOW = 60.0
"""The changes of address must happen within so many seconds."""
CHANGES = 2
"""Number of changes: from one address to the other, and back."""
LASTS = 3600.0
"""For so many seconds after the last change it is reported: then both machines work, each with other servers."""
ADVICE = (
    "a disk that was copied, or a stolen key; or one machine whose way out changes again and again."
    " Enrol one of the two anew, or change the key (re6st-conf rekey)"
)
PEERS_LIMIT = 1000
ELSEWHERE = "elsewhere"
COMINGS_LIMIT = 8
"""Addresses of one peer that are remembered."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A certificate that two machines use, and their addresses."""

    peer: Prefix
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        places = " and ".join(self.addresses)
        return f"two machines have the certificate of {self.peer}: they connect from {places} in turn"


class Own:
    """Who has seen another machine with our own certificate, and at which address. Times as in `Twins`."""

    def __init__(self) -> None:
        self._seen: dict[Prefix, tuple[float, str]] = {}
        self._said = float("-inf")

    def told(self, peer: Prefix, place: str, now: float) -> bool:
        """A peer says so; returns whether to report that now."""
        self._seen.pop(peer, None)
        self._seen[peer] = now, place
        if len(self._seen) > COMINGS_LIMIT:
            del self._seen[next(iter(self._seen))]
        due = now - self._said > LASTS
        self._said = now if due else self._said
        return due

    def words(self, now: float) -> str:
        """What is known about it now; empty if nothing is."""
        seen = {peer: place for peer, (since, place) in self._seen.items() if now - since <= LASTS}
        if not seen:
            return ""
        places = " and ".join(sorted({place for place in seen.values() if place != ELSEWHERE} or {ELSEWHERE}))
        return f"another machine has our certificate too ({places}), as {', '.join(map(str, sorted(seen)))} saw"


class Twins:
    """Remembers from where the owners of certificates connect. Times are in seconds, by the caller's clock."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._comings: dict[tuple[Prefix, bool], deque[tuple[float, str]]] = {}
        """By peer and family: a machine may use IPv4 and IPv6 in turn."""
        self._found: dict[Prefix, tuple[float, Twin]] = {}

    def came(self, peer: Prefix, address: str, now: float) -> Twin | None:
        """A peer has connected; returns a finding, if there is one that has not been reported for a while."""
        key = peer, ":" in address
        comings = self._comings.pop(key, deque(maxlen=COMINGS_LIMIT))
        comings.append((now, address))
        self._comings[key] = comings
        if len(self._comings) > PEERS_LIMIT:
            del self._comings[next(iter(self._comings))]
        recent = [each for since, each in comings if now - since <= self._window]
        changes = sum(one != other for one, other in pairwise(recent))
        if changes < CHANGES or len(set(recent)) >= changes + 1:  # each address is another one: the machine moves
            return None
        told = self._found.pop(peer, (float("-inf"), None))[0]
        twin = Twin(peer, tuple(sorted(set(recent))))
        self._found[peer] = now, twin
        if len(self._found) > PEERS_LIMIT:
            del self._found[next(iter(self._found))]
        return twin if now - told > LASTS else None

    def other(self, peer: Prefix, address: str, now: float) -> str:
        """The address of the other machine with the certificate of one that connected from this address; empty if there
        is none.
        """
        since, twin = self._found.get(peer, (float("-inf"), None))
        if twin is None or now - since > LASTS:
            return ""
        family = ":" in address
        return next((each for each in twin.addresses if each != address and (":" in each) is family), ELSEWHERE)

    def found(self, now: float) -> list[Twin]:
        """The findings that hold now."""
        return [twin for since, twin in self._found.values() if now - since <= LASTS]
