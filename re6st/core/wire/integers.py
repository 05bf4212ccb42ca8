"""Packed integers, whose bytes sort as their values do (wire.md 0.2, vectors/integers.json)."""

from __future__ import annotations

_SIZES = [32 << 8 * n for n in range(8)]
_OFFSETS = [sum(_SIZES[:n]) for n in range(9)]

LIMIT = _OFFSETS[8]
"""The first integer that cannot be packed."""


def pack_integer(value: int) -> bytes:
    """The one encoding of an integer from 0 to LIMIT - 1. Raises ValueError."""
    if not 0 <= value < LIMIT:
        raise ValueError(f"{value} cannot be packed")
    n = next(n for n in range(8) if value < _OFFSETS[n + 1])
    return (value - _OFFSETS[n] | n << 8 * n + 5).to_bytes(n + 1)


def unpack_integer(data: bytes) -> tuple[int, bytes]:
    """The integer at the start of `data`, and what follows it. Raises ValueError when it is cut short."""
    if not data or len(data) <= data[0] >> 5:
        raise ValueError("packed integer is cut short")
    n = data[0] >> 5
    value = int.from_bytes(data[: n + 1]) & (1 << 8 * n + 5) - 1
    return value + _OFFSETS[n], data[n + 1 :]
