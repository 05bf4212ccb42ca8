"""The picture of the demo."""

from __future__ import annotations

from itertools import combinations

import pytest

from demo.picture import Vertex, draw
from re6st.view.screen import paint


@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
def test_every_label_is_in_the_picture_which_keeps_its_size(count: int) -> None:
    vertices = [Vertex(f"node{number} (NAT)") for number in range(count)]
    lines = paint(draw(vertices, combinations(range(count), 2), width=76, height=19))
    assert len(lines) <= 19
    assert all(len(line) <= 76 for line in lines)
    text = "\n".join(lines)
    assert all(vertex.label in text for vertex in vertices)


def test_a_tunnel_is_a_line_and_no_tunnel_is_none() -> None:
    vertices = [Vertex("north"), Vertex("south")]

    def dots(edges: list[tuple[int, int]]) -> int:
        return sum("\u2800" < character <= "\u28ff" for row in paint(draw(vertices, edges)) for character in row)

    assert dots([]) == 0
    assert dots([(0, 1)]) >= 15
