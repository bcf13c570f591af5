"""The metrics of real nodes move when a job runs, and are the documented ones: `metrics.collector`,
`metrics.families`."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly_read
from prometheus_client.parser import text_string_to_metric_families

from bacalhau_p2p.metrics.node_metrics import NodeMetrics
from bacalhau_p2p.testing.network import open_network

DOCS = Path(__file__).parents[2] / "docs"
JOB = {"Count": 2, "Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hello"}}}]}


def samples(metrics: NodeMetrics) -> dict[str, float]:
    """Each sample, as Prometheus writes its name and labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return {name.removeprefix("bacalhau_p2p_"): value for name, value in found.items()}


async def test_a_job_moves_the_metrics_of_its_requester_and_of_its_compute_nodes(tmp_path):
    async with open_network(tmp_path, compute_nodes=2) as network:
        requester, compute = (
            NodeMetrics(n, {"api_faults": 3}) for n in (network.requester, network.compute[0])
        )
        job = await network.requester.submit(JOB)
        await job.wait_result()
        moved = samples(requester)
        assert moved["jobs_submitted_total"] == 1
        assert moved['jobs_ended_total{state="Completed"}'] == 1
        assert moved["job_queue_seconds_count"] == 1
        assert moved['job_duration_seconds_count{state="Completed"}'] == 1
        assert moved["bids_accepted_total"] == 2
        assert moved['executions_ended_total{state="Completed"}'] == 2
        assert moved['messages_total{direction="received",kind="bid"}'] >= 2
        assert moved['messages_total{direction="sent",kind="job_announced"}'] >= 1
        assert moved['network_bytes_total{direction="sent"}'] > 0
        assert moved['network_bytes_total{direction="received"}'] > 0
        assert moved["connected_peers"] == 2
        assert moved['known_nodes{fresh="true"}'] == 3
        assert moved['faults_total{kind="api_faults"}'] == 3
        assert "capacity_limit" not in {name.partition("{")[0] for name in moved}
        ran = samples(compute)
        assert ran['compute_executions_ended_total{state="Completed"}'] == 1
        assert ran['compute_phase_seconds_count{state="Running"}'] == 1
        assert ran['capacity_available{resource="cpu"}'] == ran['capacity_limit{resource="cpu"}'] > 0
        assert ran["content_bytes"] > 0


async def test_jobs_and_executions_that_have_not_ended_are_shown_by_state(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as network:
        requester, compute = (NodeMetrics(node, {}) for node in (network.requester, network.compute[0]))
        await network.requester.submit(JOB)  # for two nodes, and there is one
        shown = samples(requester)
        assert sum(v for name, v in shown.items() if name.startswith("jobs{")) == 1
        assert samples(compute)['ignored_events_total{component="compute"}'] >= 0


async def test_slow_passes_of_the_event_loop_are_measured(tmp_path):
    async with open_network(tmp_path, compute_nodes=0) as network:
        metrics = NodeMetrics(network.requester, {})
        network.requester.report_slow_pass(0.2)
        assert samples(metrics)['event_loop_pass_seconds_bucket{le="0.1"}'] == 0
        assert samples(metrics)['event_loop_pass_seconds_bucket{le="0.25"}'] == 1


def families(metrics: NodeMetrics) -> dict[str, str]:
    """The type of each metric by the name that users write."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        if family.name.startswith("bacalhau_p2p_"):
            found[family.name + ("_total" if family.type == "counter" else "")] = family.type
    return found


async def test_every_metric_is_documented_and_every_documented_one_exists(tmp_path):
    async with open_network(tmp_path, compute_nodes=1, content_quota="1GB") as network:
        exposed = {}
        for node in (network.requester, network.compute[0]):
            exposed |= families(NodeMetrics(node, {}))
    page = (DOCS / "metrics.md").read_text()
    documented = dict(re.findall(r"^\| `(bacalhau_p2p_\w+)` \| (\w+) \|", page, re.MULTILINE))
    assert documented == exposed


STILL = {
    "bacalhau_p2p_cut_off_peers": "nobody exceeds a budget",
    "bacalhau_p2p_dropped_events_total": "nothing raises",
    "bacalhau_p2p_event_loop_pass_seconds": "moves in a test above",
    "bacalhau_p2p_faults_total": "moves in a test above",
    "bacalhau_p2p_ignored_events_total": "moves only by chance",
    "bacalhau_p2p_messages_in_flight": "most of the time all are acknowledged",
}
"""Metrics that a job which runs well need not move."""


async def test_a_job_moves_every_metric(tmp_path):
    async with open_network(tmp_path, compute_nodes=2, content_quota="1GB") as network:
        everybody = [NodeMetrics(node, {}) for node in (network.requester, *network.compute)]
        await (await network.requester.submit(JOB)).wait_result()
        waits = await network.requester.submit({**JOB, "Count": 3})  # there is no third node
        async for event in waits.events():
            if event.kind == "Proposed":
                break
        moved = {
            family.name + ("_total" if family.type == "counter" else "")
            for metrics in everybody
            for family in text_string_to_metric_families(metrics.text().decode())
            if any(sample.value > 0 for sample in family.samples)
        }
    page = (DOCS / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(bacalhau_p2p_\w+)` \|", page, re.MULTILINE))
    assert documented - moved <= set(STILL)


async def test_a_strict_parser_reads_all_metrics(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as network:
        for node in (network.requester, network.compute[0]):
            metrics = NodeMetrics(node, {"api_faults": 3})
            await (await network.requester.submit({"Tasks": JOB["Tasks"]})).wait_result()
            strict = list(strictly_read(generate_latest(metrics.registry).decode()))
            assert {family.name for family in strict} == {
                family.name for family in text_string_to_metric_families(metrics.text().decode())
            }
            assert [family.name for family in strict if not family.documentation] == []


def test_the_dashboard_uses_only_documented_metrics():
    documented = set(re.findall(r"`(bacalhau_p2p_\w+)`", (DOCS / "metrics.md").read_text()))
    used = set(re.findall(r"bacalhau_p2p_\w+", (DOCS / "grafana.json").read_text()))
    assert len(used) > 15
    assert {name.removesuffix("_bucket") for name in used} <= documented
