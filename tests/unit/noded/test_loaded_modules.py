"""What a node loads at its start: a module takes about a millisecond and 50 kB of each node, wanted or not."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = "import sys, re6st.cli.node.main; print(*sys.modules)"
UNWANTED = (
    "re6st.api",
    "re6st.babeld.binary_socket",
    "re6st.cli.conf",
    "re6st.cli.node.check",
    "re6st.cli.registry",
    "re6st.cli.status",
    "re6st.core.routing.babel_binary",
    "re6st.core.telemetry.node_metrics",
    "re6st.core.transport.further_links",
    "re6st.core.transport.link_records",
    "re6st.core.transport.upgrades",
    "re6st.core.transport.wireguard_agreement",
    "re6st.core.transport.wireguard_links",
    "re6st.core.transport.wireguard_state",
    "re6st.core.transport.wireguard_uapi",
    "re6st.core.wire.further_links",
    "re6st.core.wire.wireguard",
    "re6st.keys.wireguard",
    "re6st.linux.wireguard",
    "re6st.linux.wireguard_go",
    "re6st.linux.wireguard_kernel",
    "re6st.migration",
    "re6st.noded.further_links",
    "re6st.noded.lane",
    "re6st.noded.line_places",
    "re6st.noded.link_groups",
    "re6st.noded.link_interfaces",
    "re6st.noded.metrics",
    "re6st.noded.wireguard",
    "re6st.registry",
    "re6st.registryd",
    "re6st.service.exposition",
    "re6st.service.metrics_http",
    "re6st.sim",
    "re6st.transport.wireguard",
    "re6st.web",
)
"""What a node with the options of most nodes has no use for."""


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    return frozenset(done.stdout.split())


@pytest.mark.parametrize("name", UNWANTED)
def test_a_node_does_not_load_what_most_nodes_have_no_use_for(loaded: frozenset[str], name: str) -> None:
    found = {each for each in loaded if each == name or each.startswith(f"{name}.")}
    assert not found, "import it where it is used first"


def test_those_are_modules_that_there_are() -> None:
    words = [sys.executable, "-c", f"import {', '.join(UNWANTED)}"]
    subprocess.run(words, check=True)
