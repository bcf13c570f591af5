"""Makes the metrics of a node: their names, units and labels in one place each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

PREFIX = "bacalhau_p2p_"
"""Of every metric's name."""
DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Upper bounds in seconds of the buckets of durations of jobs and runs."""

Values = Mapping[tuple[str, ...], float]
"""By the values of the labels, in their order."""


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A value that goes up and down, without labels."""
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def gauges(name: str, text: str, labels: Iterable[str], values: Values) -> GaugeMetricFamily:
    """One value for each combination of labels."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=tuple(labels))
    for label_values, value in sorted(values.items()):
        family.add_metric(label_values, value)
    return family


def counters(name: str, text: str, labels: Iterable[str], values: Values) -> CounterMetricFamily:
    """One number that only grows, for each combination of labels. `name` is without `_total`."""
    family = CounterMetricFamily(PREFIX + name, text, labels=tuple(labels))
    for label_values, value in sorted(values.items()):
        family.add_metric(label_values, value)
    return family
