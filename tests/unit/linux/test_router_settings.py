"""A container whose /proc/sys is read-only: what babeld would end for is named before."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from re6st.linux import router_settings
from re6st.linux.router_settings import WANTED


def settings(root: Path, **changes: str) -> Path:
    for name, value in WANTED.items():
        path = root / name.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{changes.get(path.name, value)}\n")
    return root


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"forwarding": "0"}, ["net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.forwarding=1"]),
        ({"accept_redirects": "1"}, ["net.ipv6.conf.all.accept_redirects=0"]),
    ],
)
def test_settings_that_nobody_there_can_change_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], named: list[str]
) -> None:
    where = settings(tmp_path, **changes)
    assert list(router_settings.router_settings(where)) == [], "babeld sets them itself"
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    found = list(router_settings.router_settings(where))
    assert [finding.level for finding in found] == ["fail"] * bool(named)
    (where / "net/ipv6/conf/default").mkdir()
    (where / "net/ipv6/conf/default/dad_transmits").write_text("1\n")
    [slower] = [each for each in router_settings.router_settings(where) if each.level == "warn"]
    assert "a second without net.ipv6.conf.default.dad_transmits=0" in slower.text
    for finding in found:
        assert f"babeld ends without {', '.join(named)}" in finding.text
        assert f"--sysctl {named[0]}" in finding.remedy


def test_without_ipv4_or_where_nothing_is_told_nothing_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not router_settings.is_fixed(tmp_path / "none")
    monkeypatch.setattr(router_settings, "is_fixed", lambda _: True)
    assert list(router_settings.router_settings(tmp_path)) == []
