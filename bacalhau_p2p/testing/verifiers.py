"""Conformance suite for verifiers: what every one must do, however it compares results.

    @pytest.mark.parametrize("check", VERIFIER_CHECKS, ids=lambda check: check.__name__)
    async def test_verifier_conforms(check):
        await check(VerifierKit(verifier=MyVerifier(), valid=..., invalid=[...], good=[...], bad=[...]))

A check passes by returning, and fails by raising AssertionError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.testing.purity import no_io
from bacalhau_p2p.verifiers.interface import Verdict, Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKit:
    """What the checks need of a test.

    `valid` is a job for this verifier; `invalid` are jobs that it must refuse, each with the path of the
    fault. `good` are proposals for the valid job that it must accept, all of them; `bad` are some of which it
    must reject at least one, or none for a verifier that accepts everything.
    """

    verifier: Verifier
    valid: JobSpec
    invalid: Sequence[tuple[JobSpec, str]]
    good: Sequence[Proposal]
    bad: Sequence[Proposal]
    patience: float = 30

    def faults(self, spec: JobSpec) -> list[Fault]:
        with no_io():
            return self.verifier.faults(spec)

    async def verify(self, proposals: Sequence[Proposal]) -> Verdict:
        with trio.fail_after(self.patience):
            return await self.verifier.verify(self.valid, proposals)


async def check_type_is_lower_case(kit: VerifierKit) -> None:
    assert kit.verifier.type == kit.verifier.type.lower() != ""


async def check_a_valid_job_has_no_faults(kit: VerifierKit) -> None:
    assert kit.faults(kit.valid) == []


async def check_faults_are_named_by_path(kit: VerifierKit) -> None:
    for spec, path in kit.invalid:
        assert path in [fault.path for fault in kit.faults(spec)], f"no fault at {path}: {spec.verifier}"


async def check_good_proposals_are_accepted(kit: VerifierKit) -> None:
    verdict = await kit.verify(kit.good)
    assert verdict.accepted == {proposal.execution_id for proposal in kit.good}, verdict.reason


async def check_a_rejection_has_a_reason(kit: VerifierKit) -> None:
    if kit.bad:
        verdict = await kit.verify(kit.bad)
        assert verdict.rejected, "accepted, but must be rejected"
        assert verdict.reason


async def check_every_proposal_is_either_accepted_or_rejected(kit: VerifierKit) -> None:
    for proposals in (kit.good, kit.bad, [], kit.good[:1]):
        verdict = await kit.verify(proposals)
        assert verdict.accepted | verdict.rejected == {each.execution_id for each in proposals}
        assert not verdict.accepted & verdict.rejected


async def check_the_order_of_proposals_does_not_matter(kit: VerifierKit) -> None:
    for proposals in (kit.good, kit.bad):
        assert await kit.verify(proposals) == await kit.verify(list(reversed(proposals)))


VERIFIER_CHECKS: Sequence[Callable[[VerifierKit], Awaitable[None]]] = (
    check_type_is_lower_case,
    check_a_valid_job_has_no_faults,
    check_faults_are_named_by_path,
    check_good_proposals_are_accepted,
    check_a_rejection_has_a_reason,
    check_every_proposal_is_either_accepted_or_rejected,
    check_the_order_of_proposals_does_not_matter,
)
"""Every check, in the order in which they are best read."""
