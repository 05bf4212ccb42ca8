"""Chooses the babel hellos of the network: short intervals, unless it has nodes of older software (`babel_hello` in
core/wire/params.py).

We only know what a member says about its software, and a change of the hellos makes every node restart its babeld. The
intervals become long at once, because an older node has no neighbours until then. They become short again only after a
day without older nodes, or if the operator says so, and do not become long again within ten minutes. Times are Unix
seconds.

Whether a network is in regions is chosen alike: `short` stands for that it is. It is flat at once where an older node
is in it, which would not be reached from other regions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LENGTHEN_INTERVAL = 600.0
SHORTEN_AFTER = 86400.0
NOTE_INTERVAL = 600.0
"""The time of the last older node is rounded to such steps, so that it is not written every minute."""


@dataclass(frozen=True, slots=True)
class Hellos:
    """What is kept across a restart."""

    short: bool
    lengthened: float = 0.0
    """When the intervals last became long."""
    older: float = 0.0
    """When the last older node was among the members."""

    @property
    def short_from(self) -> float | None:
        """When the intervals become short if no older node calls until then; None: they are short."""
        return None if self.short else self.older + SHORTEN_AFTER

    def text(self) -> str:
        return f"{'short' if self.short else 'long'} {self.lengthened:.0f} {self.older:.0f}"


def read(text: object) -> Hellos | None:
    """Read the result of `Hellos.text`; None for any other text."""
    if not isinstance(text, str):
        return None
    match text.split():
        case ["short" | "long" as kind, lengthened, older] if lengthened.isdecimal() and older.isdecimal():
            return Hellos(kind == "short", float(lengthened), float(older))
    return None


def choose(kept: Hellos | None, older: bool, now: float) -> Hellos:
    """The choice from now on; `older` says whether the network has older nodes. A new registry has kept None."""
    if kept is None:
        return Hellos(not older, older=now if older else 0.0)
    if older:
        if kept.short and now - kept.lengthened >= LENGTHEN_INTERVAL:
            return Hellos(False, now, now)
        return replace(kept, older=now) if now - kept.older >= NOTE_INTERVAL else kept
    if kept.short_from is not None and now >= kept.short_from:
        return replace(kept, short=True)
    return kept
