"""The requester's service with real nodes: jobs are checked, and a broken verifier fails one job only."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import InvalidJob, JobFailed
from bacalhau_p2p.node import registry
from bacalhau_p2p.testing.network import open_network
from bacalhau_p2p.verifiers.noop import NoopVerifier

NOOP = {"Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hello\n"}}}]}


class BrokenVerifier(NoopVerifier):
    async def verify(self, spec, proposals):
        await trio.lowlevel.checkpoint()
        raise KeyError("Confidence")


async def test_a_verifier_that_raises_anything_fails_its_job_and_the_node_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.VERIFIERS, "broken", lambda context: BrokenVerifier())
    async with open_network(tmp_path, compute_nodes=1) as net:
        job = await net.requester.submit({**NOOP, "Verifier": {"Type": "broken"}})
        with pytest.raises(JobFailed, match="KeyError in this node's broken verifier: 'Confidence'"):
            await job.wait_result(30)
        assert (await (await net.requester.submit(NOOP)).wait_result(30)).stdout == b"hello\n"


async def test_an_input_that_no_node_can_read_is_refused_at_submission(tmp_path):
    url = "data:application/gzip;base64,bm90IGFuIGFyY2hpdmU="
    source = {"Target": "/inputs", "Source": {"Type": "inline", "Params": {"URL": url}}}
    task = {**NOOP["Tasks"][0], "InputSources": [source]}
    async with open_network(tmp_path, compute_nodes=0) as net:
        with pytest.raises(InvalidJob) as refused:
            await net.requester.submit({"Tasks": [task]})
    assert [fault.path for fault in refused.value.faults] == ["Tasks[0].InputSources[0].Source.Params.URL"]
