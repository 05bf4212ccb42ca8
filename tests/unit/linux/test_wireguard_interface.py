"""An interface of WireGuard is brought up with the settings of a tunnel's, as far as the machine lets us."""

from __future__ import annotations

import errno
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from re6st.core.transport.wireguard_uapi import Address
from re6st.linux import wireguard
from re6st.linux.wireguard import NEEDED, SETTINGS, WireGuardError, bring_up

NAME, ADDRESS = "re6stnet-wg1", IPv6Address("fe80::7")


class PlayKernel:
    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []

    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None:
        self.done.append((ip, length, index))

    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None:
        self.done.append((index, up, mtu))


@pytest.fixture
def sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of that interface, wrong as yet."""
    monkeypatch.setattr(wireguard, "SYSCTL", tmp_path)
    monkeypatch.setattr("socket.if_nametoindex", lambda _: 7)
    (tmp_path / NAME).mkdir()
    for name in SETTINGS:
        (tmp_path / NAME / name).write_text("2\n")
    return tmp_path / NAME


def refuse(sysctl: Path, name: str) -> None:
    (sysctl / name).unlink()
    (sysctl / name).mkdir()


def test_it_has_its_settings_and_its_address_when_it_comes_up(sysctl: Path) -> None:
    kernel = PlayKernel()
    bring_up(kernel, NAME, ADDRESS, 1420)
    assert {name: (sysctl / name).read_text() for name in SETTINGS} == SETTINGS
    assert kernel.done == [(ADDRESS, 64, 7), (7, True, 1420)]


def test_where_settings_cannot_be_changed_it_comes_up_nevertheless_if_it_has_ipv6(sysctl: Path) -> None:
    for name in SETTINGS.keys() - {NEEDED}:
        refuse(sysctl, name)
    kernel = PlayKernel()
    bring_up(kernel, NAME, ADDRESS, 1420)
    assert kernel.done


def test_what_keeps_ipv6_off_is_named(sysctl: Path) -> None:
    refuse(sysctl, NEEDED)
    with pytest.raises(WireGuardError, match=f"{NAME}/{NEEDED}: ") as caught:
        bring_up(PlayKernel(), NAME, ADDRESS, 1420)
    assert caught.value.errno == errno.EISDIR
