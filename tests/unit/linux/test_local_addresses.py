"""The machine's own addresses, as others might reach them."""

from __future__ import annotations

from ipaddress import ip_address

import netifaces
import pytest

from re6st.linux.local_addresses import local_addresses, source_address


def test_own_addresses_are_those_that_others_might_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {
        "lo": {netifaces.AF_INET: [{"addr": "127.0.0.1"}], netifaces.AF_INET6: [{"addr": "::1"}]},
        "eth0": {
            netifaces.AF_INET: [{"addr": "192.0.2.1"}, {"peer": "192.0.2.9"}],
            netifaces.AF_INET6: [{"addr": "fe80::1%eth0"}, {"addr": "2001:db8::1%eth0"}, {"addr": "nonsense"}],
        },
        "eth1": {netifaces.AF_INET: [{"addr": "192.0.2.1"}, {"addr": "169.254.0.7"}]},
        "tap0": {},
    }
    monkeypatch.setattr(netifaces, "interfaces", lambda: list(machine))
    monkeypatch.setattr(netifaces, "ifaddresses", lambda name: machine[name])
    assert local_addresses() == [ip_address("192.0.2.1"), ip_address("2001:db8::1")]


def test_on_this_machine_nothing_is_raised() -> None:
    assert not any(ip.is_loopback or ip.is_link_local for ip in local_addresses())


def test_the_address_that_leads_somewhere() -> None:
    assert source_address("127.0.0.1") == ip_address("127.0.0.1")
    assert source_address("peer.example") is None
