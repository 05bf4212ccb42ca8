"""Notes whose certificate is not valid at the moment, by the clock here: OpenVPN refuses it, and only its output says
why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from re6st.core.prefix import Prefix, PrefixError

LASTS = 900.0
"""Seconds for which the status mentions it, from the last refusal on; a node tries again every minute or so."""
SAY_AGAIN = 3600.0
PEERS_LIMIT = 1000

_Value = TypeVar("_Value")

_LINE = re.compile(
    r"VERIFY ERROR: depth=0, error=certificate (is not yet valid|has expired): "
    r".*\bCN=([0-9]{1,39}/[0-9]{1,3})(?:, serial=([0-9]{1,50}))?\Z",
    re.ASCII,
)
"""The line of OpenVPN 2.4 to 2.6. The subject stands before its CN, and may contain anything that its owner once
requested. Our CA signed the certificate: OpenSSL checks the dates after the signature.
"""


@dataclass(frozen=True, slots=True)
class Untimely:
    """A certificate that was refused because of its dates."""

    peer: Prefix
    serial: int | None
    early: bool
    """It is not valid yet; otherwise it has ended."""

    def __str__(self) -> str:
        number = "" if self.serial is None else f" {self.serial}"
        return f"the certificate{number} of {self.peer} {'is not valid yet' if self.early else 'has expired'}"


def read(line: str) -> Untimely | None:
    """What a line of OpenVPN's output says about this, if anything."""
    found = _LINE.search(line)
    if found is None:
        return None
    try:
        peer = Prefix.from_cn(found[2])
    except PrefixError:
        return None
    return Untimely(peer, int(found[3]) if found[3] else None, found[1] == "is not yet valid")


class RefusedCertificates:
    """Remembers whose certificate was refused. Times are in seconds, by a clock that the caller reads."""

    def __init__(self) -> None:
        self._last: dict[Prefix, tuple[float, Untimely]] = {}
        self._said: dict[Prefix, float] = {}

    def note(self, untimely: Untimely, now: float) -> bool:
        """A certificate was refused; returns whether to report this now: once in a while for each peer."""
        peer = untimely.peer
        _put(self._last, peer, (now, untimely))
        if now - self._said.get(peer, float("-inf")) < SAY_AGAIN:
            return False
        _put(self._said, peer, now)
        return True

    def came(self, peer: Prefix) -> None:
        """It was admitted since."""
        self._last.pop(peer, None)

    def found(self, now: float) -> list[Untimely]:
        """Those that are refused now."""
        return [untimely for since, untimely in self._last.values() if now - since <= LASTS]


def _put(kept: dict[Prefix, _Value], peer: Prefix, value: _Value) -> None:
    """Keep the newest."""
    kept.pop(peer, None)
    kept[peer] = value
    if len(kept) > PEERS_LIMIT:
        del kept[next(iter(kept))]
