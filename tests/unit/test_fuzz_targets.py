"""Parsers of what others send refuse what they cannot read, and nothing else happens.

`./run fuzz` tries the same targets with a coverage-guided fuzzer, for as long as one likes.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import FOUND, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_what_it_is_made_for_and_what_once_failed(name: str) -> None:
    for text in (*TARGETS[name].seeds, *FOUND.get(name, ())):
        TARGETS[name].run(text)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_parser_refuses_what_was_changed_on_the_way(name: str, data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from(TARGETS[name].seeds)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    TARGETS[name].run(bytes(text))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=50)
@given(text=st.binary(max_size=300))
def test_a_parser_refuses_what_nobody_sends(name: str, text: bytes) -> None:
    TARGETS[name].run(text)
