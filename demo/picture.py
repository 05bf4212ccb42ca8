"""A graph as text: the nodes on an ellipse, the tunnels as lines of Braille dots, two by four to a character."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from re6st.view.screen import Line, Span, Style, line

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # [column][row], from the code chart of U+2800
_BLANK = 0x2800


@dataclass(frozen=True)
class Vertex:
    label: str
    style: Style = "bold"


def draw(vertices: Sequence[Vertex], edges: Iterable[tuple[int, int]], width: int = 76, height: int = 19) -> list[Line]:
    """The picture, `width` by `height` characters; edges are pairs of indices into `vertices`."""
    margin = max((len(vertex.label) for vertex in vertices), default=0) + 3
    points = _ellipse(len(vertices), width, height, margin)
    dots = [[0] * width for _ in range(height)]
    for start, end in edges:
        _line(dots, points[start], points[end])
    cells: list[list[tuple[str, Style]]] = [
        [(chr(_BLANK | bits), "accent") if bits else (" ", "") for bits in row] for row in dots
    ]
    for vertex, (x, y) in zip(vertices, points, strict=True):
        column, row = x // 2, y // 4
        left = column < width // 2 - 1
        text = f"{vertex.label} ●" if left else f"● {vertex.label}"
        first = column - len(text) + 1 if left else column
        for offset, character in enumerate(text):
            cells[row][first + offset] = character, vertex.style
    return [
        line(
            *(Span("".join(character for character, _ in group), style) for style, group in groupby(row, itemgetter(1)))
        )
        for row in cells
    ]


def _ellipse(count: int, width: int, height: int, margin: int) -> list[tuple[int, int]]:
    """Places in dots, clockwise from the top."""
    radius_x, radius_y = max(width / 2 - margin, 1), (height - 1) / 2
    points = []
    for number in range(count):
        angle = 2 * math.pi * number / count - math.pi / 2
        column = round(width / 2 + radius_x * math.cos(angle))
        row = round(radius_y + radius_y * math.sin(angle))
        points.append((2 * column, 4 * row + 2))
    return points


def _line(dots: list[list[int]], start: tuple[int, int], end: tuple[int, int]) -> None:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        x = start[0] + round((end[0] - start[0]) * step / steps)
        y = start[1] + round((end[1] - start[1]) * step / steps)
        dots[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
