"""The name of a tunnel interface says whose it is, to everybody who reads it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core import interfaces
from re6st.core.interfaces import Interface
from re6st.core.tunnel_protocols import SERVED, Role, TunnelProtocol

NAME_SIZE = 15
"""Characters (IFNAMSIZ without the zero at the end)."""

made = st.one_of(
    st.just(Interface()),
    st.integers(1, 10**7 - 1).map(Interface),
    st.builds(
        lambda number, role: Interface(number, link=role), st.sampled_from(interfaces.LINKS), st.sampled_from(Role)
    ),
    st.sampled_from(SERVED).map(lambda protocol: Interface(protocol=protocol)),
)


@given(made)
def test_what_is_made_is_read_back(interface: Interface) -> None:
    name = str(interface)
    assert interfaces.parse(name) == interface
    assert interfaces.is_ours(name)
    assert len(name) <= NAME_SIZE
    assert name.startswith(interfaces.PREFIX)


def test_a_name_says_which_end_we_are() -> None:
    assert (interfaces.server(TunnelProtocol.TCP6), interfaces.client(12)) == ("re6stnet-tcp6", "re6stnet12")
    assert (interfaces.link(Role.CLIENT, 7), interfaces.link(Role.SERVER, 999)) == ("re6stnet-wg7", "re6stnet-wgs999")
    names = "re6stnet", "re6stnet7", "re6stnet-udp", "re6stnet-wg1", "re6stnet-wgs12"
    roles = {name: found.role for name in names if (found := interfaces.parse(name))}
    assert list(roles.values()) == [Role.CLIENT, Role.CLIENT, Role.SERVER, Role.CLIENT, Role.SERVER]
    assert [name for name in names if interfaces.is_link(name)] == ["re6stnet-wg1", "re6stnet-wgs12"]
    assert Interface().is_sole
    assert not Interface(1).is_sole


def test_both_names_of_a_protocol_have_one_server() -> None:
    assert interfaces.server(TunnelProtocol.UDP4) == interfaces.server(TunnelProtocol.UDP) == "re6stnet-udp"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "eth0",
        "re6stne",
        "re6stnet-",
        "re6stnet-lan",
        "re6stnet-wg",
        "re6stnet-wg0",
        "re6stnet-wgs1000",
        "re6stnet-udp4",
        "re6stnet-udp7",
        "re6stnet1.2",
        "xre6stnet1",
    ],
)
def test_what_others_have_is_not_ours(name: str) -> None:
    assert not interfaces.is_ours(name)


@given(st.from_regex(re.compile(r"re6stnet[0-9a-z.-]{0,9}", re.ASCII), fullmatch=True))
def test_ours_are_those_that_all_versions_took_for_theirs_and_those_of_links(name: str) -> None:
    before = (
        re.fullmatch(r"re6stnet([0-9]*|-(udp|tcp)6?|-wgs?[1-9][0-9]{0,2})", name) is not None and len(name) <= NAME_SIZE
    )
    assert interfaces.is_ours(name) == before
