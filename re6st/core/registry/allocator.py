"""Chooses the prefix of a new node: free leaves of the registry's tree, node numbers, communities (wire.md section 4).

The registry's database has the tree itself, with the leaves in use. This module has only the free leaves, sorted, so
that every operation costs O(log n). An operation returns its changes as `Edits` for the database; `undo` reverts them
if the database could not store them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sortedcontainers import SortedDict, SortedList

from re6st.core.prefix import MAX_LENGTH, Prefix, PrefixError

ROOT = Prefix(0, 0)

FILE_LIMIT = 1000
"""Lines that a community file may have."""


class AllocationError(Exception):
    """No prefix of this length is available: there is no space, or the length makes no sense in this network."""


class CommunityError(Exception):
    """A community file that cannot be used; the text names the line."""


@dataclass(frozen=True, slots=True)
class Edits:
    """The changes of an operation to the rows of the tree.

    `removed` rows were free and are deleted, `added` rows are new and free, `reserved` rows are new and never given
    out. The caller adds the row of an allocated prefix, and has removed the row of a released one.
    """

    removed: tuple[Prefix, ...] = ()
    added: tuple[Prefix, ...] = ()
    reserved: tuple[Prefix, ...] = ()


class Allocator:
    """The free leaves of a network with `network_length` bits. They are kept in memory, unless a subclass looks for
    them elsewhere: `is_free`, `_first_in` and `_leaf_above` find them, `_add` and `_discard` change them.
    """

    def __init__(self, network_length: int) -> None:
        self._room = MAX_LENGTH - network_length
        # By length, the values of the free leaves. In this order, those below one prefix stand together.
        self._free: list[SortedList[int]] = [SortedList() for _ in range(self._room + 1)]

    def __len__(self) -> int:
        return sum(len(values) for values in self._free)

    def __iter__(self) -> Iterator[Prefix]:
        return (Prefix(value, length) for length, values in enumerate(self._free) for value in values)

    def is_free(self, prefix: Prefix) -> bool:
        """Whether exactly this leaf is free."""
        return prefix.length <= self._room and prefix.value in self._free[prefix.length]

    def load(self, leaves: Iterable[Prefix]) -> None:
        """Start again with these free leaves. Raises PrefixError if one is too long for the network."""
        values: list[list[int]] = [[] for _ in self._free]
        for leaf in leaves:
            if leaf.length > self._room:
                raise PrefixError(f"prefix {leaf} is too long for the network")
            values[leaf.length].append(leaf.value)
        self._free = [SortedList(each) for each in values]

    def check_length(self, community: Prefix, length: int) -> Prefix:
        """The leftmost prefix of `length` bits in a community. Raises AllocationError for an impossible length."""
        target = community.length + length
        if length < 1 or target > self._room:
            raise AllocationError(
                f"prefix length {length} does not fit into the network, where {self._room} bits are left"
            )
        if target == self._room - 1:
            # A /127 has no subnet-router anycast address, so its node could not be reached (wire.md 1.2).
            raise AllocationError(f"prefix length {length} would make subnets of /{MAX_LENGTH - 1}, which cannot work")
        return Prefix(community.value << length, target)

    def allocate(self, community: Prefix, length: int) -> tuple[Prefix, Edits]:
        """Take a prefix of `length` bits, counted after the community's (wire.md 4.2).

        Raises AllocationError, and nothing has changed then.
        """
        first = self.check_length(community, length)
        removed: list[Prefix] = []
        added: list[Prefix] = []
        reserved: list[Prefix] = []
        while True:
            leaf = self._find(community, first.length)
            if leaf is None:
                self.undo(Edits(tuple(removed), tuple(added)))
                raise AllocationError(
                    f"no free prefix of {length} bits" + (f" in {community.bits}" if community.length else "")
                )
            goal = first if leaf.contains(first) else Prefix(leaf.value << first.length - leaf.length, first.length)
            siblings = self._split(leaf, goal)
            if leaf in added:
                added.remove(leaf)
            else:
                removed.append(leaf)
            added += siblings
            # The first /128 of a community is the control address of a larger subnet.
            if goal != first or goal.length < self._room:
                return goal, Edits(tuple(removed), tuple(added), tuple(reserved))
            reserved.append(goal)

    def reserve(self, prefix: Prefix) -> Edits:
        """Remove exactly this prefix from the free leaves, if one contains it, so that nobody ever gets it."""
        leaf = self._leaf_above(prefix)
        if leaf is None:
            return Edits()
        return Edits((leaf,), tuple(self._split(leaf, prefix)), (prefix,))

    def release(self, prefix: Prefix) -> Edits:
        """Make a used prefix free, merge it with its free sibling, and so on upwards (wire.md 4.4)."""
        removed: list[Prefix] = []
        leaf = prefix
        while leaf.length and self.is_free(leaf.sibling):
            removed.append(leaf.sibling)
            self._discard(leaf.sibling)
            leaf = leaf.parent
        self._add(leaf)
        return Edits(tuple(removed), (leaf,))

    def merge(self) -> Edits:
        """Merge all free siblings, from the longest length to the shortest (wire.md 4.4), after a tree of other
        software was loaded.
        """
        removed: list[Prefix] = []
        added: dict[Prefix, None] = {}
        for length in range(self._room, 0, -1):
            values = self._free[length]
            pairs = [value for value in values if not value & 1 and value + 1 in values]
            for value in pairs:
                for half in (Prefix(value, length), Prefix(value + 1, length)):
                    self._discard(half)
                    if half in added:
                        del added[half]
                    else:
                        removed.append(half)
                parent = Prefix(value >> 1, length - 1)
                self._add(parent)
                added[parent] = None
        return Edits(tuple(removed), tuple(added))

    def undo(self, edits: Edits) -> None:
        """Undo an operation. Later ones must have been undone before."""
        for leaf in edits.added:
            self._discard(leaf)
        for leaf in edits.removed:
            self._add(leaf)

    def _find(self, community: Prefix, target: int) -> Prefix | None:
        """The leaf from which to take: the longest one in the community, else the one that contains the whole
        community.
        """
        found = self._first_in(community, target)
        return found if found is not None else self._leaf_above(community)

    def _first_in(self, community: Prefix, longest: int) -> Prefix | None:
        """The leftmost of the longest leaves in a community that have no more bits than `longest`."""
        for length in range(longest, community.length - 1, -1):
            values = self._free[length]
            shift = length - community.length
            at = values.bisect_left(community.value << shift)
            if at < len(values) and values[at] >> shift == community.value:
                return Prefix(values[at], length)
        return None

    def _leaf_above(self, prefix: Prefix) -> Prefix | None:
        leaf = prefix
        while not self.is_free(leaf):
            if not leaf.length:
                return None
            leaf = leaf.parent
        return leaf

    def _split(self, leaf: Prefix, goal: Prefix) -> list[Prefix]:
        """Take `goal` from `leaf`; returns the free leaves that remain."""
        siblings: list[Prefix] = []
        self._discard(leaf)
        while goal.length > leaf.length:
            self._add(goal.sibling)
            siblings.append(goal.sibling)
            goal = goal.parent
        return siblings

    def _add(self, leaf: Prefix) -> None:
        self._free[leaf.length].add(leaf.value)

    def _discard(self, leaf: Prefix) -> None:
        self._free[leaf.length].discard(leaf.value)


class Numbers:
    """Free node numbers, kept as intervals: all integers from 0 on that no certificate has (wire.md 2.2)."""

    def __init__(self, used: Iterable[int] = ()) -> None:
        """`used` in ascending order."""
        self._free: SortedDict[int, int | None] = SortedDict()
        start = 0
        for number in used:
            if number > start:
                self._free[start] = number
            start = max(start, number + 1)
        self._free[start] = None

    def take(self) -> int:
        """Take the smallest free number."""
        start, end = self._free.popitem(0)
        if end is None or start + 1 < end:
            self._free[start + 1] = end
        return int(start)

    def remove(self, number: int) -> None:
        """Take this number, if it is free."""
        at = self._free.bisect_right(number)
        if not at:
            return
        start, end = self._free.peekitem(at - 1)
        if end is not None and end <= number:
            return
        del self._free[start]
        if start < number:
            self._free[start] = number
        if end is None or number + 1 < end:
            self._free[number + 1] = end

    def release(self, number: int) -> None:
        """The number becomes free. It may be free already."""
        at = self._free.bisect_right(number)
        before = self._free.peekitem(at - 1) if at else None
        if before is not None and (before[1] is None or number < before[1]):
            return
        start, end = number, number + 1
        if before is not None and before[1] == number:
            start = before[0]
        if end in self._free:
            end = self._free.pop(end)
        self._free[start] = end


# --- communities (wire.md 4.3) ---

DEFAULT_LOCATION = "*"


@dataclass(frozen=True, slots=True)
class Community:
    """A part of the network that is kept for some locations: `*`, country codes, `@` and continent codes."""

    prefix: Prefix
    locations: tuple[str, ...]


WHOLE_NETWORK = (Community(ROOT, (DEFAULT_LOCATION,)),)
"""The communities of a registry that has no community file."""


def parse_communities(text: str) -> tuple[Community, ...]:
    """Read a community file. Raises CommunityError."""
    communities: list[Community] = []
    lines = text.splitlines()
    if len(lines) > FILE_LIMIT:
        raise CommunityError(f"more than {FILE_LIMIT} lines")
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            prefix = Prefix.from_bits(words[0])
        except PrefixError as error:
            raise CommunityError(f"line {number}: {error}") from None
        if len(words) < 2:
            raise CommunityError(f"line {number}: community {words[0]} has no location")
        for other in communities:
            if other.prefix.contains(prefix) or prefix.contains(other.prefix):
                raise CommunityError(f"line {number}: community {words[0]} overlaps with {other.prefix.bits}")
        communities.append(Community(prefix, tuple(words[1:])))
    defaults = sum(community.locations.count(DEFAULT_LOCATION) for community in communities)
    if defaults != 1:
        raise CommunityError(f"the default location {DEFAULT_LOCATION} must occur exactly once, not {defaults} times")
    return tuple(communities)


def choose_community(communities: Iterable[Community], country: str = "", continent: str = "") -> Prefix:
    """The community for a location; an unknown location has no country and no continent."""
    wanted = [country] if country else []
    wanted += [f"@{continent}"] if continent else []
    wanted.append(DEFAULT_LOCATION)
    for location in wanted:
        for community in communities:
            if location in community.locations:
                return community.prefix
    raise CommunityError(f"no community has the default location {DEFAULT_LOCATION}")
