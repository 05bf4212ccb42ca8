"""The expression of --test: values of options, and nothing that acts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.cli.node.expression import ExpressionError, evaluate

NAMES = {"main_interface": "lo", "client_count": None, "gateway": False, "interface": ["eth0", "eth1"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("main_interface", "lo"),
        ("main_interface == 'lo'", True),
        ("main_interface != 'lo' or gateway", False),
        ("not gateway and client_count is None", True),
        ("'eth1' in interface", True),
        ("'eth2' not in interface", True),
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        ("(1, 2) == [1, 2]", True),
        (" 7 ", 7),
    ],
)
def test_value(text: str, value: Any) -> None:
    assert evaluate(text, NAMES) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "interface[0]",
        "[x for x in interface]",
        "lambda: 1",
        "2 ** 1000000",
        "f'{gateway}'",
        "unknown",
        "gateway =",
        "gateway = 1",
        "",
        "None < 1",
        "(" * 900,
        "1" * 2000,
        "\0",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(text, NAMES)


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    try:
        evaluate(text, NAMES)
    except ExpressionError:
        pass
