"""What --check and netcheck say of a kernel that others changed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from re6st.cli import kernel_findings
from re6st.core.machine.forward_chain import Blocked
from re6st.linux.nftables import NftError
from re6st.view.findings import Finding


def switch(sysctl: Path, **names: int) -> None:
    for name, value in names.items():
        path = sysctl / f"ipv6/conf/{name}/disable_ipv6"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def test_ipv6_that_is_switched_off_is_named_where_it_matters(tmp_path: Path) -> None:
    (none,) = kernel_findings.ipv6("lo", tmp_path)
    assert none == Finding("fail", "ipv6", "this kernel has no IPv6", "boot it without ipv6.disable=1")
    switch(tmp_path, all=0, default=0, lo=0, eth0=1)
    assert list(kernel_findings.ipv6("lo", tmp_path)) == [], "of others it is nobody's business"
    switch(tmp_path, default=1, br0=1)
    found = list(kernel_findings.ipv6("br0", tmp_path))
    assert [each.level for each in found] == ["warn", "warn"]
    assert [each.remedy for each in found] == [
        "sysctl net.ipv6.conf.default.disable_ipv6=0",
        "sysctl net.ipv6.conf.br0.disable_ipv6=0",
    ]


def test_ipv6_that_cannot_be_switched_on_here_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch(tmp_path, all=1)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    (found,) = kernel_findings.ipv6("lo", tmp_path)
    assert (found.level, found.text) == ("fail", "net.ipv6.conf.all.disable_ipv6 is 1, and cannot be changed here")


def test_an_interface_for_our_address_that_is_not_there_or_down_is_named(tmp_path: Path) -> None:
    (found,) = kernel_findings.interface("br0", tmp_path)
    assert (found.level, found.text) == ("warn", "--main-interface br0: not there, so the node has no address")
    (tmp_path / "br0").mkdir()
    (tmp_path / "br0/flags").write_text("0x1002\n")
    (found,) = kernel_findings.interface("br0", tmp_path)
    assert found.remedy == "ip link set br0 up"
    (tmp_path / "br0/flags").write_text("0x1003\n")
    assert list(kernel_findings.interface("br0", tmp_path)) == []


@pytest.mark.parametrize("certain", [True, False])
def test_a_firewall_that_drops_what_is_forwarded_is_named(monkeypatch: pytest.MonkeyPatch, certain: bool) -> None:
    async def rules() -> object:
        return {}

    monkeypatch.setattr(kernel_findings, "_rules", rules)
    monkeypatch.setattr(kernel_findings, "blocked", lambda *_: Blocked("table ip6 filter, chain FORWARD", certain))
    (found,) = kernel_findings.firewall()
    assert found.level == "warn"
    assert "(table ip6 filter, chain FORWARD)" in found.text
    assert 'iifname "re6stnet*"' in found.remedy


def test_who_may_not_read_the_rules_says_nothing_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused() -> object:
        raise NftError("Operation not permitted (you must be root)")

    monkeypatch.setattr(kernel_findings, "_rules", refused)
    assert list(kernel_findings.firewall()) == []
