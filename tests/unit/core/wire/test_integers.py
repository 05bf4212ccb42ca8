from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.wire.integers import LIMIT, pack_integer, unpack_integer

VALUES = st.integers(0, 8).flatmap(lambda n: st.integers(0, min(LIMIT, 256**n * 64) - 1))


def test_vectors(vector: Callable[[str], Any]) -> None:
    entries = vector("integers")
    assert len(entries) > 15
    for entry in entries:
        packed = bytes.fromhex(entry["packed"])
        assert pack_integer(entry["value"]) == packed
        assert unpack_integer(packed) == (entry["value"], b"")
        assert unpack_integer(packed + b"rest") == (entry["value"], b"rest")


@given(VALUES, st.binary(max_size=9))
def test_round_trip(value: int, rest: bytes) -> None:
    assert unpack_integer(pack_integer(value) + rest) == (value, rest)


@given(st.lists(VALUES))
def test_sorts_like_the_values(values: list[int]) -> None:
    assert sorted(map(pack_integer, values)) == [pack_integer(value) for value in sorted(values)]


def test_each_class_begins_where_the_last_one_ends() -> None:
    value, edges = 0, []
    for n in range(8):
        edges.append(value)
        value += 32 * 256**n
    assert value == LIMIT == 0x2020202020202020
    for n, edge in enumerate(edges):
        assert pack_integer(edge) == bytes([n << 5]) + bytes(n)
        if edge:
            assert pack_integer(edge - 1) == bytes([(n - 1 << 5) | 31]) + b"\xff" * (n - 1)


@given(st.binary(min_size=8, max_size=8))
def test_one_encoding_for_each_value(data: bytes) -> None:
    value, rest = unpack_integer(data)
    assert pack_integer(value) + rest == data


@pytest.mark.parametrize("value", [-1, LIMIT, 1 << 64, 1 << 600])
def test_refuses_what_cannot_be_packed(value: int) -> None:
    with pytest.raises(ValueError, match="packed"):
        pack_integer(value)


@pytest.mark.parametrize("data", [b"", b"\x20", b"\x40\0", b"\xff" * 7])
def test_refuses_what_is_cut_short(data: bytes) -> None:
    with pytest.raises(ValueError, match="cut short"):
        unpack_integer(data)


def test_a_million_random_bytes() -> None:
    data = random.Random(2).randbytes(1_000_000)
    for start in range(0, len(data), 11):
        chunk = data[start : start + start % 12]
        try:
            value, rest = unpack_integer(chunk)
        except ValueError:
            assert len(chunk) < 8
        else:
            assert pack_integer(value) + rest == chunk
