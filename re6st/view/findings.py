"""What a check of a machine found: each finding good, worth a look, or wrong, and what to do about it."""

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
    """One. `about` is what was looked at, in a word that programs may compare."""

    level: Level
    about: str
    text: str
    remedy: str = ""


def verdict(findings: Iterable[Finding]) -> Level:
    """That of the worst."""
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


def records(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """For JSON."""
    return [asdict(finding) for finding in findings]


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Good ones about the same, one after the other, as one."""
    found: list[Finding] = []
    for (level, about), group in groupby(findings, lambda finding: (finding.level, finding.about)):
        same = list(group)
        if level == "ok" and len(same) > 1:
            found.append(Finding("ok", about, ", ".join(finding.text for finding in same)))
        else:
            found += same
    return found


def lines_of(finding: Finding, width: int | None) -> list[Line]:
    """For people: `warn  what is so -> what to do`, on as many lines as it needs."""
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
