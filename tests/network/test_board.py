"""The board for Grafana and the alert rules, before a real Prometheus that scrapes a real network."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from testbed import Bed, Host, Network, wait_until
from testbed.network import ROOT

FORMS = 90
SCRAPED = 60
"""Seconds; usual: 5, as an increase takes two scrapes."""
INTERVAL = 1

CONFIGURATION = """
global: {{scrape_interval: {interval}s, evaluation_interval: {interval}s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: re6st
    static_configs: [{{targets: {targets}}}]
"""


class Prometheus:
    """The server on a host of the bed. It ends with the bed."""

    def __init__(self, host: Host, targets: list[str]) -> None:
        self._host = host
        program = shutil.which("prometheus", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if not program:
            pytest.skip("no prometheus")
        configuration = host.directory / "prometheus.yml"
        rules = ROOT / "daemon/prometheus/alerts.yml"
        configuration.write_text(CONFIGURATION.format(interval=INTERVAL, rules=rules, targets=json.dumps(targets)))
        host.start(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={host.directory / 'prometheus'}",
                "--web.listen-address=127.0.0.1:9090",
            ],
            "prometheus.out.log",
        )

    def ask(self, path: str) -> Any:
        """What it answers to a call of its API; empty while it does not yet. A wrong expression fails the test."""

        def fetch() -> bytes:
            with closing(http.client.HTTPConnection("127.0.0.1", 9090, timeout=10)) as connection:
                connection.connect()
                connection.request("GET", f"/api/v1/{path}")
                return connection.getresponse().read()

        try:
            answer = json.loads(self._host.namespace.call(fetch))
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        assert answer["status"] == "success", f"{path}: {answer}"
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """The series of an expression now."""
        return list(self.ask(f"query?query={quote(expression)}").get("result", []))


def expressions() -> dict[str, str]:
    """What the board asks for, by the titles of its panels, with the values of its variables."""
    board = json.loads((ROOT / "daemon/grafana/re6st.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$instance", ".*")
        .replace("$__rate_interval", f"{4 * INTERVAL}s")
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }


def test_the_board_shows_a_network_and_no_alert_is_raised_in_peace(bed: Bed) -> None:
    network = Network(bed, 3)
    targets = [f"{network.registry_host.address}:9327"]
    network.registry_options += ["--metrics", targets[0]]
    for node in network.nodes:
        targets.append(f"{node.host.address}:9326")
        node.options += ["--metrics", targets[-1]]
    network.start()
    prometheus = Prometheus(network.registry_host, targets)
    network.wait_connected(FORMS)

    def waited(what: str, expression: str) -> list[Any]:
        return wait_until(partial(prometheus.query, expression), SCRAPED, f"data for {what}: {expression}", bed.tails)

    asked = expressions()
    names = {name for text in asked.values() for name in re.findall(r"\b(?:re6st|process)_[a-z0-9_]+", text)}
    for name in sorted(names):
        waited("a metric", name)
    for title, expression in asked.items():
        waited(title, expression)
    assert prometheus.query("count(re6st_build_info)")[0]["value"][1] == "3"

    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert prometheus.ask("alerts")["alerts"] == []
