"""The registry's prefix tree, node numbers and communities (wire.md section 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import (
    ROOT,
    WHOLE_NETWORK,
    AllocationError,
    Allocator,
    CommunityError,
    Edits,
    Numbers,
    choose_community,
    parse_communities,
)


class Tree:
    """The rows as a database would hold them, kept up by the edits alone."""

    def __init__(self, network_length: int = 48) -> None:
        self.allocator = Allocator(network_length)
        self.allocator.load([ROOT])
        self.rows: dict[Prefix, str] = {ROOT: "free"}

    def apply(self, edits: Edits) -> None:
        for prefix in edits.removed:
            assert self.rows.pop(prefix) == "free"
        for prefix in edits.added:
            assert self.rows.setdefault(prefix, "free") == "free"
        for prefix in edits.reserved:
            assert self.rows.setdefault(prefix, "reserved") == "reserved"

    def allocate(self, length: int, community: str = "") -> str:
        prefix, edits = self.allocator.allocate(Prefix.from_bits(community), length)
        self.apply(edits)
        assert prefix not in self.rows
        self.rows[prefix] = "used"
        return prefix.cn

    def release(self, prefix: Prefix) -> None:
        assert self.rows.pop(prefix) == "used"
        self.apply(self.allocator.release(prefix))

    def check(self) -> None:
        """The rows are a partition of the space, and the allocator knows the free ones."""
        rows = sorted(self.rows)
        assert not any(a.contains(b) for a, b in pairwise(rows))
        assert sum(1 << 128 - row.length for row in rows) == 1 << 128
        assert set(self.allocator) == {row for row, state in self.rows.items() if state == "free"}


def test_the_examples_of_the_specification() -> None:
    tree = Tree()
    got = [tree.allocate(length) for length in (16, 16, 16, 16, 13, 13, 13, 16, 16)]
    assert got == ["0/16", "1/16", "2/16", "3/16", "1/13", "2/13", "3/13", "4/16", "5/16"]
    tree.check()


def test_the_first_host_address_is_reserved() -> None:
    tree = Tree()
    assert [tree.allocate(80) for _ in range(3)] == ["1/80", "2/80", "3/80"]
    assert [row for row, state in tree.rows.items() if state == "reserved"] == [Prefix(0, 80)]
    tree.check()


def test_lengths_count_behind_the_community() -> None:
    tree = Tree()
    assert tree.allocate(13, "000") == "0/16"
    assert tree.allocate(13, "010") == "16384/16"
    assert tree.allocate(13, "000") == "1/16"
    tree.check()


def test_no_node_gets_a_127() -> None:
    with pytest.raises(AllocationError, match="/127"):
        Tree().allocate(79)


@pytest.mark.parametrize("length", [0, -1, 81])
def test_impossible_lengths_are_refused(length: int) -> None:
    with pytest.raises(AllocationError):
        Tree().allocate(length)


def test_a_full_network_says_so_and_stays_as_it_was() -> None:
    tree = Tree(126)
    assert [tree.allocate(2) for _ in range(3)] == ["1/2", "2/2", "3/2"]
    before = set(tree.allocator)
    with pytest.raises(AllocationError, match="no free prefix"):
        tree.allocate(2)
    assert set(tree.allocator) == before


def test_a_refusal_after_reserving_changes_nothing() -> None:
    allocator = Allocator(126)
    allocator.load([Prefix(0, 2)])  # only the address that is never given
    with pytest.raises(AllocationError):
        allocator.allocate(ROOT, 2)
    assert list(allocator) == [Prefix(0, 2)]


def test_a_reserved_prefix_is_never_given() -> None:
    tree = Tree()
    tree.apply(tree.allocator.reserve(Prefix(0, 16)))
    tree.check()
    assert tree.allocate(16) == "1/16"
    assert tree.allocator.reserve(Prefix(0, 16)) == Edits()


def test_a_foreign_tree_is_merged() -> None:
    allocator = Allocator(48)
    leaves = [Prefix.from_bits(bits) for bits in ("000", "001", "01", "10", "111")]
    allocator.load(leaves)
    edits = allocator.merge()
    assert set(allocator) == {Prefix.from_bits(bits) for bits in ("0", "10", "111")}
    assert set(edits.removed) == {Prefix.from_bits(bits) for bits in ("000", "001", "01")}
    assert edits.added == (Prefix.from_bits("0"),)
    allocator.undo(edits)
    assert set(allocator) == set(leaves)


@settings(max_examples=150)
@given(st.data())
def test_the_tree_stays_a_partition_whatever_is_done(data: Any) -> None:
    tree = Tree(120)
    for _ in range(data.draw(st.integers(1, 30))):
        before = set(tree.allocator)
        match data.draw(st.sampled_from(["allocate", "release", "undo", "reserve"])):
            case "allocate":
                community = data.draw(st.sampled_from(["", "0", "10", "110"]))
                try:
                    tree.allocate(data.draw(st.integers(1, 8 - len(community))), community)
                except AllocationError:
                    assert set(tree.allocator) == before
            case "release":
                used = [row for row, state in tree.rows.items() if state == "used"]
                if used:
                    tree.release(data.draw(st.sampled_from(used)))
            case "reserve":
                tree.apply(tree.allocator.reserve(Prefix(data.draw(st.integers(0, 255)), 8)))
            case "undo":
                try:
                    _, edits = tree.allocator.allocate(ROOT, data.draw(st.integers(1, 6)))
                    tree.allocator.undo(edits)
                except AllocationError:
                    pass
                assert set(tree.allocator) == before
        tree.check()


NUMBER_OPERATIONS = st.lists(st.tuples(st.sampled_from(["take", "release", "remove"]), st.integers(0, 40)), max_size=60)


@given(st.sets(st.integers(0, 30)), NUMBER_OPERATIONS)
def test_node_numbers_are_the_smallest_unused(used: set[int], operations: list[tuple[str, int]]) -> None:
    numbers = Numbers(sorted(used))
    for operation, number in operations:
        match operation:
            case "take":
                expected = next(n for n in range(1000) if n not in used)
                assert numbers.take() == expected
                used.add(expected)
            case "release":
                numbers.release(number)
                used.discard(number)
            case "remove":
                numbers.remove(number)
                used.add(number)


def test_a_very_large_number_costs_nothing() -> None:
    numbers = Numbers([0, 1, 10**17])
    assert [numbers.take() for _ in range(3)] == [2, 3, 4]


FILE = """\
# communities
00 fr @EU

01\tde us
1 * jp
"""


def test_communities_are_chosen_by_country_then_continent_then_default() -> None:
    communities = parse_communities(FILE)
    assert choose_community(communities, "fr", "EU").bits == "00"
    assert choose_community(communities, "de", "EU").bits == "01"
    assert choose_community(communities, "it", "EU").bits == "00"
    assert choose_community(communities, "jp", "AS").bits == "1"
    assert choose_community(communities).bits == "1"
    assert choose_community(WHOLE_NETWORK, "fr", "EU") == ROOT


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 fr\n", "exactly once, not 0"),
        ("0 *\n1 *\n", "exactly once, not 2"),
        ("0 *\n00 fr\n", "line 2: community 00 overlaps with 0"),
        ("00 *\n0 fr\n", "line 2"),
        ("0 *\n0 fr\n", "line 2"),
        ("0 *\n1\n", "line 2: community 1 has no location"),
        ("# x\n2 *\n", "line 2"),
        ("", "exactly once"),
    ],
)
def test_a_wrong_community_file_names_the_line(text: str, says: str) -> None:
    with pytest.raises(CommunityError, match=says):
        parse_communities(text)
