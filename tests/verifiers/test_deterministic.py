from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.errors import VerifierError
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.job import JobSpec, SpecConfig, Task
from bacalhau_p2p.verifiers.deterministic import DeterministicVerifier, judge
from tests.support.results import result_cid

ENTRIES = "Verifier.Params.Entries"


def job(count: int = 3, **params: Any) -> JobSpec:
    return JobSpec(
        count=count,
        verifier=SpecConfig(type="deterministic", params=params),
        tasks=(Task(engine=SpecConfig(type="noop")),),
    )


def proposal(number: int, result: str, node: str = "", entries: dict[str, str] | None = None) -> Proposal:
    return Proposal(
        job_id=JobID("j"),
        execution_id=ExecutionID(f"e-{number}"),
        node_id=PeerID(node or f"node-{number}"),
        result_cid=result_cid(result),
        entries={name: result_cid(content) for name, content in (entries or {}).items()},
    )


def proposals(nodes: int, bad: int) -> list[Proposal]:
    """The first `bad` nodes each return a different result, the others the same."""
    return [proposal(n, f"wrong-{n}" if n < bad else "right") for n in range(nodes)]


@pytest.mark.parametrize(
    ("nodes", "bad", "confidence", "accepted", "rejected"),
    [
        (1, 0, 0, 0, 1),
        (3, 0, 0, 3, 0),
        (3, 1, 0, 2, 1),
        (2, 1, 0, 0, 2),
        (5, 2, 4, 0, 5),
        (5, 2, 3, 3, 2),
        (5, 3, 0, 0, 5),  # the largest group, 2 of 5, is not a majority
        (5, 3, 2, 2, 3),  # but is enough for a confidence of 2
        (1, 0, 1, 1, 0),
        (2, 1, 1, 0, 2),  # each is enough, and either may be right
        (0, 0, 0, 0, 0),
    ],
)
async def test_which_proposals_are_accepted(
    nodes: int, bad: int, confidence: int, accepted: int, rejected: int
) -> None:
    given_ = proposals(nodes, bad)
    verdict = await DeterministicVerifier().verify(job(nodes or 1, Confidence=confidence), given_)
    assert (len(verdict.accepted), len(verdict.rejected)) == (accepted, rejected)
    assert verdict.accepted <= {p.execution_id for p in given_ if p.result_cid == result_cid("right")}
    assert bool(verdict.reason) == (rejected > 0 or nodes == 0)


async def test_groups_of_equal_size_are_all_rejected() -> None:
    given_ = [proposal(n, "right" if n % 2 else "wrong") for n in range(4)]
    verdict = await DeterministicVerifier().verify(job(4, Confidence=2), given_)
    assert verdict.accepted == frozenset()
    assert "2 groups of 2 of 4 nodes" in verdict.reason


def test_two_proposals_of_one_node_count_once() -> None:
    verdict = judge([proposal(1, "a", "mallory"), proposal(2, "a", "mallory")], confidence=2)
    assert verdict.accepted == frozenset()
    assert verdict.rejected == {"e-1", "e-2"}


def test_only_the_chosen_entries_must_be_equal() -> None:
    given_ = [
        proposal(1, "x", entries={"stdout": "s", "stderr": "warning 1", "outputs": "o"}),
        proposal(2, "y", entries={"stdout": "s", "stderr": "warning 2", "outputs": "o"}),
        proposal(3, "z", entries={"stdout": "s", "stderr": "", "outputs": "other"}),
    ]
    assert judge(given_, confidence=0).accepted == frozenset()
    assert judge(given_, confidence=0, entries=["stdout", "outputs"]).accepted == {"e-1", "e-2"}
    assert judge(given_, confidence=3, entries=["stdout"]).accepted == {"e-1", "e-2", "e-3"}


def test_results_without_a_chosen_entry_do_not_agree() -> None:
    given_ = [proposal(n, "same", entries={"stdout": "s"}) for n in range(3)]
    verdict = judge(given_, confidence=0, entries=["outputs"])
    assert verdict.accepted == frozenset()
    assert "outputs" in verdict.reason


