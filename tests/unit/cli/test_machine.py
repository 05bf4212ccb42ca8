"""What a machine has of what a node needs."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from re6st.cli import machine
from re6st.view.findings import Finding


def test_the_tun_device(tmp_path: Path) -> None:
    assert [each.level for each in machine.tun_device(Path("/dev/null"))] == ["ok"]
    (found,) = machine.tun_device(tmp_path / "tun")
    assert (found.level, found.text) == ("fail", f"no {tmp_path}/tun")
    assert found.remedy


def test_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    status = "Name:\tre6stnet\nCapEff:\t{}\nCapBnd:\t0\n"
    for bits, expected in (("000000000000f400", "ok"), ("0000000000001000", "fail")):
        monkeypatch.setattr(Path, "read_text", lambda self, bits=bits: status.format(bits))
        assert [each.level for each in machine.capabilities(1)] == [expected]
    (found,) = machine.capabilities()
    assert found.text == "CAP_NET_BIND_SERVICE, CAP_NET_RAW missing"
    monkeypatch.undo()
    assert list(machine.capabilities(1 << 30)) == [], "there is no such process"


@pytest.mark.parametrize(
    ("prints", "expected"),
    [
        ("echo babeld-1.12.1 >&2", Finding("ok", "machine", "babeld 1.12.1")),
        ("echo OpenVPN 2.6.14 x86_64; exit 1", Finding("ok", "machine", "babeld 2.6.14")),
        ("echo hello", Finding("ok", "machine", "babeld")),
    ],
)
def test_versions(prints: str, expected: Finding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in machine.PROGRAMS:
        (tmp_path / name).write_text(f"#!/bin/sh\n{prints}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert next(machine.programs()) == expected


def test_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROGRAMS", {"no-such-program-of-re6st": []})
    (found,) = machine.programs()
    assert (found.level, found.remedy) == ("fail", "apt install no-such-program-of-re6st")


def test_routes_by_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [each.level for each in machine.source_routes(known=True)] == ["ok"]
    assert [each.level for each in machine.source_routes(known=False)] == ["warn"]
    path = tmp_path / "config.gz"
    monkeypatch.setattr(machine, "Path", lambda text: path if text == "/proc/config.gz" else tmp_path / "none")
    assert list(machine.source_routes()) == [], "nobody tells"
    path.write_bytes(gzip.compress(b"CONFIG_A=y\nCONFIG_IPV6_SUBTREES=y\n"))
    assert [each.level for each in machine.source_routes()] == ["ok"]
    path.write_bytes(gzip.compress(b"CONFIG_A=y\n# CONFIG_IPV6_SUBTREES is not set\n"))
    assert [each.level for each in machine.source_routes()] == ["warn"]
    path.write_bytes(b"no gzip")
    assert list(machine.source_routes()) == []


def test_a_default_route_that_will_go(tmp_path: Path) -> None:
    for name, heard, forwarding in (
        *(("eth0", "1", "1"), ("eth1", "2", "1"), ("eth2", "1", "0"), ("eth3", "0", "1")),
        *(("all", "1", "1"), ("lo", "1", "1"), ("re6stnet1", "1", "1"), ("re6stnet-tcp", "1", "1")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "accept_ra").write_text(f"{heard}\n")
        (tmp_path / name / "forwarding").write_text(f"{forwarding}\n")
    (found,) = machine.advertisements(tmp_path)
    assert (found.level, found.remedy) == ("warn", "sysctl net.ipv6.conf.eth0.accept_ra=2")
