"""The suite for verifiers passes those of this package, and fails broken ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.job import JobSpec, SpecConfig, Task
from bacalhau_p2p.testing.verifiers import VERIFIER_CHECKS, VerifierKit
from bacalhau_p2p.verifiers.deterministic import DeterministicVerifier
from bacalhau_p2p.verifiers.interface import Verdict, Verifier
from bacalhau_p2p.verifiers.noop import NoopVerifier
from tests.support.results import result_cid


def job(**params: int) -> JobSpec:
    return JobSpec(
        count=3,
        verifier=SpecConfig(type="deterministic", params=params),
        tasks=(Task(engine=SpecConfig(type="noop")),),
    )


def proposals(*results: str) -> list[Proposal]:
    return [
        Proposal(
            job_id=JobID("j"),
            execution_id=ExecutionID(f"e-{number}"),
            node_id=PeerID(f"node-{number}"),
            result_cid=result_cid(result),
        )
        for number, result in enumerate(results)
    ]


def kit(verifier: Verifier, *, bad: Sequence[Proposal] | None = None) -> VerifierKit:
    return VerifierKit(
        verifier=verifier,
        valid=job(),
        invalid=[(job(Confidence=9), "Verifier.Params.Confidence")]
        if isinstance(verifier, DeterministicVerifier)
        else [],
        good=proposals("a", "a", "a"),
        bad=proposals("a", "a", "b") if bad is None else bad,
    )


@pytest.mark.parametrize("check", VERIFIER_CHECKS, ids=lambda check: check.__name__)
async def test_the_verifiers_of_this_package_conform(check):
    await check(kit(DeterministicVerifier()))
    await check(kit(NoopVerifier(), bad=[]))


class Broken(NoopVerifier):
    """Refuses every job, and both accepts and rejects the last proposal, without a reason."""

    @property
    def type(self) -> str:
        return "Broken"

    def faults(self, spec: JobSpec) -> list[Fault]:
        return [Fault("Verifier", "is broken")]

    async def verify(self, spec: JobSpec, proposals: Sequence[Proposal]) -> Verdict:
        ids = [proposal.execution_id for proposal in proposals]
        return Verdict(accepted=frozenset(ids[1:]), rejected=frozenset(ids[-1:]))


@pytest.mark.parametrize("check", VERIFIER_CHECKS, ids=lambda check: check.__name__)
async def test_a_broken_verifier_fails_every_check(check):
    broken = VerifierKit(
        verifier=Broken(),
        valid=job(),
        invalid=[(job(), "Verifier.Params.Confidence")],
        good=proposals("a", "a", "a"),
        bad=proposals("a", "a", "b"),
    )
    with pytest.raises(AssertionError):
        await check(broken)
