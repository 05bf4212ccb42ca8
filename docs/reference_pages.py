"""The pages of the programs, from what their manual pages are made of (manual/programs.py): a hook of mkdocs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from manual.programs import OPTION_FILE, Program, Table, programs

WIDTH = "90"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each program. Called by mkdocs."""
    for program in programs():
        files.append(File.generated(config, f"reference/{program.name}.md", content=page(program)))
    return files


def page(program: Program) -> str:
    """The page of a program, in Markdown."""
    parts = [f"# {program.name}", *program.description, _help(program.parser)]
    if program.option_files:
        parts.append(OPTION_FILE)
    parts += _table("Examples", program.examples, code=True)
    for name, parser in program.words.items():
        parts += [f"## {program.name} {name}", _help(parser)]
    parts += _table("Signals", program.signals)
    parts += _table("Files", program.files)
    parts += _table("Environment", program.environment)
    parts += _table("Exit status", program.statuses)
    return "\n\n".join(parts) + "\n"


def _table(title: str, rows: Table, *, code: bool = False) -> list[str]:
    if not rows:
        return []
    quote = "`" if code else ""
    lines = [f"| {quote}{name}{quote} | {text} |".replace("\n", " ") for name, text in rows]
    return [f"## {title}", "\n".join(["| | |", "|---|---|", *lines])]


def _help(parser: argparse.ArgumentParser) -> str:
    with _width():
        return f"```text\n{parser.format_help().strip()}\n```"


@contextmanager
def _width() -> Iterator[None]:
    """argparse folds at the width of the terminal, which it takes from the environment."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
