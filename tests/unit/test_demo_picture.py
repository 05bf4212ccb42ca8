"""The picture of the demo."""

from __future__ import annotations

from itertools import combinations

import pytest

from demo.picture import Vertex, draw


@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
def test_every_label_is_in_the_picture_which_keeps_its_size(count: int) -> None:
    vertices = [Vertex(f"node{number} (NAT)") for number in range(count)]
    lines = draw(vertices, combinations(range(count), 2), width=76, height=19).plain.splitlines()
    assert len(lines) <= 19
    assert all(len(line) <= 76 for line in lines)
    text = "\n".join(lines)
    assert all(vertex.label in text for vertex in vertices)


def test_a_tunnel_is_a_line_and_no_tunnel_is_none() -> None:
    vertices = [Vertex("north"), Vertex("south")]

    def dots(text: str) -> int:
        return sum("\u2800" < character <= "\u28ff" for character in text)

    assert dots(draw(vertices, []).plain) == 0
    assert dots(draw(vertices, [(0, 1)]).plain) >= 15
