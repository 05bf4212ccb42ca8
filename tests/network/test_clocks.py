"""The registry's clock is ahead of everybody's: nodes enrol and join all the same, or wait, and go on by themselves."""

from __future__ import annotations

import sys

import pytest

from testbed import Bed, Network, wait_until

AHEAD = """
import sys, time
right = time.time
time.time = lambda: right() + {seconds}
from re6st.cli.registry.main import main
sys.exit(main())
"""
HOUR = 3600
"""For so long before its issue a certificate is valid."""
FORMS = 90


def with_clock_ahead(bed: Bed, seconds: float) -> Network:
    network = Network(bed, 2, registry_options=["--hello", "2"])
    network.registry_program = [sys.executable, "-c", AHEAD.format(seconds=seconds)]
    network.start()
    return network


@pytest.mark.parametrize("seconds", [60, 600])
def test_a_clock_that_is_minutes_late_keeps_nobody_out(bed: Bed, seconds: int) -> None:
    with_clock_ahead(bed, seconds).wait_connected(FORMS)


def test_who_is_too_early_for_its_certificate_waits_and_goes_on(bed: Bed) -> None:
    network = with_clock_ahead(bed, HOUR + 20)
    logs = [node.host.log / "re6stnet.log" for node in network.nodes]
    wait_until(
        lambda: all("valid from" in log.read_text() for log in logs if log.exists()), 60, "both say what they wait for"
    )
    network.wait_connected(FORMS)
