"""The option -B of re6stnet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from re6st.cli.options import OptionParser
from re6st.core.routing import babel_words
from re6st.core.routing.planes import TABLES

_RANGE = f"{TABLES[0]}-{TABLES[-1]}"
_TAKEN_BITS = 0xFF
"""Of the number of a table, by babeld 1.12."""


def add_option(group: argparse._ArgumentGroup) -> None:
    """The option -B."""
    group.add_argument(
        "-B",
        dest="babel_arguments",
        metavar="ARG",
        action="append",
        default=[],
        help=f"argument for babeld; re6stnet has the kernel's routing tables {_RANGE} for itself: export-table (-t)"
        " must be none of them",
    )


def arguments_of(p: OptionParser, words: Sequence[str]) -> tuple[str, ...]:
    """They must not send babeld's routes to a table that is for other planes: this node would miss them in the kernel,
    and start babeld again and again.
    """
    for text in babel_words.export_tables(words):
        number = _number(text)
        if number is not None and number & _TAKEN_BITS in TABLES:
            used = "" if number in TABLES else f", which babeld takes for {number & _TAKEN_BITS},"
            p.error(
                f"argument -B: babeld's export table {text}{used} is one of {_RANGE}, which are for re6stnet:"
                " choose another table"
            )
    return tuple(words)


def _number(text: str) -> int | None:
    """As strtol(3) with base 0 reads it; None if it is none, of which babeld itself says so."""
    octal = text.startswith("0") and text.isdigit()
    try:
        return int(text, 8 if octal else 0)
    except ValueError:
        return None
