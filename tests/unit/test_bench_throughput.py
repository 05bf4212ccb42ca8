"""How the throughput benchmark makes figures of what iperf3, ping and the kernel say, and judges them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from bench.support import processor_time, throughput_report
from bench.support.carriers import Ours
from bench.support.processor_time import Reading, Used
from bench.support.throughput_figures import (
    Mark,
    NoFigureError,
    Transfer,
    figure,
    highest_rate,
    judge,
    percentile,
    read_iperf,
    read_ping,
)
from bench.throughput import CARRIERS, marks

TCP = {
    "end": {
        "sum_sent": {"seconds": 1.004, "bytes": 978845696, "retransmits": 4},
        "sum_received": {"seconds": 1.037, "bytes": 976224256},
    }
}
UDP = {
    "end": {
        "sum_sent": {"seconds": 1.39, "bytes": 5728800, "packets": 4774, "lost_packets": 0},
        "sum_received": {"seconds": 1.4, "bytes": 2426400, "packets": 2906, "lost_packets": 884},
    }
}
PING = """PING fd02::2(fd02::2) 56 data bytes
64 bytes from fd02::2: icmp_seq=1 ttl=64 time=0.045 ms
64 bytes from fd02::2: icmp_seq=2 ttl=64 time=12 ms

--- fd02::2 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 100ms
rtt min/avg/max/mdev = 0.045/6.022/12.0/0.001 ms
"""


def test_what_came_in_over_tcp_counts() -> None:
    found = read_iperf(json.dumps(TCP))
    assert found.bytes == 976224256
    assert found.mbit_s == pytest.approx(976224256 * 8 / 1.037 / 1e6)


def test_datagrams_that_came_in_are_told_from_those_that_were_sent() -> None:
    found = read_iperf(json.dumps(UDP))
    assert (found.sent, found.packets, found.lost) == (4774, 2022, 884)
    assert found.packets * 1200 == found.bytes
    assert not found.sustained


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"error": "unable to connect to server: Connection refused"}', "Connection refused"),
        ("{}", "something else"),
        ("", "something else"),
        ("[1]", "something else"),
        ('{"end": {"sum_sent": {"seconds": 0}, "sum_received": {"bytes": 1}}}', "no time"),
        ('{"end": {"sum_sent": {"seconds": 1}, "sum_received": {"bytes": "many"}}}', "something else"),
    ],
)
def test_what_is_no_figure_is_named(text: str, said: str) -> None:
    with pytest.raises(NoFigureError, match=said):
        read_iperf(text)


def test_round_trips_are_read_and_not_the_sums_below_them() -> None:
    assert read_ping(PING) == [0.045, 12.0]
    assert read_ping("100% packet loss") == []


@pytest.mark.parametrize(("lost", "late", "good"), [(10, 0, True), (11, 0, False), (0, 50, True), (0, 51, False)])
def test_a_rate_is_sustained_while_little_is_lost_and_no_queue_grows(lost: int, late: int, good: bool) -> None:
    assert Transfer(1, 1, packets=1000 - lost - late, sent=1000, lost=lost).sustained is good


class Wire:
    """Carries datagrams of 1,000 bytes at up to `most` Mbit/s; of what is more, less comes in than could."""

    def __init__(self, most: float, sends: float = 1000.0) -> None:
        self.most, self.sends = most, sends
        self.tried: list[float] = []

    def attempt(self, rate: float) -> Transfer:
        self.tried.append(rate)
        sent = rate or self.sends
        got = sent if sent <= self.most else self.most * 0.4
        packets = round(got * 125)
        return Transfer(packets * 1000, 1.0, packets, round(sent * 125), round((sent - got) * 125))


@pytest.mark.parametrize("most", [3.0, 40.0, 390.0, 999.0])
def test_the_highest_rate_is_found_though_an_overloaded_end_takes_in_less(most: float) -> None:
    wire = Wire(most)
    best = highest_rate(wire.attempt, 8)
    assert best is not None
    assert most * 0.9 <= best.mbit_s <= most
    assert len(wire.tried) <= 9


def test_where_all_that_is_sent_comes_in_nothing_more_is_tried() -> None:
    wire = Wire(2000.0)
    best = highest_rate(wire.attempt, 8)
    assert best is not None
    assert best.mbit_s == pytest.approx(1000)
    assert wire.tried == [0]


def test_where_every_rate_loses_some_there_is_no_figure_and_an_end() -> None:
    def attempt(rate: float) -> Transfer:
        return Transfer(1000, 1.0, 1, 1000, 999)

    assert highest_rate(attempt, 6) is None


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.95, 95), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_one_of_the_values(share: float, value: int) -> None:
    assert percentile(range(1, 101), share) == value
    assert percentile([7.0], share) == 7.0


def rows(**rates: list[float]) -> dict[str, Any]:
    return {
        name: {"hops": {str(hops): {"tcp1_mbit_s": [rate] * 3} for hops, rate in enumerate(found, 1)}}
        for name, found in rates.items()
    }


MARKS = [Mark("one hop, of alone", "ours", 1, "alone", 1, 0.9), Mark("three hops, of one", "ours", 3, "ours", 1, 0.6)]


def test_marks_are_ratios_of_medians_in_one_run() -> None:
    measured = rows(alone=[1000], ours=[950, 700, 500])
    measured["ours"]["hops"]["1"]["tcp1_mbit_s"] = [10, 950, 2000]
    near, far = judge(MARKS, measured, {})
    assert near.ratio == pytest.approx(0.95)
    assert near.reached
    assert far.ratio == pytest.approx(500 / 950)
    assert not far.reached


def test_a_mark_whose_row_was_not_measured_says_why_and_has_no_figure() -> None:
    near, far = judge(MARKS, rows(alone=[1000]), {"ours": "not built"})
    assert (near.ratio, near.why) == (None, "ours: not built")
    assert not near.reached
    assert not far.reached
    (missing, _) = judge(MARKS, rows(ours=[1, 1, 1]), {"alone": "no package"})
    assert missing.why == "alone: no package"


def test_processor_time_of_the_machine_has_the_kernels_part_and_no_idle_time() -> None:
    stat = "cpu  10 20 30 4000 50 6 7 800 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert processor_time.busy_ticks(stat) == 10 + 20 + 30 + 6 + 7
    assert processor_time.process_ticks("5 (a ) program) S 1 5 5 0 -1 0 0 0 0 0 11 22 99 99 20 0") == 33


def test_what_is_used_when_nothing_is_sent_does_not_count() -> None:
    idle = processor_time.between(Reading(0, 1, {"a": 1}), Reading(10, 2, {"a": 1.5}))
    busy = processor_time.between(Reading(10, 2, {"a": 1.5}), Reading(15, 9, {"a": 5.5, "b": 1}))
    assert busy.less(idle) == Used(5, 6.5, {"a": 3.75, "b": 1})


def test_the_tables_show_medians_and_say_what_was_not_measured() -> None:
    measured = rows(alone=[1000, 700, 400], ours=[950.4])
    results = {
        "rows": measured,
        "absent": {"nebula": "no package"},
        "marks": [
            {
                "what": "w",
                "row": "ours",
                "hops": 1,
                "of_row": "alone",
                "of_hops": 1,
                "least": 0.9,
                "ratio": 0.95,
                "why": "",
            },
            {
                "what": "w",
                "row": "x",
                "hops": 1,
                "of_row": "y",
                "of_hops": 1,
                "least": 5,
                "ratio": None,
                "why": "x: not built",
            },
        ],
    }
    text = throughput_report.tcp(results)
    assert "| alone | 1,000 | 700 | 400 |" in text
    assert "| ours | 950 | – | – |" in text
    assert "\n\nNot measured: nebula (no package).\n\n" in text
    said = throughput_report.marks(results)
    assert "| ours: w | 0.9 | 0.95 | yes |" in said
    assert "| x: w | 5.0 | – | not measured: x: not built |" in said
    assert throughput_report.udp(results).count("–") == 12
    assert throughput_report.bars(results)["alone"] == [1000, 700, 400]
    assert figure(measured, "ours", 2, "tcp1_mbit_s") is None
    assert not math.isnan(figure(measured, "ours", 1, "tcp1_mbit_s") or 0)


def test_every_mark_is_about_rows_that_there_are() -> None:
    names = [carrier.name for carrier in CARRIERS]
    assert len(names) == len(set(names))
    for mark in marks():
        assert {mark.row, mark.of_row} <= set(names)
        assert {mark.hops, mark.of_hops} <= {1, 2, 3}


def test_rows_of_ours_are_told_from_others_by_their_name() -> None:
    """The plot goes by it."""
    assert {carrier.name.startswith("re6st") for carrier in CARRIERS if isinstance(carrier, Ours)} == {True}
    assert {carrier.name.startswith("re6st") for carrier in CARRIERS if not isinstance(carrier, Ours)} == {False}
