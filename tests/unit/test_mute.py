"""Muting: what can be seen without changing this machine's packet filter."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from re6st import mute
from re6st.mute import Mute
from re6st.process import MissingProgram


def test_without_nftables_nothing_is_muted_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str) -> str:
        raise MissingProgram(name)

    monkeypatch.setattr(mute, "find_program", missing)

    async def run() -> None:
        muted = Mute()
        assert not muted.available
        await muted.clear()
        await muted.add("re6stnet1")
        await muted.remove("re6stnet1")
        await muted.close()

    asyncio.run(run())
    assert caplog.text.count("nft: program not found") == 1


def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> Path:
    """An nft that writes what it is told to a file."""
    program, heard = tmp_path / "nft", tmp_path / "heard"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(mute, "find_program", lambda name: str(program))
    return heard


def test_only_babels_own_packets_on_an_interface_or_of_a_neighbour_are_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard = played(monkeypatch, tmp_path, f"cat >> {tmp_path}/heard")

    async def run() -> None:
        muted = Mute()
        assert muted.available
        await muted.close()
        assert not heard.exists(), "what was not made is not removed"
        await muted.add("re6stnet1")
        await muted.add("re6stnet2")
        await muted.remove("re6stnet1")
        await muted.remove("re6stnet1")
        await muted.remove("re6stnet9")
        await muted.add("re6stnet-tcp", IPv6Address("fe80::1"))
        await muted.remove("re6stnet-tcp", IPv6Address("fe80::1"))
        await muted.close()
        await muted.close()

    asyncio.run(run())
    text = heard.read_text()
    setup, *rest = text.split("add element")
    assert "udp dport 6696 drop" in setup
    assert "iifname @muted" in setup
    assert "oifname @muted" in setup
    assert "add element" + "add element".join(rest) == (
        "add element inet re6stnet muted { re6stnet1 }\n"
        "add element inet re6stnet muted { re6stnet2 }\n"
        "delete element inet re6stnet muted { re6stnet1 }\n"
        "add element inet re6stnet unheard { re6stnet-tcp . fe80::1 }\n"
        "delete element inet re6stnet unheard { re6stnet-tcp . fe80::1 }\n"
        "delete table inet re6stnet\n"
    )


def test_an_nft_that_fails_is_an_error_in_the_log_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    played(monkeypatch, tmp_path, "cat >/dev/null; echo Operation not permitted >&2; exit 1")

    async def run() -> None:
        muted = Mute()
        await muted.add("re6stnet1")
        await muted.add("re6stnet1")
        await muted.close()

    asyncio.run(run())
    assert caplog.text.count("Operation not permitted") == 2
