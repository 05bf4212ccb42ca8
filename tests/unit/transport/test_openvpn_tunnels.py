"""OpenVPN as one of the transports: what it makes, and by what a daemon knows what another one left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.transport import catalogue
from re6st.transport.openvpn import client_command
from re6st.transport.openvpn_tunnels import OpenVpn
from re6st.tunnel import TunnelFactory
from tests.unit.openvpn_play import made

RUN = Path("/run/re6stnet")
SETTINGS = replace(made(RUN), user="re6stnet")
OPENVPN = OpenVpn(SETTINGS, (b"ours", b"ca"), 20, None, both_families=False)


def test_it_is_a_transport() -> None:
    factory: TunnelFactory = OPENVPN
    assert factory.config_digest()


@pytest.mark.parametrize(
    ("encrypt", "digest"),
    [
        (True, "bddb6e9def047f78db53cc1f8f51bb37ef7b779a806d7f0c9bc6f131a339049c"),
        (False, "19dba817559958a7e4dc3614d9d6dd0ffe93088634b838f7eef6e7bd3d2dd7fb"),
    ],
)
def test_the_digest_is_that_of_versions_before(encrypt: bool, digest: str) -> None:
    """Else an upgrade would cut all tunnels. Who changes what a running OpenVPN cannot, changes these on purpose."""
    assert OPENVPN.config_digest(encrypt=encrypt) == digest
    assert replace(OPENVPN, settings=replace(SETTINGS, encrypt=encrypt)).config_digest() == digest


def test_what_a_running_tunnel_can_change_is_not_in_the_digest() -> None:
    for same in (
        replace(OPENVPN, settings=replace(SETTINGS, ping_exit=16)),
        replace(OPENVPN, max_clients=7, dh=Path("dh.pem"), both_families=True),
    ):
        assert same.config_digest() == OPENVPN.config_digest()
    assert replace(OPENVPN, certificates=(b"another", b"ca")).config_digest() != OPENVPN.config_digest()


def test_a_process_is_known_by_its_management_socket() -> None:
    there = Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP)
    argv = client_command(SETTINGS, "re6stnet1", Prefix(1, 16), there, "re6stnet1-2")
    assert catalogue.is_managed(argv, RUN, "re6stnet1-2")
    assert not catalogue.is_managed(argv, RUN, "re6stnet1")
    assert not catalogue.is_managed(argv, Path("/run/other"), "re6stnet1-2")
    assert not catalogue.is_managed((), RUN, "re6stnet1-2")
    assert "openvpn" in catalogue.PROGRAMS
