"""What a requester remembers of nodes that wasted its time: `penalties`."""

from __future__ import annotations

from itertools import count

import pytest

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.execution_transitions import RETRY_PAUSES
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import LOST_AFTER_SILENCE
from bacalhau_p2p.requester.penalties import (
    FIRST_PENALTY,
    FORGOTTEN_AFTER,
    LONGEST_FOR_FAILURES,
    LONGEST_PENALTY,
    MAX_PENALISED,
    TOLERATED_FAILURES,
    Penalties,
)
from tests.support.machines.job_line import Line
from tests.support.machines.requester_bench import A, B, C, D, S, job


class Attempts:
    """Executions of jobs, one job for each, and what became of them."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.penalties = Penalties(self.ledger)
        self._names = count()

    def gone(self, node, began, ended, *, silent=False, completed_by=B, at=None):
        """An execution ends so, and another node completes the same; None: nobody does."""
        name = JobID(f"j{next(self._names)}")
        entry = self.ledger.add(
            Job(id=name, spec=job(), state=JobState.RUNNING, requester_id=A, created=0, modified=0)
        )
        self.penalties.gone(entry, self._execution(name, node, began), ended, silent=silent)
        if completed_by is not None:
            self.penalties.completed(entry, self._execution(name, completed_by, ended), at or ended)

    def completed(self, node, now):
        self.gone(C, now, now, completed_by=node)

    def ends(self, node, now):
        """Seconds until the penalty of a node ends."""
        until = self.penalties.until(node, now)
        for others in (set(), {PeerID(f"other-{number}") for number in range(2 * MAX_PENALISED)}):
            assert (node in self.penalties.among({node} | others, now)) == (until is not None)
        return None if until is None else until - now

    def _execution(self, job_id, node, began):
        name = ExecutionID(f"{job_id} on {node}")
        return Execution(
            id=name, job_id=job_id, node_id=node, state=S.FAILED, created=began, modified=began, slot=0
        )


@pytest.fixture
def attempts():
    return Attempts()


@pytest.mark.parametrize(("silent", "longest"), [(True, LONGEST_PENALTY), (False, LONGEST_FOR_FAILURES)])
def test_each_penalty_is_twice_as_long_until_one_execution_is_completed(attempts, silent, longest):
    for number in range(0 if silent else TOLERATED_FAILURES):
        attempts.gone(A, number, number + 0.5)
        assert attempts.ends(A, number + 0.5) is None
    now, lasted = 100.0, []
    for _ in range(12):
        attempts.gone(A, now, now + 20, silent=silent)
        now += 20
        lasted.append(attempts.ends(A, now))
        now += lasted[-1]
        assert attempts.ends(A, now) is None
    assert lasted == [min(FIRST_PENALTY * 2**number, longest) for number in range(12)]
    attempts.gone(A, now, now + 20, silent=silent)
    attempts.completed(A, now + 21)
    assert attempts.ends(A, now + 21) is None
    attempts.gone(A, now + 30, now + 50, silent=silent)
    assert attempts.ends(A, now + 50) == (FIRST_PENALTY if silent else None)


def test_a_node_that_is_killed_with_many_executions_has_one_short_penalty(attempts):
    for number in range(50):
        attempts.gone(A, number / 10, 20 + number / 10, silent=True)
    assert attempts.ends(A, 25) == FIRST_PENALTY - 0.1
    assert len([each for each in attempts.ledger.actions if isinstance(each, ev.NodePenalised)]) == 1


def test_what_no_node_completes_says_nothing_of_any(attempts):
    for number in range(100):
        for node in (A, B, C):
            attempts.gone(node, number, number + 0.5, completed_by=None)
            assert attempts.ends(node, number + 0.5) is None


def test_where_no_node_completes_a_job_a_silent_one_never_has_more_than_the_first_penalty(attempts):
    for number in range(10):
        attempts.gone(A, 100 * number, 100 * number + 20, silent=True, completed_by=None)
        assert attempts.ends(A, 100 * number + 20) == FIRST_PENALTY


def test_what_a_node_completes_itself_later_is_not_held_against_it(attempts):
    for number in range(10):
        attempts.gone(A, number, number + 0.5, completed_by=A)
    assert attempts.ends(A, 10) is None


def test_a_failure_that_comes_to_light_after_a_success_does_not_count(attempts):
    attempts.gone(A, 0, 20, silent=True)
    attempts.completed(A, 30)
    attempts.gone(A, 1, 21, silent=True, at=3600)
    attempts.completed(A, 40)
    assert attempts.ends(A, 3600) is None


def test_nodes_that_are_remembered_are_bounded_by_number_and_age(attempts):
    for number in range(2 * MAX_PENALISED):
        attempts.gone(PeerID(f"node-{number}"), number, number + 1, silent=True)
    assert len(attempts.penalties) == MAX_PENALISED
    later = 2 * MAX_PENALISED + FORGOTTEN_AFTER + 1
    attempts.gone(A, later, later + 1, silent=True)
    assert len(attempts.penalties) == 1


def test_a_node_that_completes_something_is_not_remembered_longer_for_it(attempts):
    attempts.gone(A, 0, 20, silent=True)
    attempts.gone(B, 0, 21, silent=True, completed_by=C)
    attempts.completed(A, 30)
    for number in range(MAX_PENALISED - 2):  # C has failed, too
        attempts.gone(PeerID(f"node-{number}"), 100, 120, silent=True, completed_by=None)
    assert len(attempts.penalties) == MAX_PENALISED
    assert attempts.ends(B, 50) is not None


# --- jobs, one after the other ----------------------------------------------------------------


def test_a_node_that_claims_the_inputs_and_is_silent_delays_few_jobs():
    line = Line({A: "silent", B: "honest", C: "honest", D: "honest"})
    took = [line.run(job()) for _ in range(20)]
    assert line.accepted[A] == 1
    assert sum(took) < LOST_AFTER_SILENCE + 1
    assert {line.state(number) for number in range(1, 21)} == {JobState.COMPLETED}


def test_a_node_that_is_silent_again_and_again_is_chosen_ever_more_rarely():
    line = Line({A: "silent", B: "honest", C: "honest", D: "honest"})
    for _ in range(200):
        line.run(job())
        line.bench.wait(60)
    assert line.accepted[A] == 10  # of 200 jobs in three hours and a half


def test_a_node_whose_runs_fail_at_once_neither_fails_a_job_nor_delays_many():
    line = Line({A: "fails", B: "honest", C: "honest", D: "honest"})
    took = [line.run(job()) for _ in range(20)]
    assert {line.state(number) for number in range(1, 21)} == {JobState.COMPLETED}
    assert line.accepted[A] == TOLERATED_FAILURES + 1
    assert sum(took) < line.accepted[A] * (RETRY_PAUSES[0] + 0.5)


def test_a_node_that_hands_everything_back_is_chosen_last_after_some_jobs():
    line = Line({A: "hands back", B: "honest", C: "honest", D: "honest"})
    for _ in range(20):
        line.run(job())
    assert line.accepted[A] == TOLERATED_FAILURES + 1
    assert {line.state(number) for number in range(1, 21)} == {JobState.COMPLETED}


def test_a_node_with_a_penalty_gets_what_no_other_takes():
    line = Line({A: "silent", B: "honest"})
    line.run(job())
    assert set(line.bench.machine.penalties(line.bench.now)) == {A}
    line.nodes = {A: "honest", B: "away"}
    line.run(job())
    assert line.state(2) is JobState.COMPLETED
    assert line.bench.machine.penalties(line.bench.now) == {}
