"""What has one owner is known nowhere else: names of interfaces, names of protocols, and which transports there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from re6st.core import interfaces
from re6st.core.tunnel_protocols import TunnelProtocol
from tests.unit.test_house import TREES, imports

OWNERS = {"re6st.core.interfaces", "re6st.core.tunnel_protocols", "re6st.service.run_names"}
"""The last one knows the names of files of older versions, too."""

KNOW_OPENVPN = {"re6st.cli.node.main", "re6st.noded.settings"}
"""The first names its limits, the other makes what the user and the network want of it."""

_TAKEN_APART = {"endswith", "startswith", "removesuffix", "removeprefix", "rstrip"}


def modules() -> list[str]:
    return sorted(TREES.keys() - OWNERS)


def literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "1" for part in node.values)  # type: ignore[misc]


@pytest.mark.parametrize("module", modules())
def test_nobody_else_makes_or_reads_the_name_of_an_interface(module: str) -> None:
    for text in literals(TREES[module]):
        found = interfaces.parse(text)
        assert found is None or found.is_sole, text
        assert not re.search(r"re6stnet\S*[\[(\\]", text), f"{text}: a pattern"


@pytest.mark.parametrize("module", modules())
def test_nobody_else_takes_the_name_of_a_protocol_apart(module: str) -> None:
    parts = {*TunnelProtocol, "4", "6", "-server"}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _TAKEN_APART:
            assert not parts & set(literals(node)), f"line {node.lineno}: {ast.unparse(node)}"


def test_the_walk_sees_a_name_that_is_made_up() -> None:
    tree = ast.parse('f"re6stnet{n}", p.endswith("6")')
    assert "re6stnet1" in literals(tree)


def test_rooms_of_a_node_know_what_a_tunnel_is_and_not_which_program_makes_it() -> None:
    knowing = {
        module
        for module in TREES
        if not module.startswith("re6st.transport")
        and any(name.startswith("re6st.transport.openvpn") for name in imports(module))
    }
    assert knowing == KNOW_OPENVPN
