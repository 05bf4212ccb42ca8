"""Each promise of docs/security.md names the tests that hold it, and those tests exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text()
NAMED = re.compile(r"`(?P<file>tests/[a-z_/]+\.py)(?:::(?P<test>\w+))?`")
REFERENCES = sorted({(match["file"], match["test"]) for match in NAMED.finditer(TEXT)}, key=str)


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )


@pytest.mark.parametrize(("file", "test"), REFERENCES)
def test_a_test_named_in_the_security_model_exists(file: str, test: str | None) -> None:
    assert test is None or test in names_in(file)


def section(title: str) -> str:
    """The text below a heading, up to the next of its level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    assert found, f"docs/security.md has no section {title!r}"
    return found[1]


@pytest.mark.parametrize("title", ["What it does", "The registry", "On one machine"])
def test_each_promise_names_a_test(title: str) -> None:
    bare = [
        paragraph
        for paragraph in section(title).split("\n\n")
        if paragraph.strip() and not NAMED.search(" ".join(paragraph.split())) and not paragraph.startswith(("|", "#"))
    ]
    assert not bare, bare
