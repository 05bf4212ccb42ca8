"""A network takes what comes: faults at random, from a seed; at length by `./run bench scale`."""

from __future__ import annotations

from collections.abc import Callable

from testbed import Bed, Network
from testbed.chaos import Chaos
from testbed.watch import Watch

FORMS = 90
SEED = 45
"""It gives nine faults or more of six kinds, however long a restart takes."""
SECONDS, CALM = 20.0, 10.0
LONGEST = 30.0
"""Seconds for which a pair that could talk must not be silent: ten times what is usual."""


def test_whoever_could_talk_does_so_again_soon(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    network = Network(bed, 5)
    network.start()
    network.wait_connected(FORMS)
    chaos = Chaos(network, SEED, every=2.0)
    chaos.said = print
    watch = Watch(network.nodes, pace=0.25)
    with watch.running():
        report = chaos.run(watch, SECONDS, CALM)
    record_property("chaos", f"{report.faults} {report.longest}")
    print(report.longest)
    assert sum(report.faults.values()) >= 5
    assert not report.failures
    assert max(report.longest.values(), default=0.0) < LONGEST, report.longest
    network.wait_connected(FORMS)
    for node in network.nodes:
        assert "Traceback" not in (node.host.log / "re6stnet.log").read_text(), node.name
