"""The findings of a check of a machine: each is good, a warning or a failure, and says what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Literal

from re6st.view.screen import Line, Span, Style, line

Level = Literal["ok", "warn", "fail"]
_STYLES: Mapping[Level, Style] = {"ok": "good", "warn": "warning", "fail": "bad"}
_INDENT = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding. `about` is the subject, as a word that programs may compare."""

    level: Level
    about: str
    text: str
    remedy: str = ""


def verdict(findings: Iterable[Finding]) -> Level:
    """The level of the worst finding."""
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


def records(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """The finding for JSON."""
    return [asdict(finding) for finding in findings]


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Joins good findings about the same subject that follow each other."""
    found: list[Finding] = []
    for (level, about), group in groupby(findings, lambda finding: (finding.level, finding.about)):
        same = list(group)
        if level == "ok" and len(same) > 1:
            found.append(Finding("ok", about, ", ".join(finding.text for finding in same)))
        else:
            found += same
    return found


def lines_of(finding: Finding, width: int | None) -> list[Line]:
    """For people: `warn  what is wrong -> what to do`, on as many lines as it needs."""
    words = finding.text.split()
    marked = len(words)
    if finding.remedy:
        words += ["->", *finding.remedy.split()]
    rows: list[list[tuple[str, Style]]] = [[]]
    length = _INDENT
    for number, word in enumerate(words):
        if width is not None and rows[-1] and length + 1 + len(word) > width:
            rows.append([])
            length = _INDENT
        length += len(word) + bool(rows[-1])
        rows[-1].append((word, "" if number <= marked else "bold"))
    level = Span(finding.level.ljust(_INDENT), _STYLES[finding.level])
    return [_row(level if number == 0 else Span(" " * _INDENT), row) for number, row in enumerate(rows)]


def _row(head: Span, words: list[tuple[str, Style]]) -> Line:
    spans = [head]
    for style, group in groupby(words, lambda word: word[1]):
        text = " ".join(word for word, _ in group)
        spans.append(Span(f" {text}" if len(spans) > 1 else text, style))
    return line(*spans)
