"""The flows of the test bed, between two ends on this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.flows import Flows, Received, Result


def host(directory: Path) -> Any:
    return SimpleNamespace(name="here", log=directory, argv=lambda words: list(words))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port: int = own.getsockname()[1]
        return port


@pytest.mark.parametrize("down", [False, True])
def test_what_is_sent_arrives_by_all_connections(tmp_path: Path, down: bool) -> None:
    here = host(tmp_path)
    found = Flows(here, here, "127.0.0.1", count=3, seconds=0.5, down=down, port=free_port()).run()
    assert len(found.flows) == 3
    assert all(sum(each.slots) > 0 for each in found.flows)
    assert found.ended == 0
    assert found.mbits() > 1


def test_a_stall_is_the_longest_time_without_a_byte_the_one_at_the_end_too() -> None:
    flow = Received([0] * 20)
    for now, count in ((0.0, 10), (0.5, 10), (0.6, 0), (0.7, 10)):
        flow.note(now, count)
    assert (flow.stall, flow.stalled_at) == (0.5, 0.5)
    flow.wait(2.0)
    assert flow.stall == pytest.approx(1.3)


def test_rates_are_those_of_a_part_of_the_time() -> None:
    found = Result([Received([0, 12_500, 25_000]), Received([0, 0, 12_500])])
    assert found.mbits() == pytest.approx(8 * 50_000 / 0.3 / 1e6)
    assert found.mbits(after=0.2) == pytest.approx(3.0)
    assert found.mbits(until=0.1) == 0.0
