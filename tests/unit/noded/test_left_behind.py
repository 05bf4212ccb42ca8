"""What a node has on the machine is noted for who ends it without a daemon."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from re6st.core.machine.wanted_state import AddressPlan
from re6st.core.routing.regions import ROUTE_PROTOCOL
from re6st.linux.nftables import NftError
from re6st.linux.process import MissingProgram
from re6st.noded import left_behind
from re6st.service import run_names
from re6st.service.rundir import RunDirectory, RunDirectoryBusy

PLANS = (
    AddressPlan(
        IPv6Network("2001:db8:42::/48"), IPv6Address("2001:db8:42:1::1"), 64, (IPv6Network("2001:db8:42::/48"),)
    ),
    AddressPlan(
        IPv4Network("10.42.0.0/16"),
        IPv4Address("10.42.1.1"),
        32,
        (IPv4Network("10.42.0.0/16"), IPv4Network("10.42.1.0/24")),
    ),
)


def test_what_was_noted_is_read_again(tmp_path: Path) -> None:
    assert left_behind.noted(tmp_path) == ()
    left_behind.note(tmp_path, PLANS)
    assert left_behind.noted(tmp_path) == PLANS
    assert run_names.OLDEST.fullmatch(run_names.PLACED)
    assert run_names.is_ours(run_names.PLACED)


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[3]", '[{"network": "x"}]', "[" * 10_000, '[{"network": "::/0"}]', "\xff"]
)
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / run_names.PLACED).write_bytes(text.encode("latin-1"))
    assert left_behind.noted(tmp_path) == ()


def test_regions_that_an_earlier_daemon_told_others_of_are_known_until_they_are_wanted_again(tmp_path: Path) -> None:
    flat, net = PLANS[0], IPv6Network("2001:db8:42::/56")
    region = AddressPlan(net, net[-1], 128, (net,), ROUTE_PROTOCOL)
    left_behind.note(tmp_path, (flat, region, PLANS[1]))
    assert left_behind.former_regions(tmp_path, [flat]) == [region]
    assert left_behind.former_regions(tmp_path, [flat, region]) == []


def test_what_cannot_be_noted_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_behind.note(tmp_path / "gone", PLANS)
    assert "No such file or directory. No later daemon will know to remove this node's address" in caplog.text


class Tables:
    """Those of this machine, by name; one of them cannot be removed."""

    def __init__(self, *names: str, stuck: str = "") -> None:
        self.names = set(names)
        self.stuck = stuck

    async def load(self, commands: str, *, only_check: bool = False) -> None:
        for name in re.findall(r"delete table inet (\S+)", commands):
            if name == self.stuck:
                raise NftError("busy")
            self.names.discard(name)

    def counters(self, table: str) -> Mapping[str, int]:
        return {"handed": 0} if table in self.names else {}

    async def listing(self, *words: str, contents: bool = True) -> Any:
        raise NftError("none")

    def generation(self) -> int | None:
        return None

    def close(self) -> None: ...


def test_no_table_by_which_packets_are_marked_or_counted_stays(caplog: pytest.LogCaptureFixture) -> None:
    tables = Tables("re6stnet_lines", "re6stnet_handing", "re6stnet_incoming", "docker")
    removed = asyncio.run(left_behind.remove_tables(lambda: tables))
    assert tables.names == {"docker"}
    assert removed == [f"nftables table re6stnet_{name}" for name in ("lines", "handing", "incoming")]
    tables = Tables("re6stnet_handing", "re6stnet_incoming", stuck="re6stnet_handing")
    assert asyncio.run(left_behind.remove_tables(lambda: tables)) == ["nftables table re6stnet_incoming"]
    assert "re6stnet_handing stays: busy" in caplog.text


def test_a_machine_without_nft_has_none() -> None:
    def make() -> Tables:
        raise MissingProgram("nft")

    assert asyncio.run(left_behind.remove_tables(make)) == []


def test_a_node_that_lives_is_left_alone_and_nothing_is_made_where_none_was(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert asyncio.run(left_behind.remove_alone(run)) == []
    assert not run.exists()
    with RunDirectory(run):
        assert asyncio.run(left_behind.remove_alone(run)) == [], "it has nothing yet"
        left_behind.note(run, PLANS)
        with pytest.raises(RunDirectoryBusy):
            asyncio.run(left_behind.remove_alone(run))
        assert left_behind.noted(run) == PLANS


def test_a_start_that_fails_leaves_the_sockets_of_what_runs_on(tmp_path: Path) -> None:
    own = RunDirectory(tmp_path / "run", keep=True)
    with own:
        (own.path / "re6stnet1.sock").touch()
    assert (own.path / "re6stnet1.sock").exists()
    (own.path / "re6stnet1.sock").unlink()
    with own:
        pass
    assert not own.path.exists(), "nobody runs on"
