"""Decides which of the network's registries a node asks: one that works, and the next one when it does not.

Those that this machine was given come first, in that order, then those that the network's parameters name. A node keeps
to a registry that answers, so that all do not go to and fro. One that failed is asked last for a while, which is longer
after each failure. After an hour, a node that had to change tries the first one again, as an operator expects who has
mended it. None is ever left out: with all of them failing, each is asked in turn.

Times are those of a monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LIMIT = 8
"""Registries that a node knows at most by each of the two ways."""
PAUSE_FIRST, PAUSE_LAST = 60.0, 3600.0
"""For so long a registry that failed is asked last: at first, and at most."""
STAY = 3600.0
"""For so long a node stays with a registry that is not the first."""


@dataclass(slots=True)
class KnownRegistry:
    """What a node knows of one registry."""

    url: str
    is_learned: bool = False
    """The network's parameters name it; this machine was not given it."""
    failed: float | None = None
    """When it did not answer last."""
    error: str = ""
    """Why."""
    avoided_until: float = 0.0
    _pause: float = 0.0

    @property
    def works(self) -> bool:
        """It has not failed since it last answered, as far as we know."""
        return not self._pause

    def fail(self, now: float, error: str) -> None:
        self._pause = min(max(2 * self._pause, PAUSE_FIRST), PAUSE_LAST)
        self.failed, self.error, self.avoided_until = now, error, now + self._pause

    def answer(self) -> None:
        self._pause = self.avoided_until = 0.0


class RegistryChoice:
    """The registries of one node, by their URLs."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Those that this machine was given, at least one; only the first few are used."""
        self._given = [KnownRegistry(url) for url in dict.fromkeys(urls[:LIMIT])]
        self._learned: list[KnownRegistry] = []
        self._present = self._given[0]
        self._since = 0.0
        """When the present one was chosen."""

    @property
    def present(self) -> str:
        """The URL of the one that we ask."""
        return self._present.url

    @property
    def all(self) -> Sequence[KnownRegistry]:
        """In the order in which they were given and learned."""
        return (*self._given, *self._learned)

    def order(self, now: float) -> list[str]:
        """Their URLs, in the order in which they are to be asked."""
        good = [each for each in self.all if now >= each.avoided_until]
        late = sorted((each for each in self.all if now < each.avoided_until), key=lambda each: each.avoided_until)
        if self._present in good and now < self._since + STAY:
            good.remove(self._present)
            good.insert(0, self._present)
        return [each.url for each in (*good, *late)]

    def answered(self, url: str, now: float) -> bool:
        """One has answered; returns whether it is another one than before."""
        found = self._find(url)
        if found is None:
            return False
        found.answer()
        changed = found is not self._present
        if changed or now >= self._since + STAY:
            self._present, self._since = found, now
        return changed

    def failed(self, url: str, error: str, now: float) -> bool:
        """One has not answered, or not as a registry does; returns whether this is news."""
        found = self._find(url)
        if found is None:
            return False
        is_news = found.works or found.error != error
        found.fail(now, error)
        return is_news

    def learn(self, urls: Iterable[str]) -> tuple[list[str], list[str]]:
        """The parameters name these; returns those that are new to us, and those that are gone."""
        given, known = {each.url for each in self._given}, {each.url: each for each in self._learned}
        wanted = [url for url in dict.fromkeys(urls) if url not in given][:LIMIT]
        self._learned = [known.get(url) or KnownRegistry(url, is_learned=True) for url in wanted]
        if self._present not in self.all:
            self._present, self._since = self._given[0], 0.0
        return [url for url in wanted if url not in known], [url for url in known if url not in wanted]

    def _find(self, url: str) -> KnownRegistry | None:
        return next((each for each in self.all if each.url == url), None)
