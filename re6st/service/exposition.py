"""Writes metrics for Prometheus. Its library is loaded for the first page, so only in a daemon that is asked for
metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from re6st.core.telemetry.metrics import BUCKETS, Durations, Family, MetricsPage, Sample

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition() -> Callable[[MetricsPage], bytes]:
    """Returns a function that writes pages; it adds the usual figures about this process (process_*)."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.registry import Collector

    class Once(Collector):
        """Gives the library the metrics in the form that it expects."""

        def __init__(self, page: MetricsPage) -> None:
            self._page = page

        def collect(self) -> Iterator[Metric]:
            for name, family, samples in self._page.families():
                yield _metric(name, family, samples)

    def write(page: MetricsPage) -> bytes:
        registry = CollectorRegistry()
        registry.register(Once(page))
        ProcessCollector(registry=registry)
        return generate_latest(registry)

    return write


def _metric(name: str, family: Family, samples: list[Sample]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        for sample in samples:
            if isinstance(sample.value, Durations):
                bounds = [*map(str, BUCKETS), "+Inf"]
                counted = list(zip(bounds, accumulate(sample.value.counts), strict=True))
                histogram.add_metric(sample.labels, counted, sample.value.total)
        return histogram
    known = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric: CounterMetricFamily | GaugeMetricFamily = known(name, family.help, labels=family.labels)
    for sample in samples:
        if not isinstance(sample.value, Durations):
            metric.add_metric(sample.labels, float(sample.value))
    return metric
