"""Lines and tables for a terminal, as wide as it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from re6st.view.screen import Column, Span, fold, line, paint, table

COLUMNS = (Column("PEER"), Column("VIA", least=8), Column("COST", right=True, drop=1), Column("REACH", drop=2))
ROWS: list[list[str | Span]] = [
    ["4/16", "198.51.100.7:1194/udp", Span("130", "bad"), "ffff"],
    ["77/16", "192.0.2.33", "9", "fff0"],
]


def shown(width: int | None) -> list[str]:
    return paint(table(COLUMNS, ROWS, width), width=width)


def test_a_table_is_aligned() -> None:
    assert shown(None) == [
        "PEER   VIA                    COST  REACH",
        "4/16   198.51.100.7:1194/udp   130  ffff",
        "77/16  192.0.2.33                9  fff0",
    ]
    assert paint(table(COLUMNS, [], None)) == ["PEER  VIA  COST  REACH"]


def test_a_narrow_table_first_moves_together_then_is_cut_then_drops_columns() -> None:
    assert shown(41) == shown(None)
    assert shown(40)[1] == "4/16  198.51.100.7:1194/udp  130 ffff"
    assert shown(30)[1] == "4/16  198.51.100.7…  130 ffff"
    assert shown(25)[0] == "PEER  VIA      COST REACH"
    assert shown(24)[0] == "PEER  VIA           COST"
    assert shown(14) == ["PEER  VIA", "4/16  198.51.…", "77/16 192.0.2…"]
    assert all(len(each) <= 10 for each in shown(10)), "and what is left is cut"


@given(st.integers(1, 60))
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    assert all(len(each) <= width for each in shown(width))


def test_colour_is_only_where_it_is_wanted() -> None:
    one = line(Span("a", "good"), " ", Span("b"))
    assert paint([one]) == ["a b"]
    assert paint([one], colour=True) == ["\x1b[32ma\x1b[0m b"]


@given(st.lists(st.text(max_size=20), max_size=5))
def test_a_terminal_obeys_nothing_that_is_shown(texts: list[str]) -> None:
    rows = [[text] for text in texts]
    for each in paint([line(*texts), *table((Column("X"),), rows)]):
        assert each.isprintable()


@given(st.text(max_size=30), st.integers(1, 30))
def test_lines_are_cut_to_the_width(text: str, width: int) -> None:
    (painted,) = paint([line(text, "abc")], width=width)
    assert len(painted) <= width


def test_words_go_on_below() -> None:
    words = [f"{n} by {n}/16" for n in range(5)]
    assert paint(fold("routes 10: ", words, 34)) == [
        "routes 10: 0 by 0/16, 1 by 1/16,",
        "           2 by 2/16, 3 by 3/16,",
        "           4 by 4/16",
    ]
    assert len(fold("routes 10: ", words, None)) == 1
