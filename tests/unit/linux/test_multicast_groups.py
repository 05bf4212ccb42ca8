"""Who has joined a multicast group on an interface is told by the kernel."""

from __future__ import annotations

from ipaddress import IPv6Address
from pathlib import Path

import pytest

from re6st.linux.multicast_groups import joined

BABEL = IPv6Address("ff02::1:6")
TEXT = """\
1    lo              ff020000000000000000000000000001     1 0000000C 0
5    re6stnet1       ff020000000000000000000000000001     1 0000000C 0
5    re6stnet1       ff020000000000000000000000010006     1 00000004 0
6    re6stnet10      ff020000000000000000000000000001     1 0000000C 0
"""


def test_only_that_group_on_that_interface_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("socket.if_nametoindex", lambda _: 5)
    (tmp_path / "igmp6").write_text(TEXT)
    found = {name: joined(name, BABEL, tmp_path / "igmp6") for name in ("lo", "re6stnet1", "re6stnet10", "re6stnet")}
    assert found == {"lo": False, "re6stnet1": True, "re6stnet10": False, "re6stnet": False}


def test_the_kernel_of_this_machine_is_understood() -> None:
    with_ipv6 = any(line.split()[1] == "lo" for line in Path("/proc/net/igmp6").read_text().splitlines())
    assert joined("lo", IPv6Address("ff02::1")) is with_ipv6, "all nodes"
    assert not joined("lo", IPv6Address("ff02::7265:3673:7400"))


def test_where_there_is_no_such_interface_nothing_is_known() -> None:
    with pytest.raises(OSError, match=r"[Nn]o (such device|interface)"):
        joined("re6test-none", BABEL)
