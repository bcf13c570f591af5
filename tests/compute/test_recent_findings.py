"""What inspections found, and how long it is used again: `recent_findings`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.recent_findings import MAX_JOBS, VALID_FOR, RecentFindings
from bacalhau_p2p.model.base import JobID, PeerID
from tests.support.machines.compute_bench import small_job

ALICE, BOB, JOB = PeerID("alice"), PeerID("bob"), JobID("j-1")
SPEC, FOUND = small_job(), Findings(input_bytes=10, disk=10)


@pytest.fixture
def recent() -> RecentFindings:
    recent = RecentFindings()
    recent.remember(ALICE, JOB, SPEC, FOUND, 0.0)
    return recent


def test_findings_are_used_again_for_a_while(recent):
    assert recent.recall(ALICE, JOB, SPEC, VALID_FOR - 0.1) == FOUND
    assert recent.recall(ALICE, JOB, SPEC, VALID_FOR) is None


def test_findings_hold_only_for_the_very_job_that_was_inspected(recent):
    assert recent.recall(BOB, JOB, SPEC, 1.0) is None
    assert recent.recall(ALICE, JobID("j-2"), SPEC, 1.0) is None
    assert recent.recall(ALICE, JOB, small_job(cpu="0.7"), 1.0) is None


@pytest.mark.parametrize("found", [Findings(refusal="not local"), Findings(shortage="no disk")])
def test_what_led_to_no_bid_is_found_out_anew(recent, found):
    recent.remember(ALICE, JOB, SPEC, found, 1.0)
    assert recent.recall(ALICE, JOB, SPEC, 2.0) is None


def test_findings_of_a_closed_job_are_forgotten(recent):
    recent.forget(ALICE, JOB)
    recent.forget(ALICE, JOB)
    assert recent.recall(ALICE, JOB, SPEC, 1.0) is None


def test_findings_are_remembered_for_a_limited_number_of_jobs(recent):
    for number in range(MAX_JOBS):
        recent.remember(ALICE, JobID(f"x-{number}"), SPEC, FOUND, 1.0)
    assert recent.recall(ALICE, JOB, SPEC, 1.0) is None
    assert recent.recall(ALICE, JobID("x-0"), SPEC, 1.0) == FOUND
