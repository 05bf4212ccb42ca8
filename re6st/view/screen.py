"""Lines for a terminal: text with styles, tables that fit a narrow screen, with ANSI codes or without.

The text may come from other nodes, so the terminal must not obey anything in it: `paint` escapes characters that are
not printable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Style = Literal["", "bold", "dim", "good", "warning", "bad", "accent"]

_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "good": "32", "warning": "33", "bad": "31;1", "accent": "36"}
ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Span:
    """A text in one style."""

    text: str
    style: Style = ""


Line = tuple[Span, ...]


def line(*parts: str | Span) -> Line:
    """A line of such texts."""
    return tuple(Span(part) if isinstance(part, str) else part for part in parts)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. On a narrow screen, the highest `drop` is left out first, 0 never."""

    name: str
    right: bool = False
    drop: int = 0
    least: int = 0
    """The number of characters to which it may be cut, if this saves other columns; 0: it is never cut."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[str | Span]], width: int | None = None) -> list[Line]:
    """Aligned columns under their names, in `width` characters if possible; None: as wide as needed."""
    cells = [[_span(cell) for cell in row] for row in rows]
    widths = [
        max(len(column.name), *(len(row[n].text) for row in cells)) if cells else len(column.name)
        for n, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    gap = 2
    if width is not None:
        shown, gap = _fit(columns, widths, width)
    lines = [_row([Span(columns[n].name, "bold") for n in shown], columns, widths, shown, gap)]
    lines += [_row([row[n] for n in shown], columns, widths, shown, gap) for row in cells]
    return lines


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> tuple[list[int], int]:
    """Which columns are shown, and the gap between them; reduces `widths`."""
    shown = list(range(len(columns)))

    def excess(gap: int) -> int:
        return sum(widths[n] for n in shown) + gap * (len(shown) - 1) - width

    while True:
        if excess(2) <= 0:
            return shown, 2
        if excess(1) <= 0:
            return shown, 1
        for n in shown:
            if columns[n].least and excess(1) <= widths[n] - columns[n].least:
                widths[n] -= excess(1)
                return shown, 1
        last = max(shown, key=lambda n: columns[n].drop)
        if not columns[last].drop:
            return shown, 1
        shown.remove(last)


def _row(
    cells: Sequence[Span], columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], gap: int
) -> Line:
    spans: list[Span] = []
    for place, (cell, n) in enumerate(zip(cells, shown, strict=True)):
        text = cell.text if len(cell.text) <= widths[n] else cell.text[: widths[n] - 1] + ELLIPSIS
        padding = " " * (widths[n] - len(text))
        if place:
            spans.append(Span(" " * gap))
        if columns[n].right:
            spans += [Span(padding), Span(text, cell.style)]
        else:
            spans += [Span(text, cell.style), Span(padding)]
    return tuple(spans)


def _span(cell: str | Span) -> Span:
    text, style = (cell.text, cell.style) if isinstance(cell, Span) else (cell, "")
    return Span(_clean(text), style) if not text.isprintable() else Span(text, style)


def fold(head: str, words: Iterable[str], width: int | None) -> list[Line]:
    """`head`, then words with commas; if they need more lines, these begin below the first word."""
    lines, current = [], head
    for number, word in enumerate(words):
        if number:
            current += ","
            if width is not None and len(current) + 1 + len(word) + 1 > width:
                lines.append(line(current))
                current = " " * (len(head) - 1)
            current += " "
        current += word
    return [*lines, line(current)]


def wrap(head: str, text: str, width: int | None) -> list[str]:
    """Text after a head; further lines begin below the first one."""
    lines, current = [], head
    for number, word in enumerate(text.split()):
        if width is not None and number and len(current) + 1 + len(word) > width:
            lines.append(current)
            current = " " * len(head) + word
        else:
            current += f" {word}" if number else word
    return [*lines, current]


def paint(lines: Iterable[Line], *, colour: bool = False, width: int | None = None) -> list[str]:
    """The lines as text; lines that are longer than `width` are cut."""
    return [_paint(each, colour, width) for each in lines]


def _paint(spans: Line, colour: bool, width: int | None) -> str:
    left = width if width is not None else 1 << 30
    length = sum(len(span.text) for span in spans)
    parts = []
    for span in _without_end(spans):
        text = span.text if span.text.isprintable() else _clean(span.text)
        if len(text) > left or (length > (width or length) and len(text) == left):
            text = text[: max(0, left - 1)] + ELLIPSIS if left else ""
        left -= len(text)
        parts.append(f"\x1b[{_CODES[span.style]}m{text}\x1b[0m" if colour and span.style and text else text)
    return "".join(parts)


def _without_end(spans: Line) -> list[Span]:
    """Without blanks at the end."""
    kept = list(spans)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        kept[-1] = Span(kept[-1].text.rstrip(), kept[-1].style)
    return kept


def _clean(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
