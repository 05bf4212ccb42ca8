"""What --uplink comes to; what it refuses is in test_cli_node.py."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from re6st.cli.node.options import configuration, parser
from re6st.core.machine.uplinks import UplinkOption
from tests.unit.cli.node.test_cli_node import BASE


def given(*words: str) -> tuple[UplinkOption, ...]:
    p = parser()
    return configuration(p, p.parse([*BASE, *words])).uplinks


def test_nothing_is_said_of_lines_unless_somebody_does() -> None:
    assert given() == ()


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("eth0", UplinkOption("eth0")),
        ("fibre,dev=eth0,down=100,up=20.5", UplinkOption("fibre", "eth0", (), 100.0, 20.5)),
        ("lte,dev=wwan0,metered", UplinkOption("lte", "wwan0", metered=True)),
        (
            "a,gateway=192.0.2.1,gateway=fe80::1,dev=b",
            UplinkOption("a", "b", (ip_address("192.0.2.1"), ip_address("fe80::1"))),
        ),
        ("a, up=1000000", UplinkOption("a", up=1e6)),
    ],
)
def test_a_line_and_back(text: str, means: UplinkOption) -> None:
    assert given("--uplink", text) == (means,)
    assert given("--uplink", str(means)) == (means,), "as it is shown it can be given again"


def test_they_keep_their_order() -> None:
    assert [each.name for each in given("--uplink", "b", "--uplink", "a")] == ["b", "a"]
