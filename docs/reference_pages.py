"""The pages of the options, from the programs' own --help: a hook of mkdocs (mkdocs.yml)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from re6st.cli import conf, node, registry, registry_admin, status

WIDTH = "90"
PROGRAMS: Mapping[str, tuple[str, Sequence[str]]] = {
    "re6stnet": ("The node. Started by the unit `re6stnet.service` as `re6stnet @re6stnet.conf`.", ()),
    "re6st-conf": ("Enrols a machine: [Join a network](../join.md).", ()),
    "re6st-registry": (
        "Serves a registry, and administers it with a word in front: [Words of the registry](../registry-admin.md).",
        ("init", *registry_admin.WORDS),
    ),
    "re6st-status": (
        "What the node of this machine does.",
        ("tunnels", "neighbours", "routes", "events", "why", "ping", "trace", "wait", "check", "log"),
    ),
}
MAINS = {"re6stnet": node.main, "re6st-conf": conf.main, "re6st-registry": registry.main, "re6st-status": status.main}

OPTION_FILES = """
Options may be in files: `@FILE` stands for the lines of the file, one option a line, without its dashes, values split
as a shell does. Lines that are empty or begin with `#` are left out.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each program. Called by mkdocs."""
    for program in PROGRAMS:
        files.append(File.generated(config, f"reference/{program}.md", content=page(program)))
    return files


def page(program: str) -> str:
    """The page of a program, in Markdown."""
    what, words = PROGRAMS[program]
    parts = [f"# {program}", what, OPTION_FILES.strip() if program in ("re6stnet", "re6st-registry") else ""]
    parts.append(_block(_help(program)))
    for word in words:
        parts += [f"## {program} {word}", _block(_help(program, word))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def _help(program: str, *words: str) -> str:
    output = io.StringIO()
    with _width(), redirect_stdout(output), suppress(SystemExit):
        MAINS[program]([*words, "--help"])
    return output.getvalue()


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
