"""Texts for people from figures: durations, dates, sizes."""

from __future__ import annotations

from datetime import UTC, datetime

_SPANS = (("y", 31_557_600.0), ("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def duration(seconds: float | None) -> str:
    """The two largest units: `3 d 4 h`, `12 min 5 s`; tenths below ten seconds; `-` for none."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for name, size in _SPANS:
        count, rest = divmod(left, int(size))
        if count or parts:
            parts += [f"{count} {name}"] if count else [""]
            left = rest
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts))


def short(seconds: float | None) -> str:
    """The same for a column: `3d4h`, `12m`, `45s`."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.0f}s"
    words = duration(seconds).replace("min", "m").split(" ")
    pairs = ["".join(pair) for pair in zip(words[::2], words[1::2], strict=True)]
    return "".join(pairs[:1] if pairs[0].endswith("m") else pairs)


def moment(when: float) -> str:
    """A Unix time in UTC: `2027-03-01`, the day."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d")


def clock(when: float) -> str:
    """A Unix time in UTC, to the second: `2027-03-01 14:02:11Z`."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def away(when: float, now: float) -> str:
    """A Unix time relative to now: `in 331 d`, `12 s ago`."""
    distance = abs(when - now)
    name, size = next(((name, size) for name, size in _SPANS if distance >= 2 * size), _SPANS[-1])
    text = f"{distance / size:.0f} {name}"
    return f"in {text}" if when > now else f"{text} ago"


def size(count: int | None) -> str:
    """Bytes: `1.2 GiB`."""
    if count is None:
        return "-"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.{1 if unit and value < 9.95 else 0}f} {_SIZES[unit]}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 route`, `2 routes`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
