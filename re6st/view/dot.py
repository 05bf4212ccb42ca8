"""A graph in DOT, the language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Attributes = Mapping[str, str]


def digraph(nodes: Iterable[tuple[str, Attributes]], edges: Iterable[tuple[str, str, Attributes]]) -> str:
    """Nodes by their names, and edges from one to another, each with its attributes."""
    lines = [f"  {_quoted(name)}{_listed(attributes)};" for name, attributes in nodes]
    lines += [f"  {_quoted(start)} -> {_quoted(end)}{_listed(attributes)};" for start, end, attributes in edges]
    return "\n".join(["digraph re6st {", *lines, "}"]) + "\n"


def _listed(attributes: Attributes) -> str:
    values = (f"{name}={value if value.isidentifier() else _quoted(value)}" for name, value in attributes.items())
    return f" [{', '.join(values)}]" if attributes else ""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
