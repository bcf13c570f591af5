from __future__ import annotations

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.job import JobSpec, SpecConfig, Task
from bacalhau_p2p.verifiers.interface import Verdict
from bacalhau_p2p.verifiers.noop import NoopVerifier
from tests.support.results import result_cid


async def test_every_proposal_is_accepted() -> None:
    spec = JobSpec(tasks=(Task(engine=SpecConfig(type="noop")),))
    proposals = [
        Proposal(
            job_id=JobID("j"), execution_id=ExecutionID(e), node_id=PeerID("n" + e), result_cid=result_cid(e)
        )
        for e in ("a", "b")
    ]
    verifier = NoopVerifier()
    assert verifier.faults(spec) == []
    assert await verifier.verify(spec, proposals) == Verdict(
        accepted=frozenset({ExecutionID("a"), ExecutionID("b")}), rejected=frozenset()
    )
