"""The metrics of both daemons: names by the book, values, and what Prometheus makes of the page."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from re6st.core.routing.babel_lines import Table
from re6st.core.telemetry.metrics import BUCKETS, NODE, PEERS_LIMIT, REGISTRY, Durations, Family, MetricsPage
from re6st.core.telemetry.node_metrics import Counts, node_page
from re6st.service.exposition import exposition
from tests.unit.core.telemetry.test_report import LINES
from tests.unit.view.test_status_text import NOW, STATUS, TUNNELS, UPLINKS

ROOT = Path(__file__).parents[4]
ALL = {**NODE, **REGISTRY}
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(page: MetricsPage) -> Values:
    """The samples by name and labels, as a Prometheus reads them; without those of the process."""
    text = exposition()(page).decode()
    families = [each for each in text_string_to_metric_families(text) if not each.name.startswith("process_")]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for each in families for s in each.samples}


def value(values: Values, name: str, **labels: str) -> float:
    return values[name, tuple(sorted(labels.items()))]


@pytest.mark.parametrize(("name", "family"), ALL.items())
def test_names_follow_the_conventions(name: str, family: Family) -> None:
    assert re.fullmatch(r"re6st_[a-z0-9_]+", name)
    assert name.startswith("re6st_registry_") or name in NODE
    assert name.endswith("_total") == (family.kind == "counter")
    assert family.kind != "histogram" or name.endswith("_seconds")
    assert not re.search(r"_(ms|milliseconds|kilobytes|minutes)\b", name)
    assert family.help.endswith(".")
    assert not {"le", "quantile"} & {*family.labels}


def page(status: Mapping[str, Any] = STATUS, **counts: Any) -> Values:
    table = Table()
    for line in LINES.splitlines():
        table.feed(line)
    link = {"peer": "4/16", "cost": 130, "rtt_ms": 18.5}
    neighbours = [link, {**link, "cost": 96, "rtt_ms": None}, {**link, "peer": None}, {**link, "peer": "5/16"}]
    servers = [{"protocol": "tcp", "listening": False, "restarts": 2}]
    full = {**status, "servers": servers}
    return parsed(node_page(full, TUNNELS, neighbours, table, Counts(**{"happened": Counter(), **counts}), NOW))


def test_a_node_in_figures() -> None:
    durations = Durations()
    for seconds in (0.005, 0.02, 0.02, 99.0):
        durations.add(seconds)
    values = page(
        happened=Counter({"tunnel-up": 3, "tunnel-lost": 2, "babel-ended": 1}),
        messages=Counter({("sent", "version"): 5}),
        dropped=7,
        calls={("renewCertificate", "ok"): durations},
        registry_reachable=False,
        parameters_since=NOW - 5,
        mapped={"tcp": True},
    )
    assert value(values, "re6st_build_info", version="1.0", protocol="11") == 1
    assert value(values, "re6st_start_time_seconds") == NOW - STATUS["uptime_seconds"]
    assert value(values, "re6st_health_problems", severity="warning") == 1
    assert value(values, "re6st_health_problems", severity="failed") == 0
    assert value(values, "re6st_connected") == 1
    assert value(values, "re6st_tunnels", direction="in", state="draining") == 1
    assert value(values, "re6st_tunnels", direction="out", state="up") == 1
    assert value(values, "re6st_tunnels_wanted") == 10
    assert value(values, "re6st_tunnel_opened_total", direction="out", result="up") == 3
    assert value(values, "re6st_tunnel_closed_total", direction="out", reason="lost") == 2
    assert value(values, "re6st_tunnel_received_bytes_total", peer="77/16", direction="in") == 40 << 20
    assert value(values, "re6st_neighbour_cost", peer="4/16") == 96, "the best link"
    assert value(values, "re6st_neighbour_rtt_seconds", peer="5/16") == 0.0185
    assert value(values, "re6st_routes", state="installed") == 2
    assert value(values, "re6st_routes", state="feasible") == 1
    assert value(values, "re6st_routes", state="unreachable") == 1
    assert value(values, "re6st_child_up", program="babeld") == 1
    assert value(values, "re6st_child_up", program="openvpn-tcp") == 0
    assert value(values, "re6st_child_restarts_total", program="babeld") == 1
    assert value(values, "re6st_child_restarts_total", program="openvpn-tcp") == 2
    assert value(values, "re6st_packets_dropped_total", reason="own_source") == 0
    assert value(values, "re6st_packet_filter_active") == 1
    assert value(values, "re6st_registry_reachable") == 0
    name = "re6st_registry_request_duration_seconds"
    labels = {"method": "renewCertificate", "result": "ok"}
    assert [value(values, f"{name}_bucket", le=le, **labels) for le in ("0.01", "0.03", "30.0", "+Inf")] == [1, 3, 3, 4]
    assert value(values, f"{name}_count", **labels) == 4
    assert value(values, f"{name}_sum", **labels) == pytest.approx(99.045)
    assert value(values, "re6st_certificate_renewals_total", result="ok") == 4
    assert value(values, "re6st_messages_total", direction="sent", type="version") == 5
    assert value(values, "re6st_messages_dropped_total") == 7
    assert value(values, "re6st_parameters_updated_timestamp_seconds") == NOW - 5
    assert value(values, "re6st_port_mapping_up", method="upnp", proto="tcp") == 1


def test_lines_to_the_internet_in_figures() -> None:
    values = page({**STATUS, "uplinks": UPLINKS})
    assert value(values, "re6st_uplink_up", uplink="fibre") == 1
    assert value(values, "re6st_uplink_up", uplink="lte") == 0
    assert value(values, "re6st_uplink_tunnels", uplink="fibre") == 3
    assert value(values, "re6st_uplink_received_bytes_total", uplink="fibre") == 40 << 20
    assert ("re6st_uplink_sent_bytes_total", (("uplink", "lte"),)) not in values
    assert not [name for name, _ in page() if name.startswith("re6st_uplink")], "with one line there is nothing to say"


def test_what_is_not_known_is_left_out() -> None:
    names = {name for name, _ in page()}
    assert not names & {
        "re6st_registry_reachable",
        "re6st_port_mapping_up",
        "re6st_parameters_updated_timestamp_seconds",
    }


def test_series_are_bounded() -> None:
    many = [{**TUNNELS[0], "peer": f"{n}/16"} for n in range(PEERS_LIMIT + 50)]
    near = [{"peer": f"{n}/16", "cost": 96, "rtt_ms": 1.0} for n in range(PEERS_LIMIT + 50)]
    values = parsed(node_page({**STATUS, "servers": []}, many, near, Table(), Counts(Counter()), NOW))
    for name in ("re6st_tunnel_sent_bytes_total", "re6st_neighbour_cost"):
        assert sum(each == name for each, _ in values) == PEERS_LIMIT


def test_a_page_takes_only_what_it_has() -> None:
    page = MetricsPage(NODE)
    with pytest.raises(KeyError):
        page.add("re6st_unknown", 1)
    with pytest.raises(ValueError, match="labels"):
        page.add("re6st_connected", 1, "x")


def test_the_longest_bucket_is_as_long_as_a_call_may_take() -> None:
    assert list(BUCKETS) == sorted(BUCKETS)


# --- what is shipped for Prometheus and Grafana ---

NAME = re.compile(r"\bre6st_[a-z0-9_]+")
SUFFIXES = re.compile(r"_(bucket|count|sum)$")


def used(expressions: list[str]) -> set[str]:
    return {name for text in expressions for name in NAME.findall(text)}


def unknown(names: set[str]) -> set[str]:
    return {each for each in names if each not in ALL and ALL.get(SUFFIXES.sub("", each), NODE["re6st_connected"]).kind
            != "histogram"}  # fmt: skip


def test_alerts_are_of_metrics_that_exist() -> None:
    rules = yaml.safe_load((ROOT / "daemon/prometheus/alerts.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) >= 6
    for alert in alerts:
        assert used([alert["expr"]]), alert["alert"]
        assert not unknown(used([alert["expr"]]))
        assert {"summary", "description"} == alert["annotations"].keys()
        assert alert["labels"]["severity"] in ("warning", "critical")
    assert len({alert["alert"] for alert in alerts}) == len(alerts)


def test_the_board_is_of_metrics_that_exist() -> None:
    board = json.loads((ROOT / "daemon/grafana/re6st.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert not unknown(used(expressions))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["datasource"]["uid"] == "${datasource}"


def test_every_metric_is_in_the_manual() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    assert not {name for name in ALL if f"`{name}`" not in text}
    assert not unknown(used([text]))
