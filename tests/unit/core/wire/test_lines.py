"""Messages about a node's lines are read as they are written, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix
from re6st.core.routing.line_wishes import NEIGHBOURS_LIMIT, Able, Message, Ready, Wish
from re6st.core.routing.spreading import BUCKETS
from re6st.core.wire.datagrams import WireError
from re6st.core.wire.lines import SLOTS, decode, encode

prefixes = st.integers(1, 64).flatmap(lambda length: st.builds(Prefix, st.integers(0, 2**length - 1), st.just(length)))


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    neighbours = draw(st.lists(prefixes, unique=True, max_size=20))
    lines: dict[int, tuple[Prefix, ...]] = {}
    for each in neighbours:
        slot = draw(st.sampled_from(SLOTS))
        lines[slot] = (*lines.get(slot, ()), each)
    if not lines:
        return Wish()
    buckets = st.dictionaries(st.integers(0, BUCKETS - 1), st.sampled_from(sorted(lines)))
    return Wish(lines, draw(buckets))


messages = st.one_of(
    wishes(), st.builds(Ready, prefixes, st.booleans()), st.builds(Able, st.frozensets(st.sampled_from(SLOTS)))
)


@given(messages)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.one_of(st.binary(max_size=80), st.tuples(messages, st.binary(max_size=8)).map(lambda p: encode(p[0]) + p[1])))
def test_any_bytes_are_a_message_that_is_written_so_or_none(data: bytes) -> None:
    try:
        message = decode(data)
    except WireError:
        return
    assert decode(encode(message)) == message


ONE = bytes((1, 8, 7))
"""Line 1, and a prefix of 8 bits."""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        b"\4\0",
        b"\1" + bytes(32) + ONE + ONE,
        b"\1" + bytes(32) + bytes((8, 8, 7)),
        b"\1" + bytes(32) + bytes((0, 8, 7)),
        b"\1" + bytes(32) + bytes((1, 0)),
        b"\1" + bytes(32) + bytes((1, 3, 8)),
        b"\1" + bytes(32) + bytes((1, 129)) + bytes(17),
        b"\1" + b"\x20" + bytes(31) + ONE,
        b"\1" + bytes(32) + b"".join(bytes((1, 8, each)) for each in range(NEIGHBOURS_LIMIT + 1)),
        b"\2\1" + ONE,
        b"\2\2\x08\7",
        b"\2\1\x08\7\0",
        b"\3\1",
        b"\3\2\2",
    ],
)
def test_what_is_absurd_is_no_message(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)
