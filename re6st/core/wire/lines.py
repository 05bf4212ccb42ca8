"""The messages about a node's several lines, as bytes: the body of message 122 (docs/protocol.md).

What they mean, and when they are sent, is in core/routing/incoming.py and core/routing/handing.py. They go to peers
that announced `lines` in the session of now, and to nobody else. What is absurd in itself is no message: `decode`
raises WireError.
"""

from __future__ import annotations

from typing import assert_never

from re6st.core.machine import uplink_numbers
from re6st.core.prefix import MAX_LENGTH, Prefix
from re6st.core.routing.line_wishes import NEIGHBOURS_LIMIT, Able, Message, Ready, Wish
from re6st.core.routing.spreading import BUCKETS
from re6st.core.wire.datagrams import WireError

SLOTS = uplink_numbers.SLOTS


def encode(message: Message) -> bytes:
    match message:
        case Wish(lines, buckets):
            pairs = (buckets.get(2 * each, 0) << 4 | buckets.get(2 * each + 1, 0) for each in range(BUCKETS // 2))
            told = (bytes((slot,)) + _encode(each) for slot in sorted(lines) for each in lines[slot])
            return b"\1" + bytes(pairs) + b"".join(told)
        case Ready(destination, ready):
            return bytes((2, ready)) + _encode(destination)
        case Able(lines):
            return bytes((3, sum(1 << slot for slot in lines)))
    assert_never(message)


def decode(data: bytes) -> Message:
    """Raises WireError."""
    kind, body = data[:1], data[1:]
    if kind == b"\1" and len(body) >= BUCKETS // 2:
        return _read_wish(body[: BUCKETS // 2], body[BUCKETS // 2 :])
    if kind == b"\2" and body[:1] in (b"\0", b"\1"):
        destination, rest = _read(body[1:])
        if not rest:
            return Ready(destination, body[0] == 1)
    if kind == b"\3" and len(body) == 1 and not body[0] & 1:
        return Able(frozenset(slot for slot in SLOTS if body[0] >> slot & 1))
    raise WireError(f"message about lines of {len(data)} bytes that cannot be read")


def _read_wish(pairs: bytes, told: bytes) -> Wish:
    lines: dict[int, list[Prefix]] = {}
    seen: set[Prefix] = set()
    while told:
        slot = told[0]
        neighbour, told = _read(told[1:])
        if slot not in SLOTS or neighbour in seen or len(seen) >= NEIGHBOURS_LIMIT:
            raise WireError("wish with a line of no number, a neighbour named twice, or too many neighbours")
        seen.add(neighbour)
        lines.setdefault(slot, []).append(neighbour)
    slots = (slot for pair in pairs for slot in (pair >> 4, pair & 0x0F))
    buckets = {bucket: slot for bucket, slot in enumerate(slots) if slot}
    if not lines.keys() >= set(buckets.values()):
        raise WireError("wish for a line over which there is no neighbour")
    return Wish({slot: tuple(each) for slot, each in lines.items()}, buckets)


def _encode(prefix: Prefix) -> bytes:
    return bytes((prefix.length,)) + prefix.value.to_bytes((prefix.length + 7) // 8)


def _read(data: bytes) -> tuple[Prefix, bytes]:
    """The prefix at the start, and what follows it."""
    length = data[0] if data else 0
    end = 1 + (length + 7) // 8
    value = int.from_bytes(data[1:end])
    if not 0 < length <= MAX_LENGTH or len(data) < end or value >> length:
        raise WireError("message about lines with a prefix that is none")
    return Prefix(value, length), data[end:]
