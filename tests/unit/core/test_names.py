"""Names of machines: no text is taken for a name that could be something else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core import names
from re6st.core.prefix import Prefix, PrefixError
from re6st.registryd.listings import is_serial

TEXT = st.one_of(st.text(max_size=70), st.text("abz019-", max_size=70))


@pytest.mark.parametrize("name", ["a", "web1", "web-1", "1a", "a1", "0x1f", "fd00", "a" * 63, "1-a"])
def test_names(name: str) -> None:
    assert names.check(name) == name
    assert names.from_host_name(f"{name.upper()}.example.org") == name


@pytest.mark.parametrize(
    "text",
    ["", "-", "-a", "a-", "Web", "web_1", "web 1", "web.1", "14/16", "12", "1-2", "a" * 64, "web1\n", "wéb", "::a"],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(names.BadName, match="cannot be a name"):
        names.check(text)


@pytest.mark.parametrize("text", ["localhost", "xn--nxasmq6b", "ab--c"])
def test_names_that_would_mislead(text: str) -> None:
    assert not names.is_name(text)


@given(TEXT)
def test_a_name_is_nothing_else(text: str) -> None:
    if not names.is_name(text):
        return
    assert re.fullmatch(r"[a-z0-9-]{1,63}", text, re.ASCII)
    assert not is_serial(text)
    with pytest.raises(PrefixError):
        Prefix.from_cn(text)
    assert ":" not in text
    assert "." not in text


@given(TEXT)
def test_of_any_host_name_comes_a_name_or_none(host: str) -> None:
    found = names.from_host_name(host)
    assert found is None or names.is_name(found)


@pytest.mark.parametrize(
    ("host", "name"),
    [("Web_1.example.org", "web-1"), ("localhost", None), ("192.0.2.1", None), ("", None), ("a" * 70, "a" * 63)],
)
def test_host_names(host: str, name: str | None) -> None:
    assert names.from_host_name(host) == name


@given(st.from_regex(r"[a-z][a-z0-9-]{0,61}[a-z0-9]", fullmatch=True).filter(names.is_name), st.integers(0, 120))
def test_who_comes_later_gets_a_number(wanted: str, others: int) -> None:
    taken: set[str] = set()
    for _ in range(others):
        if (name := names.free_name(wanted, taken.__contains__)) is None:
            assert len(taken) >= names.TRIES // 2
            return
        assert names.is_name(name)
        assert name not in taken
        taken.add(name)


def test_numbers() -> None:
    taken = {"web", "web-2"}
    assert names.free_name("web", taken.__contains__) == "web-3"
    assert names.free_name("a" * 63, {"a" * 63}.__contains__) == "a" * 61 + "-2"
    assert names.free_name("web", lambda name: True) is None
