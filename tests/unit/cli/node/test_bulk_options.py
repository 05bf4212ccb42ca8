"""The options about the second plane: what goes by capacity, and that nothing is sent to measure tunnels."""

from __future__ import annotations

from pathlib import Path

from re6st.cli.node.options import configuration, parser
from re6st.core.machine.bulk_rules import Bulk, BulkKind
from re6st.noded.settings import Config

BASE = ["--registry", "http://192.0.2.1/", "--ca", "ca.crt", "--cert", "cert.crt", "--key", "cert.key"]


def config(*options: str) -> Config:
    p = parser()
    return configuration(p, p.parse([*BASE, *options]))


def test_what_is_bulk_is_named_by_port_user_or_control_group() -> None:
    words = ("--bulk", "tcp", "873", "--bulk", "user", "root", "--bulk", "cgroup", "/a.slice/b@1.service", "--no-probe")
    found = config(*words, "--bulk", "tcp", "873")
    assert found.bulk == (
        Bulk(BulkKind.TCP, "873"),
        Bulk(BulkKind.USER, "0"),
        Bulk(BulkKind.CGROUP, "a.slice/b@1.service"),
    )
    assert not found.probe
    assert config().probe


def test_it_may_stand_in_the_option_file(tmp_path: Path) -> None:
    """As the guide writes it."""
    (tmp_path / "re6stnet.conf").write_text("bulk tcp 873\nbulk cgroup backup.slice\nno-probe\n")
    found = config(f"@{tmp_path / 're6stnet.conf'}")
    assert found.bulk == (Bulk(BulkKind.TCP, "873"), Bulk(BulkKind.CGROUP, "backup.slice"))
    assert not found.probe