@pytest.mark.parametrize(
    ("params", "faults"),
    [
        ({}, []),
        ({"Confidence": 0}, []),
        ({"Confidence": 3}, []),
        (
            {"Confidence": 4},
            ["Verifier.Params.Confidence: is 4, but Count is 3: not enough nodes can agree"],
        ),
        ({"Confidence": -1}, ["Verifier.Params.Confidence: must be at least 0, not -1"]),
        ({"Confidence": 1.5}, ["Verifier.Params.Confidence: must be a whole number, not 1.5"]),
        ({"Confidence": None}, ["Verifier.Params.Confidence: must be a whole number"]),
        ({"Entries": ["stdout", "outputs"]}, []),
        ({"Entries": "stdout"}, ["Verifier.Params.Entries: must be a list, not 'stdout'"]),
        (
            {"Entries": ["stdout", "", 3]},
            [
                "Verifier.Params.Entries[1]: must not be empty",
                "Verifier.Params.Entries[2]: must be text, not 3",
            ],
        ),
        (
            {"Entries": ["stdout", "a/b"]},
            [f"{ENTRIES}[1]: must be a name without '/'"],
        ),
        ({"Quorum": 2}, ["Verifier.Params.Quorum: unknown key"]),
    ],
)
async def test_every_fault_of_the_parameters_is_named_by_its_path(
    params: dict[str, Any], faults: list[str]
) -> None:
    verifier = DeterministicVerifier()
    assert [str(fault) for fault in verifier.faults(job(3, **params))] == faults
    if faults and "Count" not in faults[0]:
        with pytest.raises(VerifierError, match="Params"):
            await verifier.verify(job(3, **params), proposals(3, 0))


def test_a_count_of_one_is_valid() -> None:
    assert DeterministicVerifier().faults(job(1)) == []


some_proposals = st.lists(st.sampled_from("abcd"), max_size=12).map(
    lambda cids: [proposal(n, cid) for n, cid in enumerate(cids)]
)
confidences = st.integers(0, 13)


@given(some_proposals, confidences)
def test_every_proposal_is_judged_exactly_once(given_: list[Proposal], confidence: int) -> None:
    verdict = judge(given_, confidence=confidence)
    assert verdict.accepted | verdict.rejected == {p.execution_id for p in given_}
    assert not verdict.accepted & verdict.rejected


@given(some_proposals, confidences)
def test_exactly_the_proposals_of_one_result_are_accepted(given_: list[Proposal], confidence: int) -> None:
    verdict = judge(given_, confidence=confidence)
    results = {p.result_cid for p in given_ if p.execution_id in verdict.accepted}
    if verdict.accepted:
        assert len(results) == 1
        assert verdict.accepted == {p.execution_id for p in given_ if p.result_cid in results}
        assert len(verdict.accepted) >= confidence
        others = [p.result_cid for p in given_ if p.result_cid not in results]
        assert all(others.count(cid) < len(verdict.accepted) for cid in others)
    if verdict.accepted and not confidence:
        assert len(verdict.accepted) >= 2
        assert 2 * len(verdict.accepted) > len(given_)


@given(some_proposals, confidences, st.randoms(use_true_random=False))
def test_the_order_of_proposals_does_not_matter(given_: list[Proposal], confidence: int, random: Any) -> None:
    shuffled = list(given_)
    random.shuffle(shuffled)
    assert judge(shuffled, confidence=confidence) == judge(given_, confidence=confidence)


@given(st.integers(0, 12), st.integers(0, 5), confidences)
def test_a_minority_cannot_get_a_wrong_result_accepted(good: int, bad: int, confidence: int) -> None:
    """Even when all bad nodes return the same result, as long as there are more good ones."""
    given_ = [proposal(n, "right") for n in range(good)]
    given_ += [proposal(good + n, "wrong") for n in range(bad)]
    verdict = judge(given_, confidence=confidence)
    wrong = {p.execution_id for p in given_ if p.result_cid == "wrong"}
    if good > bad:
        assert not verdict.accepted & wrong
