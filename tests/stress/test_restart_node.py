"""A node always comes back: a run of restart_node.py, of a minute, or of RE6ST_STRESS_SECONDS."""

from __future__ import annotations

import os
import random

import pytest

from testbed import Bed, missing
from tests.stress.restart_node import ACTS
from tests.stress.restart_trial import Trial

SECONDS = float(os.environ.get("RE6ST_STRESS_SECONDS") or 60)


@pytest.mark.network
@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
def test_a_node_comes_back_whatever_ends_it_and_whatever_it_finds() -> None:
    seed = int(os.environ.get("RE6ST_STRESS_SEED") or random.randrange(1 << 32))
    print(f"seed {seed}")
    with Bed() as bed:
        report = Trial(bed, seed, ACTS).run(SECONDS)
        print(report.text())
        assert report.problems == [], bed.tails(40)
    assert report.back
