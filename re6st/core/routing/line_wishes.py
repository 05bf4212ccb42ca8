"""What nodes tell each other about the lines of one of them: incoming.py says when, and handing.py what follows.

As bytes it is in core/wire/lines.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from re6st.core.prefix import Prefix

NEIGHBOURS_LIMIT = 64
"""Of one node, over all its lines."""
REPEAT = 1.0
"""Seconds after which what still holds is said again."""
LASTS = 5.0
"""Seconds for which a wish, and what was said about it, holds where it is not said again."""


@dataclass(frozen=True, slots=True)
class Wish:
    """By which line the sender wants what is for its own subnet: `lines` has its neighbours by the line that each of
    them sends by, `buckets` the line of each group of connections that is not to come as babel says.

    Without lines it wishes nothing any more.
    """

    lines: Mapping[int, tuple[Prefix, ...]] = field(default_factory=dict)
    buckets: Mapping[int, int] = field(default_factory=dict)

    def line_of(self, neighbour: Prefix) -> int | None:
        """That by which a neighbour sends; None where it is not named."""
        return next((slot for slot, each in self.lines.items() if neighbour in each), None)


@dataclass(frozen=True, slots=True)
class Ready:
    """Whether the sender takes what the receiver has for that destination, and sends it over its own link there."""

    destination: Prefix
    ready: bool


@dataclass(frozen=True, slots=True)
class Able:
    """By which lines of the receiver's the sender can send: over its own link, or by a neighbour that is ready."""

    lines: frozenset[int]


Message = Wish | Ready | Able
