"""What a user's own arguments for babeld say (option -B of re6stnet; babeld(8))."""

from __future__ import annotations

import getopt
from collections.abc import Iterator, Sequence

_SHORT_OPTIONS = "m:p:h:H:i:k:A:srS:d:g:G:lwz:M:t:T:c:C:DL:I:V"
"""Those of babeld 1.12, for getopt(3)."""


def interfaces(words: Sequence[str]) -> tuple[str, ...]:
    """Those on which babeld is to speak by these words, beside ours."""
    options, names = _read(words)
    for option, value in options:
        match option, value.split():
            case ("-C", ["interface", name, *_]):
                names.append(name)
    return tuple(dict.fromkeys(names))


def export_tables(words: Sequence[str]) -> Iterator[str]:
    """The tables of the kernel for its routes."""
    for option, value in _read(words)[0]:
        match option, value.split():
            case ("-t", [table]) | ("-C", ["export-table", table]):
                yield table


def _read(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options, and the other words; none of what babeld itself will complain of."""
    try:
        return getopt.gnu_getopt(list(words), _SHORT_OPTIONS)
    except getopt.GetoptError:
        return [], []
