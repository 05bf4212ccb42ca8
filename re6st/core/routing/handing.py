"""What a node does for neighbours that have several lines, and say by which one they want what (incoming.py).

A neighbour wishes that a part of its connections comes by another line than ours. So we hand what we have for it, our
own or out of a tunnel, to another neighbour of it, which sends by that line. No packet goes in a circle: we hand it to
nobody but who has said that it is ready, and who is ready sends what comes from us over its own link, or not at all. So
that is the last step but one. Whoever said so keeps to it for longer than we rely on it, whatever gets lost.

A wish is about packets to the subnet of who wishes it, and about nobody else's. It counts only if a link with who
wishes it lives: others could have us do things for nothing. When that link dies, what goes by other lines stays there.
Neighbours that it names have to be ready by their own word, and they are only if their own link there lives. So a wish
that lies moves nothing but packets to the liar, and those only over links that lead there at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.line_wishes import LASTS, REPEAT, Able, Message, Ready, Wish

WISHES_LIMIT = 64
"""Neighbours whose wishes are followed. Others have all as babel says."""
RELIED_ON = 3.0
"""Seconds for which we hand packets to a neighbour that said it is ready; it keeps to that for LASTS."""


@dataclass(frozen=True, slots=True)
class NeighbourLinks:
    """All links with a neighbour: the best one that lives, what it costs, and the interfaces that packets of the
    neighbour come by. Behind an interface others may be, too.
    """

    best: NextHop | None
    cost: int = 0
    interfaces: frozenset[str] = frozenset()


@dataclass(slots=True)
class Handed:
    """What the kernel is to do, by destination."""

    ways: dict[int, dict[Prefix, NextHop]] = field(default_factory=dict)
    """By which neighbour each line of a destination is reached; first by the line."""
    buckets: dict[Prefix, dict[int, int]] = field(default_factory=dict)
    """The line of each group of connections that does not go as babel says."""
    home: dict[Prefix, NextHop] = field(default_factory=dict)
    """Our own links, for what others hand to us. Without one it goes nowhere."""
    handing: dict[Prefix, frozenset[str]] = field(default_factory=dict)
    """The interfaces by which others hand packets to us."""


@dataclass(slots=True)
class _Wished:
    wish: Wish
    until: float
    able: frozenset[int] = frozenset()
    said: float = float("-inf")
    """When we told which lines we are able to send by, and which those were."""
    relied: dict[Prefix, float] = field(default_factory=dict)
    """Until when we rely on which neighbours."""


@dataclass(slots=True)
class _Promise:
    """We have said that we are ready."""

    until: float
    """Until when the neighbour may rely on that."""
    interfaces: frozenset[str]
    said: float = float("-inf")
    denied: float = float("-inf")
    """When we said that we are ready, and that we are not."""
    wanted: bool = True
    """Else it runs out: whoever changes its wish all the time shall not have us tell others each time."""
    broken: bool = False
    """We are not ready any more, and the neighbour may not know."""


class Handing:
    """Decides for one node, `own`. Times are seconds of one clock."""

    def __init__(self, own: Prefix) -> None:
        self.own = own
        self._wishes: dict[Prefix, _Wished] = {}
        self._promises: dict[tuple[Prefix, Prefix], _Promise] = {}
        """By destination and to whom."""
        self._by: dict[tuple[Prefix, int], Prefix] = {}
        """To whom we hand, by destination and line."""

    @property
    def is_active(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._wishes or self._promises)

    def wished(self, by: Prefix, wish: Wish, links: Mapping[Prefix, NeighbourLinks], now: float) -> bool:
        """Somebody has said by which lines it wants what. Returns whether that counts."""
        if _best(links, by) is None:
            return False
        if wish.line_of(self.own) is None:
            return self._wishes.pop(by, None) is not None
        if (known := self._wishes.get(by)) is not None:
            known.wish, known.until = wish, now + LASTS
        elif len(self._wishes) < WISHES_LIMIT:
            self._wishes[by] = _Wished(wish, now + LASTS)
        else:
            return False
        return True

    def ready(self, by: Prefix, word: Ready, now: float) -> bool:
        """A neighbour of a destination is ready, or is not any more. Only those count that the destination names.
        Returns whether it does.
        """
        wished = self._wishes.get(word.destination)
        if wished is None or wished.wish.line_of(by) in (None, wished.wish.line_of(self.own)):
            return False
        wished.relied.pop(by, None)
        if word.ready:
            wished.relied[by] = now + RELIED_ON
        return True

    def look(self, links: Mapping[Prefix, NeighbourLinks], now: float) -> Handed:
        """What the kernel is to have now."""
        self._wishes = {by: each for by, each in self._wishes.items() if now < each.until and by in links}
        self._by = {key: by for key, by in self._by.items() if key[0] in self._wishes}
        self._promise(links, now)
        found = Handed()
        for destination, wished in self._wishes.items():
            ways = self._ways(destination, wished, links, now)
            for slot, hop in ways.items():
                found.ways.setdefault(slot, {})[destination] = hop
            buckets = {bucket: slot for bucket, slot in wished.wish.buckets.items() if slot in ways}
            if buckets:
                found.buckets[destination] = buckets
            wished.able, before = frozenset(ways), wished.able
            if wished.able != before:
                wished.said = float("-inf")
        handing: defaultdict[Prefix, frozenset[str]] = defaultdict(frozenset)
        for (destination, _), promise in self._promises.items():
            handing[destination] |= promise.interfaces
        found.handing = dict(handing)
        for destination in handing:
            if (link := _best(links, destination)) is not None:
                found.home[destination] = link
        return found

    def say(self, now: float, missing: Handed | None = None) -> list[tuple[Prefix, Message]]:
        """What others are to be told, and who, once the kernel has what `look` said, but for the ways and links home
        that are `missing`. Of each destination a neighbour hears once a second at most that we are ready, and that we
        are not.
        """
        missing = Handed() if missing is None else missing
        said: list[tuple[Prefix, Message]] = []
        for (destination, to), promise in self._promises.items():
            if promise.broken or destination in missing.home:
                if now - promise.denied >= REPEAT:
                    promise.denied = now
                    said.append((to, Ready(destination, False)))
            elif promise.wanted and now - max(promise.said, promise.denied) >= REPEAT:
                promise.said, promise.until = now, now + LASTS
                said.append((to, Ready(destination, True)))
        for by, wished in self._wishes.items():
            if now - wished.said >= REPEAT:
                wished.said = now
                lacks = {slot for slot, ways in missing.ways.items() if by in ways}
                said.append((by, Able(wished.able - lacks)))
        return said

    def end(self) -> list[tuple[Prefix, Message]]:
        """Forget all. Returns what those are to be told that rely on us, before the kernel stops doing it."""
        relying = [key for key, promise in self._promises.items() if promise.said > float("-inf")]
        self._wishes, self._promises, self._by = {}, {}, {}
        return [(to, Ready(destination, False)) for destination, to in relying]

    # -- within --

    def _promise(self, links: Mapping[Prefix, NeighbourLinks], now: float) -> None:
        """Be ready for all that want to hand packets to us, where our own link lives."""
        wanted: dict[tuple[Prefix, Prefix], frozenset[str]] = {}
        for destination, wished in self._wishes.items():
            own = wished.wish.line_of(self.own)
            if own is None or _best(links, destination) is None:
                continue
            for slot, neighbours in wished.wish.lines.items():
                for each in neighbours if slot != own else ():
                    if each != destination and (known := links.get(each)) is not None and known.interfaces:
                        wanted[destination, each] = known.interfaces
        for key, interfaces in wanted.items():
            promise = self._promises.setdefault(key, _Promise(now + LASTS, interfaces))
            # Also by those on which the neighbour was before: packets may be on their way.
            promise.interfaces |= interfaces
        for key, promise in list(self._promises.items()):
            promise.wanted, promise.broken = key in wanted, _best(links, key[0]) is None
            if not promise.wanted and now >= promise.until:
                del self._promises[key]

    def _ways(
        self, destination: Prefix, wished: _Wished, links: Mapping[Prefix, NeighbourLinks], now: float
    ) -> dict[int, NextHop]:
        """By line."""
        wished.relied = {by: until for by, until in wished.relied.items() if now < until}
        own, direct = wished.wish.line_of(self.own), _best(links, destination)
        found: dict[int, NextHop] = {}
        for slot, neighbours in wished.wish.lines.items():
            if slot == own:
                if direct is not None:
                    found[slot] = direct
                continue
            usable = {each: hop for each in neighbours if each in wished.relied and (hop := _best(links, each))}
            before = self._by.pop((destination, slot), None)
            if usable:
                by = before if before in usable else min(usable, key=lambda each: (links[each].cost, each))
                self._by[destination, slot] = by
                found[slot] = usable[by]
        return found


def _best(links: Mapping[Prefix, NeighbourLinks], neighbour: Prefix) -> NextHop | None:
    known = links.get(neighbour)
    return None if known is None else known.best
